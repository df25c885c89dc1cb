"""A tiny random chat model with a tokenizer, and tiny suites: what the tests of this room evaluate."""

import json
import random
import string
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}!{% endif %}"
)
SCORING = """
def process_results(doc, results):
    return {"acc": float(sum(map(ord, results[0])) % 3 != 0), "share": results[0].count("e") / 6}
"""


# Code of a suite that never returns, when all but a moment of the time that it has is over.
HANGS = (
    "import signal, time; left, _ = signal.getitimer(signal.ITIMER_REAL); "
    "signal.setitimer(signal.ITIMER_REAL, min(left, 0.01)); time.sleep(1000)"
)


def write_model(directory: Path, *, seed: int = 0) -> Path:
    """Write a two-layer Llama over characters whose weights are large enough that its greedy choices are clear."""
    config = LlamaConfig(
        vocab_size=write_tokenizer(directory),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    # Evaluation must not follow it: it would compare decoding settings instead of weights.
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0, repetition_penalty=5.0)
    model.save_pretrained(directory)
    return directory


def write_tokenizer(directory: Path, *, characters: str = string.printable[:95], **settings: object) -> int:
    """Write a tokenizer of single characters with a chat template, and return the number of its tokens."""
    tokens = ["<pad>", "<eos>", "<unk>", "\n", *characters]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>", "chat_template": TEMPLATE}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special | settings).save_pretrained(directory)
    return len(tokens)


WORLD = """
from evaluation.suites.environment import Reply

class Mirror:
    def reset(self, item):
        self.said, self.item = [], item

    def step(self, answer):
        self.said.append(answer)
        if len(self.said) == 3:
            return Reply(score=len(set("".join(self.said))) / 18)
        return Reply(f"{answer[::-1]}={self.item['id'][-1]}", forget=len(self.said) == 2)
"""


def write_suite(directory: Path, *, kind: str = "generate", sizes: tuple[int, int] = (5, 12), **extra: object) -> Path:
    """Write a suite of random prompts, `sizes` of them for validation and test; `extra` goes into suite.yaml.

    Of the kind `world` three answers to each, of which the last knows only what it was told before it.
    """
    directory.mkdir(parents=True)
    name = directory.name
    if kind == "world":
        extra = {"apply_chat_template": True, "environment": {"class": "world.Mirror", "turns": 5}} | extra
        (directory / "world.py").write_text(WORLD)
    tasks = {split: [f"{name}_{split}"] for split in ("validation", "test")}
    suite = {"name": name, "title": name.title(), "domain": "made", "metric": "acc", "tasks": tasks, **extra}
    (directory / "suite.yaml").write_text(yaml.safe_dump(suite))
    (directory / "scoring.py").write_text(SCORING)
    shared = {"dataset_path": "json", "doc_to_text": "prompt", "doc_to_target": "target"}
    for split, size in zip(("validation", "test"), sizes, strict=True):
        rng = random.Random(f"{name} {split}")
        items = [
            {
                "id": f"{split}-{rng.randrange(10**6):06d}",
                "prompt": "".join(rng.choices("abcdef =?", k=rng.randint(3, 40))),
                "target": rng.randrange(3) if kind == "choice" else "abc",
                "topic": f"{split} {index // 3}",
                "choices": ["ab", "c", "def"],
                "nested": {"only here": index} if index % 2 else {"only there": index},
            }
            for index in range(size)
        ]
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        data = {
            "task": f"{name}_{split}",
            "dataset_kwargs": {"data_files": {split: f"{split}.jsonl"}},
            "test_split": split,
        }
        task = yaml.safe_dump(shared | data)
        if kind == "choice":
            task += "output_type: multiple_choice\ndoc_to_choice: choices\nmetric_list: [{metric: acc}]\n"
        elif kind == "world":
            task += (
                "output_type: generate_until\ngeneration_kwargs: {until: [], max_gen_toks: 6}\n"
                "metric_list: [{metric: acc, aggregation: mean}]\n"
            )
        else:
            task += (
                "output_type: generate_until\nprocess_results: !function scoring.process_results\n"
                "generation_kwargs: {until: ['f'], max_gen_toks: 6, do_sample: true, temperature: 2.0}\n"
                "metric_list: [{metric: acc, aggregation: mean}, {metric: share, aggregation: mean}]\n"
            )
        (directory / f"{split}.yaml").write_text(task)
    return directory
