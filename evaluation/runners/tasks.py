"""lm-eval's tasks of a suite: the suite's own, built from its task files, and those of lm-eval's library."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.runners.patience import TookTooLongError, limited
from evaluation.suites import FunctionReference, Split, Suite, TaskFile
from evaluation.suites.taskfile import read_items
from rammerge.errors import InputError, closest

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

_FEWSHOT_SEED = 1234  # lm-eval's own default


@cache
def task_manager(*, include_library: bool) -> "TaskManager":
    """Return what builds lm-eval's tasks; with the library, which takes seconds to index, only where a suite asks."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=include_library)


def build_tasks(manager: "TaskManager", suite: Suite, split: Split) -> "dict[str, Task]":
    """Return lm-eval's tasks of one split of a suite by name, decoding as the suite says.

    Raises:
        InputError: an unknown task, one that lm-eval cannot build, or one without answers that could be sampled.
    """
    tasks: dict[str, Task] = {}
    for name in suite.tasks[split]:
        tasks |= _build(manager, suite, name)
    for name, task in tasks.items():
        _pin_decoding(suite, name, task)
    return tasks


def count_items(task: "Task", limit: int | None) -> int:
    """Return how many items a task has, if no more than the first `limit` are asked."""
    count = len(task.eval_docs)
    return count if limit is None else min(count, limit)


def draw_the_same_examples(tasks: "Iterable[Task]") -> None:
    """Have the next requests show the examples that a new task's first requests would show.

    lm-eval goes on drawing where the requests before ended.
    """
    for task in tasks:
        task.set_fewshot_seed(_FEWSHOT_SEED)


def _build(manager: "TaskManager", suite: Suite, name: str) -> "dict[str, Task]":
    """Return the task `name`, or for a group of lm-eval's library the tasks in it, by name."""
    file = suite.task_files.get(name)
    if file is None and name not in manager.all_tasks:
        known = [*suite.task_files, *manager.all_tasks]
        raise InputError(f"{suite.path / 'suite.yaml'} names the unknown lm-eval task '{name}'{closest(name, known)}")
    kept: list[int] = []
    try:
        loaded: dict[str, Task] = manager.load([_config(suite, file, kept) if file is not None else name])["tasks"]
    except InputError:
        raise
    # lm-eval has no error class of its own, and the suite's code runs here.
    except (Exception, SystemExit, TookTooLongError) as error:
        task = f"the task '{name}' of the suite {suite.path}"
        if kept and kept[-1] == 0:
            raise InputError(f"process_docs of {task} keeps no item of a split; correct the function") from error
        if _is_out_of_reach(error):
            raise InputError(
                f"the data of {task} are not on this machine, and where they are cannot be reached ({error}); run "
                f"`rammerge check` once with a network, which brings them here"
            ) from error
        raise InputError(f"lm-eval cannot build {task}: {error!r}; correct its file") from error
    return loaded


def _is_out_of_reach(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ConnectionError):
        error = error.__cause__ or error.__context__
    return error is not None


def _config(suite: Suite, file: TaskFile, kept: list[int]) -> dict[str, Any]:
    """Return lm-eval's configuration of a suite's own task, with its functions loaded and its local data named.

    Each call of its `process_docs` adds to `kept` how many items are left.
    """
    config: dict[str, Any] = _resolve(dict(file.config))
    if callable(process := config.get("process_docs")):
        config["process_docs"] = _counting(process, kept)
    if suite.environment is not None:
        config["process_results"] = partial(_score_of, suite.metric.partition(",")[0])
    if file.data_files is not None:
        # lm-eval would read the files through the Arrow library's cache below the user's home, and every item would get
        # the keys of all the others. This way the scoring function meets the items as they are in the file.
        config["custom_dataset"] = partial(_local_dataset, file.data_files, as_arrow="process_docs" in config)
        config.pop("dataset_kwargs")
    return config


def _score_of(metric: str, _doc: Any, results: Sequence[Any]) -> dict[str, float]:
    """Return the score that the environment gave; see `evaluation.runners.acting.Conversation`."""
    return {metric: results[0].score}


def _counting(process: Callable[..., Any], kept: list[int]) -> Callable[..., Any]:
    # No partial: lm-eval copies those with their arguments.
    def process_docs(dataset: Any) -> Any:
        processed = process(dataset)
        kept.append(len(processed))
        return processed

    return process_docs


def _resolve(value: Any) -> Any:
    """Replace the FunctionReferences anywhere in a configuration by their functions."""
    match value:
        case FunctionReference():
            return limited(value.load())
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


def _pin_decoding(suite: Suite, name: str, task: "Task") -> None:
    generates = task.get_config("output_type") == "generate_until"
    if suite.sampling is not None and not generates:
        raise InputError(
            f"{suite.path / 'suite.yaml'} samples answers, and the task '{name}' generates none; remove sampling, or "
            f"give the task `output_type: generate_until`"
        )
    if generates:
        task.set_config("generation_kwargs", _decoding(suite), update=True)
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)


def _decoding(suite: Suite) -> dict[str, Any]:
    if suite.sampling is None:
        return {"do_sample": False, "temperature": 0.0}
    return {"do_sample": True, "temperature": suite.sampling.temperature, "top_k": 0, "top_p": 1.0}
