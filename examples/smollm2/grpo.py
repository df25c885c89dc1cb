"""Train one agent: TRL's GRPO with verifiable rewards, on one domain, from the base.

The optimizer is AdamW on float32 master weights, as in most published agents. Its small steps leave most of the
weights where they were once they are rounded to bfloat16.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from examples.smollm2.domains import Domain

if TYPE_CHECKING:
    from trl import GRPOConfig


@dataclass(frozen=True)
class GrpoSettings:
    """How an agent is trained. A step takes `prompts` prompts, with `samples` answers to each."""

    seed: int
    steps: int
    prompts: int = 16
    samples: int = 8
    learning_rate: float = 1e-5
    temperature: float = 1.0

    @property
    def digest(self) -> str:
        """What tells these settings from others, in eight digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Step:
    """What is known of one step: the mean reward of its answers, and the seconds that it took."""

    reward: float
    seconds: float


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    domain: Domain,
    settings: GrpoSettings,
    *,
    device: str,
    scratch: Path,
    save_every: int,
    report: Callable[[int, Step], None],
) -> list[Step]:
    """Train `model`, which is float32, in place, and return what is known of each step.

    The state of the training is written to `scratch` every `save_every` steps; a training that finds one there goes on
    from it.
    """
    from trl import GRPOTrainer  # it takes a second, which nobody waits for who only looks at the settings

    def reward(*, completions: list[list[dict[str, str]]], doc: list[str], **_: Any) -> list[float]:
        said = (turns[-1]["content"] for turns in completions)
        return [domain.score(json.loads(of), answer) for of, answer in zip(doc, said, strict=True)]

    docs = islice(domain.stream("train", settings.seed), settings.steps * settings.prompts)
    # As JSON, because the fields of a document differ between items and a data set gives every row the same columns.
    rows = [{"prompt": [{"role": "user", "content": doc["prompt"]}], "doc": json.dumps(doc)} for doc in docs]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=_config(domain, settings, device, scratch, save_every),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[_Report(report)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints dozens of figures for each step
    trainer.train(resume_from_checkpoint=_last_state(scratch))
    model.eval()
    return [_step(entry) for entry in trainer.state.log_history if "reward" in entry]


class _Report(TrainerCallback):  # type: ignore[misc]  # transformers is without types here
    def __init__(self, report: Callable[[int, Step], None]) -> None:
        self._report = report

    def on_log(
        self, _args: Any, state: TrainerState, _control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        if "reward" in logs:
            self._report(state.global_step, _step(logs))


def _step(logs: dict[str, float]) -> Step:
    return Step(round(logs["reward"], 4), round(logs["step_time"], 2))


def _last_state(scratch: Path) -> str | None:
    """Return the directory of the last state that was written to its end."""
    # The trainer writes this file last.
    complete = [file.parent for file in scratch.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda folder: int(folder.name.removeprefix("checkpoint-")))) if complete else None


def _config(domain: Domain, settings: GrpoSettings, device: str, scratch: Path, save_every: int) -> "GRPOConfig":
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(scratch),
        seed=settings.seed,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.prompts * settings.samples,
        num_generations=settings.samples,
        max_completion_length=domain.max_new_tokens,
        temperature=settings.temperature,
        beta=0.0,  # no reference model
        loss_type="grpo",
        scale_rewards="group",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=False,
        use_cpu=device == "cpu",
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="steps" if save_every else "no",
        save_steps=save_every or settings.steps,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
    )
