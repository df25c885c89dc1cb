"""Contract: a recording holds what flows into a model's linear layers, one row for each token, under stored names.

Times the stored weight, the rows give what the layers of transformers give. The bytes do not depend on the number of
threads; a layer that does not read each token once has no recording; what is wrong with prompts is one sentence.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from rammerge.activations.activations import Activations
from rammerge.activations.prompts import Prompts
from rammerge.activations.recording import record
from rammerge.activations.tokens import tokenize
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.errors import InputError
from tests.engine.models import read
from tests.evaluation.made import write_tokenizer
from tests.fixtures.models import edit_tensors

# Single characters that are tokens of the tiny models.
CHARACTERS = "abcdefghij"
TEXTS = ("abc", "jihgfedcba", "aab")


def prompts(directory: Path, *lines: str, name: str = "prompts.txt") -> Prompts:
    (directory / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Prompts.read(directory / name)


@pytest.fixture
def model(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a tiny model and gives it a tokenizer."""

    def copied(kind: str) -> Path:
        target = Path(shutil.copytree(tiny_model(kind), tmp_path / kind))
        write_tokenizer(target, characters=CHARACTERS)
        return target

    return copied


def content(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


# Plain, stored inputs-first, with experts, with names that differ in memory, and with an encoder.
@pytest.mark.parametrize("kind", ["llama", "gpt2", "moe", "vision_language", "t5"])
def test_rows_times_the_stored_weight_are_what_layers_give(
    model: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    checkpoint = open_checkpoint(model(kind))
    found = record(checkpoint, prompts(tmp_path, *TEXTS), tmp_path / "out", threads=2)
    assert found.lengths == tuple(len(text) for text in TEXTS)
    assert found.layers.keys() <= checkpoint.tensors.keys()
    if kind == "llama":
        assert len(found.layers) == 14
        assert len({layer.file for layer in found.layers.values()}) == 8  # q, k, v read the same; gate and up, too
    expected = outputs(checkpoint.path)
    stored = read(checkpoint.path)
    assert found.layers
    for name, layer in found.layers.items():
        rows = found.read(layer, slice(0, found.tokens), slice(0, layer.width))
        weight = stored[name].float()
        given = rows @ (weight if layer.inputs_first else weight.T)
        alike = [each for each in expected if each.shape == given.shape]
        # bfloat16 rounds outputs, and with them what is left without the bias.
        assert min(float((each - given).norm() / given.norm()) for each in alike) < 0.02, name


def outputs(model_dir: Path) -> list[torch.Tensor]:
    """Return what each linear layer gives for all tokens, without its bias."""
    config = transformers.AutoConfig.from_pretrained(model_dir)
    loaded = getattr(transformers, config.architectures[0]).from_pretrained(model_dir, dtype="auto").eval()
    seen: dict[str, list[torch.Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
            bias = layer.bias if isinstance(layer.bias, torch.Tensor) else 0.0
            seen.setdefault(name, []).append((output - bias).float().reshape(-1, output.shape[-1]))

        return hook

    for name, module in loaded.named_modules():
        if isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D):
            module.register_forward_hook(keep(name))
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    with torch.inference_mode():
        for text in TEXTS:
            ids = tokenizer(text, return_tensors="pt").input_ids
            loaded(input_ids=ids, **({"labels": ids} if config.is_encoder_decoder else {}))
    return [torch.cat(each) for each in seen.values()]


def test_bytes_do_not_depend_on_threads(model: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint, texts = open_checkpoint(model("qwen2")), prompts(tmp_path, *TEXTS)
    before = torch.get_num_threads()
    for threads in (1, 3):
        record(checkpoint, texts, tmp_path / f"{threads}", threads=threads)
    assert content(tmp_path / "1") == content(tmp_path / "3")
    assert torch.get_num_threads() == before
    assert Activations.open(tmp_path / "1") == record(checkpoint, texts, tmp_path / "1")
    assert Activations.open(tmp_path) is None


def test_a_layer_that_reads_tokens_twice_or_not_at_all_has_no_recording(
    model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    plain = LlamaMLP.forward

    def forward(self: LlamaMLP, x: torch.Tensor) -> torch.Tensor:
        self.up_proj(x)
        some: torch.Tensor = plain(self, x) if x.shape[1] > 3 else self.down_proj(self.act_fn(self.gate_proj(x)))
        return some

    monkeypatch.setattr(LlamaMLP, "forward", forward)
    found = record(open_checkpoint(model("llama")), prompts(tmp_path, *TEXTS), tmp_path / "out")
    assert not [name for name in found.layers if "up_proj" in name]
    assert [name for name in found.layers if "gate_proj" in name]
    assert {file.name for file in (tmp_path / "out").glob("*.f32")} == {layer.file for layer in found.layers.values()}


def test_prompts_of_agents_and_chats(model: Callable[[str], Path], tmp_path: Path) -> None:
    lines = [
        json.dumps({"prompt": "abc", "target": "not read"}),
        "",
        json.dumps({"prompt": [{"role": "user", "content": "ab"}], "agent": "tool"}),
    ]
    read_ = prompts(tmp_path, *lines, name="prompts.jsonl")
    assert [each.agent for each in read_.items] == [None, "tool"]
    plain, chat = tokenize(model("llama"), read_)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "llama")
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "ab"}], add_generation_prompt=True, tokenize=False
    )
    assert (tokenizer.decode(plain), chat) == ("abc", tokenizer(rendered).input_ids)


def test_a_line_of_json_ends_where_json_ends_it(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"  # what ends a line of text for Python
    content = json.dumps({"prompt": text}, ensure_ascii=False)
    assert [each.content for each in prompts(tmp_path, content, content, name="prompts.jsonl").items] == [text, text]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("\n \n", "p.txt", "p.txt has no prompts; write one on each line"),
        ('{"text": "abc"}', "p.jsonl", r'p.jsonl:1 has no prompt; write {"prompt": "..."}'),
        ('{"prompt": "abc"', "p.jsonl", "p.jsonl:1 is not JSON"),
        ('{"prompt": "abc", "agent": 3}', "p.jsonl", "p.jsonl:1 names no agent with 3"),
        ("abc\n" + "a" * 70, "p.txt", "prompt 2 has 70 tokens, and .* reads 64 at most; shorten it"),
    ],
)
def test_bad_prompts_are_one_sentence(
    model: Callable[[str], Path], tmp_path: Path, text: str, name: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        tokenize(model("llama"), Prompts.read(tmp_path / name))


def test_a_missing_file_and_a_model_that_cannot_read(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.txt does not exist"):
        Prompts.read(tmp_path / "p.txt")
    with pytest.raises(InputError, match="its tokenizer cannot be loaded by transformers, so it cannot read prompts"):
        tokenize(tiny_model("llama"), prompts(tmp_path, "abc"))


def test_activations_that_are_not_finite_are_refused(model: Callable[[str], Path], tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    broken = edit_tensors(model("llama"), lambda tensors: tensors[name].fill_(float("inf")))
    with pytest.raises(InputError, match=r"what flows into 'model\.layers\.0\.mlp\.down_proj\.weight' has a NaN"):
        record(open_checkpoint(broken), prompts(tmp_path, "abc"), tmp_path / "out")
