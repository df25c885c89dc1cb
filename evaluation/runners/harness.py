"""Run a model on suites with lm-eval's Python interface: one dtype, one batch size, scores kept by item.

Decoding is greedy, unless a suite samples several answers to each item.

The model is loaded once for all suites and splits, then each split is one call of lm-eval, so that the composition of
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.backends.transformers import drop_decoding_settings, load, preload_transformers, threads_for
from evaluation.results import SuiteResult
from evaluation.runners.asking import ask, asked
from evaluation.runners.rehearsal import rehearse
from evaluation.runners.samples import digest_items, joined
from evaluation.runners.tasks import build_tasks, task_manager
from evaluation.suites import SPLITS, Split, Suite
from rammerge.errors import InputError
from rammerge.system.atomic import write_json, write_text

if TYPE_CHECKING:
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
    for warning in rehearse(suites, {str(model_dir): Path(model_dir)}, limit=limit, splits=splits).warnings:
        if progress is not None:
            progress(f"warning: {warning}")
    model = Harness(Path(model_dir), dtype=dtype, batch_size=batch_size, device=device, model_digest=model_digest)
    return model.evaluate(suites, splits=splits, limit=limit, out=out, progress=progress)


class Harness:
    """A loaded model that lm-eval can ask."""

    def __init__(
        self, model_dir: Path, *, dtype: str, batch_size: int, device: str, model_digest: str | None = None
    ) -> None:
        """Load the model; see `evaluate_model` for the arguments and what it raises."""
        preload()
        loaded = load(model_dir, dtype=dtype, device=device)
        drop_decoding_settings(loaded.model)
        self._lm = asked(loaded.model, loaded.tokenizer, seq2seq=loaded.seq2seq, batch_size=batch_size)
        self._conditions: dict[str, Any] = {
            "dtype": dtype,
            "device": device,
            "batch_size": batch_size,
            "lm_eval_version": version("lm_eval"),
            "transformers_version": version("transformers"),
            "torch_version": version("torch"),
            "model_digest": model_digest,
        }

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
                    chat_template=self._template() if suite.apply_chat_template else None,
                    sandbox=suite.sandbox,
                    **_kept(suite, found),
                    **self._conditions,
                )
                results[suite.name, split] = result
                if out is not None:
                    _write(out / suite.name, result, found)
                if progress is not None:
                    progress(f"{suite.name} {split}: {result.mean:.1%} of {result.n} in {result.seconds:.1f} s")
        return results

    def _run(self, tasks: "Mapping[str, Task]", suite: Suite, split: Split, limit: int | None) -> list[dict[str, Any]]:
        """Return the samples of one split, sorted by id."""
        chat = suite.apply_chat_template
        with threads_for(self._lm.model):
            if suite.sampling is None:
                return ask(self._lm, suite, split, tasks, limit=limit, chat=chat)
            repeats = []
            for number in range(suite.sampling.repeats):
                with _seeded(suite.name, split, str(number)):
                    repeats.append(ask(self._lm, suite, split, tasks, limit=limit, chat=chat))
            return joined(repeats)

    def _template(self) -> str:
        return hashlib.sha256(json.dumps(self._lm.tokenizer.chat_template, sort_keys=True).encode()).hexdigest()


def _kept(suite: Suite, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a result says of clusters and of several answers to an item."""
    kept: dict[str, Any] = {}
    if suite.cluster is not None:
        kept["clusters"] = {sample["id"]: sample["cluster"] for sample in found}
    if suite.sampling is not None:
        kept["answers"] = {sample["id"]: [answer["score"] for answer in sample["answers"]] for sample in found}
        kept["decoding"] = str(suite.sampling)
    return kept


@contextmanager
def _seeded(*names: str) -> Iterator[None]:
    """Draw answers from a seed made of names, the same for every model, and leave the process's own state alone."""
    import torch

    seed = int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


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
