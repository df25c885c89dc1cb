"""Run a model on suites with lm-eval's Python interface: one dtype, one batch size, scores kept by item.

Decoding is greedy, unless a suite samples several answers to each item.

A model is loaded once for all suites and splits, then each split is one call of lm-eval, so that the composition of
its batches, and with it the last bits of the logits, does not depend on which other suites are asked for. lm-eval's
request cache is never used: it does not know which model it answers for. Nothing here reaches for the network unless a
suite names a task of lm-eval's library whose data are not on this machine.

lm-eval and torch are imported by the first call, which also silences the progress bars and the advice of lm-eval
and transformers in this process. Threads and random seeds are left as they are.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evaluation.backends.transformers import preload_transformers
from evaluation.results import SuiteResult
from evaluation.runners.asking import ask
from evaluation.runners.local import LocalModel
from evaluation.runners.rehearsal import rehearse
from evaluation.runners.samples import count_tokens, digest_items, joined
from evaluation.runners.slices import positions
from evaluation.runners.tasks import build_tasks, task_manager
from evaluation.suites import SPLITS, Split, Suite
from rammerge.errors import InputError
from rammerge.system.atomic import write_json, write_text
from rammerge.system.optional import without

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task

BATCH_SIZE = 100

Results = dict[tuple[str, Split], SuiteResult]


def evaluate_model(
    model_dir: Path,
    suites: Sequence[Suite],
    *,
    splits: Sequence[Split] = SPLITS,
    dtype: str = "float32",
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
    limit: int | None = None,
    out: Path | None = None,
    model_digest: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Results:
    """Evaluate the model directory on every split of every suite; results by (suite name, split).

    `limit` takes the first items of each task. With `out`, each result is written to out/<suite>/<split>.json and its
    samples (id, prompt, target, completion, score; in the order of ids) to out/<suite>/<split>.jsonl.

    Raises:
        InputError: an unknown dtype, task or metric, a score outside [0, 1], or a directory that is not a model.
        RammergeError: a suite's own code failed on an item.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise InputError("the evaluation's batch_size and limit must be at least 1")
    preload()
    for warning in rehearse(suites, {str(model_dir): Path(model_dir)}, limit=limit, splits=splits).warnings:
        if progress is not None:
            progress(f"warning: {warning}")
    model = LocalModel(Path(model_dir), dtype=dtype, batch_size=batch_size, device=device, model_digest=model_digest)
    return Harness(model).evaluate(suites, splits=splits, limit=limit, out=out, progress=progress)


class Asks(Protocol):
    """A model, wherever it runs.

    Attributes:
        conditions: fields of its SuiteResults that say how it runs.
        tokenizer: transformers' tokenizer that reads its prompts, or None if that is not known.
    """

    conditions: Mapping[str, Any]
    tokenizer: Any

    def asked(self, seed: int | None) -> AbstractContextManager["LM"]:
        """Return the context in which lm-eval asks it; `seed` is where sampled answers begin."""

    def peak_memory(self) -> int | None:
        """Return the most memory that was in use since it began, in bytes, or None if that is not known."""


class Harness:
    """A model that lm-eval asks."""

    def __init__(self, model: Asks) -> None:
        """Ask nothing yet."""
        self._model = model

    def evaluate(
        self,
        suites: Sequence[Suite],
        *,
        splits: Sequence[Split] = SPLITS,
        limit: int | None = None,
        out: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Results:
        """Return the results by (suite name, split); see `evaluate_model`."""
        results: Results = {}
        manager = task_manager(include_library=any(suite.uses_library for suite in suites))
        for suite in suites:
            for split in splits:
                started = time.perf_counter()
                tasks = build_tasks(manager, suite, split)
                found = self._run(tasks, suite, split, limit)
                result = SuiteResult(
                    suite=suite.name,
                    suite_digest=suite.digest,
                    split=split,
                    scores={sample["id"]: sample["score"] for sample in found},
                    items_digest=digest_items(found),
                    limit=limit,
                    seconds=time.perf_counter() - started,
                    few_shot={name: int(task.get_config("num_fewshot")) for name, task in tasks.items()},
                    chat_template=_digest_template(self._model.tokenizer) if suite.apply_chat_template else None,
                    sandbox=suite.sandbox,
                    peak_memory=self._model.peak_memory(),
                    tokens=count_tokens(self._model.tokenizer, found),
                    **_kept(suite, found),
                    **self._model.conditions,
                )
                results[suite.name, split] = result
                if out is not None:
                    _write(out / suite.name, result, found)
                if progress is not None:
                    progress(f"{suite.name} {split}: {result.mean:.1%} of {result.n} in {result.seconds:.1f} s")
        return results

    def look(self, suite: Suite, look: int, *, limit: int | None = None) -> list[float]:
        """Return the scores of the validation items that one look of a search adds (evaluation.search.schedule).

        Test items are not asked. There may be none to ask.
        """
        manager = task_manager(include_library=suite.uses_library)
        tasks = build_tasks(manager, suite, "validation")
        chosen = positions(suite, tasks, look, limit)
        asked = {name: tasks[name] for name in chosen}
        return [sample["score"] for sample in self._run(asked, suite, "validation", None, chosen)] if asked else []

    def _run(
        self,
        tasks: "Mapping[str, Task]",
        suite: Suite,
        split: Split,
        limit: int | None,
        chosen: Mapping[str, list[int]] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the samples of one split, sorted by id; `chosen` are positions of items by task, in place of all."""
        seeds: list[int | None] = [None]
        if suite.sampling is not None:
            seeds = [_seed(suite.name, split, str(number)) for number in range(suite.sampling.repeats)]
        found = []
        for seed in seeds:
            with self._model.asked(seed) as lm:
                found.append(ask(lm, suite, split, tasks, limit=limit, chat=suite.apply_chat_template, chosen=chosen))
        return found[0] if suite.sampling is None else joined(found)


def _kept(suite: Suite, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a result says of clusters and of several answers to an item."""
    kept: dict[str, Any] = {}
    if suite.cluster is not None:
        kept["clusters"] = {sample["id"]: sample["cluster"] for sample in found}
    if suite.sampling is not None:
        kept["answers"] = {sample["id"]: [answer["score"] for answer in sample["answers"]] for sample in found}
        kept["decoding"] = str(suite.sampling)
    return kept


def _digest_template(tokenizer: Any) -> str | None:
    """Return the SHA-256 of a tokenizer's chat template."""
    if tokenizer is None:
        return None
    return hashlib.sha256(json.dumps(tokenizer.chat_template, sort_keys=True).encode()).hexdigest()


def _seed(*names: str) -> int:
    """Return a seed that is the same for every model."""
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big")


def _write(folder: Path, result: SuiteResult, found: Sequence[Mapping[str, Any]]) -> None:
    lines = [
        json.dumps({key: value for key, value in sample.items() if key != "item"}, ensure_ascii=False)
        for sample in found
    ]
    write_text(folder / f"{result.split}.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(folder / f"{result.split}.json", result.to_json())


@cache
def preload() -> None:
    """Import lm-eval and what it needs, once a process, without its progress bars and advice.

    Its errors are still logged.
    """
    # Kinds of event loops and of locks that nothing here uses; they take a quarter of a second.
    with without("trio", "redis"):
        preload_transformers()
        import lm_eval.api.model
        import lm_eval.api.task
        import lm_eval.evaluator
        import lm_eval.models.huggingface

    for library in ("lm_eval", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # lm-eval has no switch for its bars, and tqdm reads its own only when it is first imported.
    for module in (lm_eval.api.model, lm_eval.api.task, lm_eval.models.huggingface):
        module.tqdm = _no_bar


def _no_bar(*arguments: Any, **options: Any) -> Any:
    from tqdm import tqdm

    return tqdm(*arguments, **options | {"disable": True})
