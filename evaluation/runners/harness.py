"""Run a model on suites with lm-eval's Python interface: greedy, one dtype, one batch size, scores kept by item.

The model is loaded once for all suites and splits, then each split is one call of lm-eval, so that the composition of
its batches, and with it the last bits of the logits, does not depend on which other suites are asked for. lm-eval's
request cache is never used: it does not know which model it answers for. Nothing here reaches for the network unless a
suite names a task of lm-eval's library whose data are not on this machine.

lm-eval and torch are imported by the first call, which also silences lm-eval's and transformers' bars and advice in
this process. Threads and random seeds are left as they are.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from evaluation.results import SuiteResult
from evaluation.suites import SPLITS, FunctionReference, Split, Suite, TaskFile
from evaluation.suites.taskfile import read_items
from rammerge.errors import InputError, RammergeError, closest
from rammerge.system.atomic import write_json, write_text

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

BATCH_SIZE = 100
DTYPES = ("float32", "bfloat16", "float16")

_FEWSHOT_SEED = 1234  # lm-eval's own default
# transformers sets torch's default dtype while it builds a model, which is global to the process.
_LOADING = threading.Lock()


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
) -> dict[tuple[str, Split], SuiteResult]:
    """Evaluate the model directory on every split of every suite; results by (suite name, split).

    `limit` takes the first items of each task. With `out`, each result is written to out/<suite>/<split>.json and its
    samples (id, prompt, target, completion, score; in the order of ids) to out/<suite>/<split>.jsonl.
    Raises InputError for an unknown dtype, task or metric, a score outside [0, 1], or a directory that is not a model.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype '{dtype}'{closest(dtype, DTYPES)} for the evaluation: use {', '.join(DTYPES)}")
    if batch_size < 1 or (limit is not None and limit < 1):
        raise InputError("the evaluation's batch_size and limit must be at least 1")
    results: dict[tuple[str, Split], SuiteResult] = {}
    _silence()
    model = _load(Path(model_dir), dtype, device, batch_size)
    manager = _task_manager(any(suite.uses_library for suite in suites))
    for suite in suites:
        for split in splits:
            started = time.perf_counter()
            samples = _run(model, manager, suite, split, limit)
            result = SuiteResult(
                suite=suite.name,
                suite_digest=suite.digest,
                split=split,
                scores={sample["id"]: sample["score"] for sample in samples},
                items_digest=_digest_items(samples),
                dtype=dtype,
                device=device,
                batch_size=batch_size,
                limit=limit,
                lm_eval_version=version("lm_eval"),
                transformers_version=version("transformers"),
                torch_version=version("torch"),
                seconds=time.perf_counter() - started,
                model_digest=model_digest,
            )
            results[suite.name, split] = result
            if out is not None:
                _write(out / suite.name, result, samples)
            if progress is not None:
                progress(f"{suite.name} {split}: {result.mean:.1%} of {result.n} in {result.seconds:.1f} s")
    return results


def _load(model_dir: Path, dtype: str, device: str, batch_size: int) -> "LM":
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    if not (model_dir / "config.json").is_file():
        raise InputError(f"{model_dir} is not a model directory: it has no config.json")
    try:
        # Unset, trust_remote_code would make transformers ask on a terminal whether to run the model's own code.
        local = {"local_files_only": True, "trust_remote_code": False}
        with _LOADING:
            tokenizer = AutoTokenizer.from_pretrained(model_dir, **local)
            model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype), **local).to(device)
    except Exception as error:  # of safetensors, tokenizers, torch and transformers, which share no class
        raise InputError(f"{model_dir} cannot be loaded by transformers: {' '.join(str(error).split())}") from error
    # A checkpoint's own decoding settings (a repetition penalty, a temperature) would make agents differ by more than
    # their weights; what ends a completion is kept.
    own = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def _task_manager(include_library: bool) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=include_library)  # indexing the library takes seconds


def _run(model: "LM", manager: "TaskManager", suite: Suite, split: Split, limit: int | None) -> list[dict[str, Any]]:
    """Return the samples of one split, sorted by id."""
    from lm_eval.evaluator import evaluate

    tasks: dict[str, Task] = {}
    for name in suite.tasks[split]:
        tasks |= _build(manager, suite, name)
    for task in tasks.values():
        _pin_decoding(task)
    # bootstrap_iters=0: the intervals are ours, over paired items (evaluation.statistics).
    try:
        logged = evaluate(
            lm=model,
            task_dict={"tasks": tasks},
            limit=limit,
            bootstrap_iters=0,
            apply_chat_template=suite.apply_chat_template,
            fewshot_as_multiturn=suite.apply_chat_template,
        )["samples"]
    except Exception as error:  # a scoring function may raise anything
        raise RammergeError(f"the {split} split of the suite {suite.path} cannot be evaluated: {error!r}") from error
    samples = [
        sample for name in sorted(tasks) for sample in _samples(suite, name, logged[name], prefix=len(tasks) > 1)
    ]
    return sorted(samples, key=lambda sample: str(sample["id"]))


def _build(manager: "TaskManager", suite: Suite, name: str) -> dict[str, "Task"]:
    """Return the task `name`, or for a group of lm-eval's library the tasks in it, by name."""
    file = suite.task_files.get(name)
    if file is None and name not in manager.all_tasks:
        known = [*suite.task_files, *manager.all_tasks]
        raise InputError(f"{suite.path / 'suite.yaml'} names the unknown lm-eval task '{name}'{closest(name, known)}")
    try:
        loaded: dict[str, Task] = manager.load([_config(file) if file is not None else name])["tasks"]
    except InputError:
        raise
    except Exception as error:  # lm-eval has no error class of its own
        raise InputError(f"lm-eval cannot build the task '{name}' of the suite {suite.path}: {error}") from error
    return loaded


def _config(file: TaskFile) -> dict[str, Any]:
    """Return lm-eval's configuration of a suite's own task, with its functions loaded and its local data named."""
    config: dict[str, Any] = _resolve(dict(file.config))
    if file.data_files is not None:
        # lm-eval would read the files through the Arrow library's cache below the user's home, and every item would get
        # the keys of all the others; this way the scoring function meets the items as they are in the file.
        config["custom_dataset"] = partial(_local_dataset, file.data_files, as_arrow="process_docs" in config)
        config.pop("dataset_kwargs")
    return config


def _resolve(value: Any) -> Any:
    """Replace the FunctionReferences anywhere in a configuration by their functions."""
    match value:
        case FunctionReference():
            return value.load()
        case dict():
            return {key: _resolve(part) for key, part in value.items()}
        case list():
            return [_resolve(part) for part in value]
    return value


class _Items(list[dict[str, Any]]):
    """Items as lm-eval expects a split of a dataset to be."""

    @property
    def features(self) -> dict[str, None]:
        """The keys of the items: lm-eval takes `doc_to_text: x` as a field if x is one, else as a template."""
        return dict.fromkeys(key for item in self for key in item)


def _local_dataset(files: Mapping[str, Sequence[Path]], *, as_arrow: bool, **_metadata: Any) -> dict[str, Any]:
    """Return the items by lm-eval split; as Arrow data where a `process_docs` function wants to map and filter them."""
    splits = {split: _Items(item for path in paths for item in read_items(path)) for split, paths in files.items()}
    if not as_arrow:
        return dict(splits)
    from datasets import Dataset

    return {split: Dataset.from_list(items) for split, items in splits.items()}


def _pin_decoding(task: "Task") -> None:
    """Make the task greedy, and its few-shot examples, if it has any, the same in every run."""
    if task.get_config("output_type") == "generate_until":
        task.set_config("generation_kwargs", {"do_sample": False, "temperature": 0.0}, update=True)
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(_FEWSHOT_SEED)


def _samples(suite: Suite, task: str, logged: Sequence[Mapping[str, Any]], *, prefix: bool) -> Iterator[dict[str, Any]]:
    """Turn lm-eval's log of a task into our samples; ids are the items' own, else their place in the data."""
    file = suite.path / "suite.yaml"
    metric, _, named_filter = suite.metric.partition(",")
    filters = sorted({entry["filter"] for entry in logged})
    chosen = named_filter or filters[0]
    if chosen not in filters or (len(filters) > 1 and not named_filter):
        raise InputError(
            f"{file}: the task '{task}' has the filters {', '.join(filters)}: "
            f"write the metric as '{metric},{filters[0]}'"
        )
    for entry in logged:
        if entry["filter"] == chosen:
            identity = str(entry["doc"].get("id", entry["doc_id"]))
            yield {
                "id": f"{task}/{identity}" if prefix else identity,
                "prompt": entry["arguments"][0][0],
                "target": str(entry["target"]),
                "completion": _completion(entry),
                "score": _score(f"{file}: the task '{task}'", metric, entry),
                "item": entry["doc_hash"],
            }


def _completion(entry: Mapping[str, Any]) -> str:
    """Return the generated text, or for multiple choice the text of the most likely choice."""
    responses = entry["filtered_resps"]
    if isinstance(responses[0], str):
        return str(responses[0])
    likeliest = max(range(len(responses)), key=lambda choice: float(responses[choice][0]))
    return str(entry["arguments"][likeliest][1])


def _score(where: str, metric: str, entry: Mapping[str, Any]) -> float:
    metrics = entry["metrics"]
    if metric not in metrics:
        raise InputError(f"{where} has no metric '{metric}'{closest(metric, metrics)}; it has {', '.join(metrics)}")
    score = entry[metric]
    if not isinstance(score, SupportsFloat) or not 0.0 <= float(score) <= 1.0:
        raise InputError(
            f"{where} gave an item the {metric} {score!r}, but a suite's metric must score each item in [0, 1] so that "
            f"suites can be averaged"
        )
    return float(score)


def _digest_items(samples: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the ids and contents of the items: data fetched by lm-eval's library can change under one name."""
    return hashlib.sha256(json.dumps([[sample["id"], sample["item"]] for sample in samples]).encode()).hexdigest()


def _write(folder: Path, result: SuiteResult, samples: Sequence[Mapping[str, Any]]) -> None:
    lines = [
        json.dumps({key: value for key, value in sample.items() if key != "item"}, ensure_ascii=False)
        for sample in samples
    ]
    write_text(folder / f"{result.split}.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(folder / f"{result.split}.json", result.to_json())


@cache
def _silence() -> None:
    """Once a process: no progress bars and no advice from lm-eval and transformers; their errors are still logged."""
    import lm_eval.api.task
    import lm_eval.models.huggingface
    import transformers

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # lm-eval has no switch for its bars, and tqdm reads its own only when it is first imported.
    for module in (lm_eval.api.task, lm_eval.models.huggingface):
        module.tqdm = _no_bar


def _no_bar(*arguments: Any, **options: Any) -> Any:
    from tqdm import tqdm

    return tqdm(*arguments, **options | {"disable": True})
