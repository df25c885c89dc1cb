"""Everything that an evaluation does before a model answers, done without weights: what fails here would fail then.

Every task of every suite is built, one item of each is scored as if a model had said something, and all prompts are
rendered and measured for every model.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from evaluation.backends.classes import text_model
from evaluation.backends.transformers import check_decoding_settings, load_tokenizer
from evaluation.runners.asking import ask
from evaluation.runners.patience import TookTooLongError
from evaluation.runners.sizes import measure
from evaluation.runners.tasks import build_tasks, count_items, draw_the_same_examples, task_manager
from evaluation.runners.views import answering, asked
from evaluation.suites import SPLITS, Split, Suite, cluster_of
from evaluation.suites.splits import refuse_shared_clusters
from rammerge.errors import InputError, RammergeError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task
    from lm_eval.models.huggingface import HFLM


@dataclass(frozen=True)
class Rehearsed:
    """What was found before any model answered.

    Attributes:
        warnings: what the user should know.
        test_items, validation_items: number of items of the split by suite.
        test_clusters: number of test items in each cluster, by suite that declares clusters.
        answers: answers to each item, by suite that samples several.
    """

    warnings: list[str]
    test_items: dict[str, int]
    test_clusters: dict[str, list[int]] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    validation_items: dict[str, int] = field(default_factory=dict)


# What is scored in place of an answer.
_ANSWER = "none"


def rehearse(
    suites: Sequence[Suite], models: Mapping[str, Path], *, limit: int | None = None, splits: Sequence[Split] = SPLITS
) -> Rehearsed:
    """Return what the user should know before the models are evaluated on the suites, and how many items there are.

    Args:
        suites: what will be asked.
        models: model directories by what messages call them.
        limit: the number of items of each task.
        splits: which splits.

    Raises:
        InputError: a model cannot be asked, a task cannot be built, asked or scored, or no prompt of a task fits.
    """
    readers = {name: _reader(path) for name, path in models.items()}
    manager = task_manager(include_library=any(suite.uses_library for suite in suites))
    found = Rehearsed([], {})
    for suite in suites:
        for name, reader in readers.items():
            _require_template(suite, name, reader)
        # A cluster may lie in a split that is not asked for.
        needed = splits if suite.cluster is None else SPLITS
        built = {split: build_tasks(manager, suite, split) for split in needed}
        if suite.cluster is not None:
            clusters = _clusters(suite, suite.cluster, built, limit)
            found.test_clusters[suite.name] = list(Counter(clusters["test"]).values())
        if suite.sampling is not None:
            found.answers[suite.name] = suite.sampling.repeats
        for split in splits:
            tasks = built[split]
            _require_examples(suite, split, tasks)
            _score_one(suite, split, tasks)
            for name, reader in readers.items():
                found.warnings.extend(_measure(suite, split, tasks, name, reader, limit))
            items = found.test_items if split == "test" else found.validation_items
            items[suite.name] = sum(count_items(task, limit) for task in tasks.values())
    return found


def _reader(model_dir: Path) -> "HFLM":
    """Return lm-eval's view of a model that has no weights: enough to render prompts and to count their tokens."""
    import torch

    text = text_model(model_dir)
    check_decoding_settings(model_dir)
    model = SimpleNamespace(config=text.config, device=torch.device("cpu"))
    return asked(model, load_tokenizer(model_dir), seq2seq=text.seq2seq)


def _require_template(suite: Suite, name: str, reader: "HFLM") -> None:
    if suite.apply_chat_template and not reader.tokenizer.chat_template:
        raise InputError(
            f"{suite.path / 'suite.yaml'} asks with a chat template, and {name} has none; add chat_template.jinja to "
            f"the model's directory, or set apply_chat_template: false"
        )


def _clusters(
    suite: Suite, field: str, built: "Mapping[Split, Mapping[str, Task]]", limit: int | None
) -> dict[Split, list[str]]:
    """Return the cluster of each item by split, whatever made the items.

    Raises:
        InputError: an item has none, a cluster is in both splits, or a split has only one.
    """
    where = f"{suite.path / 'suite.yaml'}: the task"
    found: dict[Split, list[str]] = {
        split: [
            cluster_of(item, field, f"{where} '{name}'")
            for name, task in tasks.items()
            for item in islice(task.eval_docs, limit)
        ]
        for split, tasks in built.items()
    }
    refuse_shared_clusters(suite.path, field, found["validation"], found["test"])
    for split, clusters in found.items():
        if len(set(clusters)) == 1:
            raise InputError(
                f"{suite.path / 'suite.yaml'}: the {split} split has one cluster ({field}: {clusters[0][:60]}), which "
                f"says nothing about others; add items of other clusters, or raise the recipe's limit"
            )
    return found


def _require_examples(suite: Suite, split: Split, tasks: "Mapping[str, Task]") -> None:
    for name, task in tasks.items():
        wanted = task.get_config("num_fewshot")
        examples = task.fewshot_docs() if wanted else None
        if examples is not None and wanted > len(examples):
            raise InputError(
                f"the {split} task '{name}' of the suite {suite.path} shows {wanted} examples (num_fewshot), and there "
                f"are {len(examples)}; lower num_fewshot"
            )


def _score_one(suite: Suite, split: Split, tasks: "Mapping[str, Task]") -> None:
    """Score the first item of each task as a run would, with the same answer whatever is asked."""
    try:
        ask(_mute(), suite, split, tasks, limit=1, chat=False)
    except InputError:
        raise
    except RammergeError as error:
        raise InputError(f"{error}; correct the suite") from error


def _mute() -> "LM":
    """Return a model of lm-eval's that always says the same."""
    return answering(
        generate=lambda requests: [_ANSWER for _ in requests],
        score=lambda requests: [(-1.0, False) for _ in requests],
        score_text=lambda requests: [-1.0 for _ in requests],
        render=lambda turns: turns[-1]["content"],
    )


def _measure(
    suite: Suite, split: Split, tasks: "Mapping[str, Task]", name: str, reader: "HFLM", limit: int | None
) -> Iterator[str]:
    """Yield a sentence for each task with prompts that do not fit into the model's context; lm-eval would cut them.

    Raises:
        InputError: no prompt fits, or none can be made.
    """
    for task_name, task in tasks.items():
        where = f"the {split} task '{task_name}' of the suite {suite.path}"
        context = f"the context of {name}, {reader.max_length} tokens"
        try:
            requests = requests_of(suite, task, reader, limit)
            sizes = [measure(reader, request) for request in requests]
        # Templates and functions of the suite's and of the model's.
        except (Exception, SystemExit, TookTooLongError) as error:
            raise InputError(f"{where} cannot be asked of {name}: {error!r}; correct the suite or the model") from error
        if full := [size.answer for size in sizes if size.room <= 0]:
            raise InputError(
                f"{where} lets models answer with {full[0]} tokens, which fill {context}; lower max_gen_toks"
            )
        items = {request.doc_id for request in requests}
        cut = {request.doc_id for request, size in zip(requests, sizes, strict=True) if size.prompt > size.room}
        if cut == items:
            raise InputError(
                f"{where} has no prompt that fits into {context}: the shortest has {min(s.prompt for s in sizes)}, and "
                f"there is room for {max(s.room for s in sizes)}; shorten them, lower num_fewshot or max_gen_toks"
            )
        if cut:
            yield (
                f"{len(cut)} of {len(items)} prompts of {where} do not fit into {context}; their beginnings are cut off"
            )


def requests_of(suite: Suite, task: "Task", reader: "HFLM", limit: int | None) -> "list[Instance]":
    """Return what the model will be asked."""
    draw_the_same_examples([task])
    task.build_all_requests(
        limit=limit,
        apply_chat_template=suite.apply_chat_template,
        fewshot_as_multiturn=suite.apply_chat_template,
        chat_template=reader.apply_chat_template if suite.apply_chat_template else None,
        tokenizer_name=reader.tokenizer_name if suite.apply_chat_template else "",
    )
    return list(task.instances)
