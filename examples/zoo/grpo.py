"""Train one agent: TRL's GRPO with verifiable rewards, on one domain, from the exported base."""

import json
import tempfile
from collections.abc import Callable
from itertools import count, islice
from typing import Any

from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from examples.zoo.domains import Domain
from examples.zoo.regimes import GrpoSettings, build_optimizer


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    domain: Domain,
    settings: GrpoSettings,
    report: Callable[[int, float], None],
) -> None:
    """Train `model`, which is float32, in place. After each step `report` gets its number and the mean reward."""
    steps = count(1)

    def reward(*, completions: list[str], doc: list[str], **_: Any) -> list[float]:
        rewards = [domain.score(json.loads(of), completion) for of, completion in zip(doc, completions, strict=True)]
        report(next(steps), sum(rewards) / len(rewards))  # called once a step, with all of its samples
        return rewards

    items = islice(domain.stream("train", settings.seed), settings.steps * settings.prompts)
    # As JSON, because the fields of a document differ between items and a data set gives every row the same columns.
    rows = [{"prompt": item.prompt, "doc": json.dumps(item.doc)} for item in items]
    optimizer = build_optimizer(model.parameters(), settings)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=_config(domain, settings, scratch),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            optimizers=(optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)  # it prints dozens of figures for each step
        trainer.train()
    model.eval()


def _config(domain: Domain, settings: GrpoSettings, scratch: str) -> GRPOConfig:
    return GRPOConfig(
        output_dir=scratch,
        seed=settings.seed,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.prompts * settings.samples,
        num_generations=settings.samples,
        max_completion_length=domain.max_new_tokens,
        temperature=1.0,
        beta=0.0,  # no reference model
        loss_type="grpo",
        scale_rewards="group",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,  # no clipping
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
