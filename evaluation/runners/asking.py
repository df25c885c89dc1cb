"""How lm-eval asks a model the items of a suite.

lm-eval is imported by the first call.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evaluation.runners.acting import acting
from evaluation.runners.patience import TookTooLongError
from evaluation.runners.samples import samples
from evaluation.runners.tasks import draw_the_same_examples
from evaluation.suites import Split, Suite
from rammerge.errors import RammergeError

if TYPE_CHECKING:
    from lm_eval.api.task import Task


def ask(
    lm: Any,
    suite: Suite,
    split: Split,
    tasks: "Mapping[str, Task]",
    *,
    limit: int | None,
    chat: bool,
    chosen: Mapping[str, list[int]] | None = None,
) -> list[dict[str, Any]]:
    """Return the samples of one split, sorted by id; with `chat` the prompts are turns of the model's chat.

    `chosen` gives positions of items of each task, in rising order and at least one; then `limit` is None.

    Raises:
        InputError: the suite's metric does not score its tasks.
        RammergeError: the suite's own code failed on an item.
    """
    from lm_eval.evaluator import evaluate

    if suite.environment is not None:
        lm = acting(lm, suite.environment)

    draw_the_same_examples(tasks.values())
    # bootstrap_iters=0: the intervals are ours, over paired items (evaluation.statistics).
    try:
        logged = evaluate(
            lm=lm,
            task_dict={"tasks": tasks},
            limit=limit,
            samples=dict(chosen) if chosen is not None else None,
            bootstrap_iters=0,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
        )["samples"]
    except (Exception, SystemExit, TookTooLongError) as error:  # a scoring function may raise anything
        raise RammergeError(f"the {split} split of the suite {suite.path} cannot be evaluated: {error!r}") from error
    return samples(suite, {name: logged[name] for name in tasks})
