"""What makes scores comparable: the same items, asked in the same way, by the same code."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from evaluation.results import SuiteResult
from evaluation.suites import SPLITS, Split
from rammerge.errors import InputError

Results = Mapping[str, Mapping[str, Mapping[Split, SuiteResult]]]


def refuse_incomparable(results: Results, names: Sequence[str]) -> None:
    """Require that the models `names` were asked the same in the same way.

    Raises:
        InputError: a model lacks a result, or something that scores depend on differs; the message says what.
    """
    first = names[0]
    missing = [name for name in names if name not in results]
    if missing:
        raise InputError(f"there are no results of '{missing[0]}': evaluate it on every suite first")
    dtypes: dict[str, tuple[str, str]] = {}
    for name in names:
        if list(results[name]) != list(results[first]) or not results[name]:
            raise InputError(
                f"'{name}' was evaluated on {_listed(results[name])} but '{first}' on {_listed(results[first])}: "
                f"evaluate every model on the same suites, in one order"
            )
        for suite, by_split in results[name].items():
            for split in SPLITS:
                if split not in by_split:
                    raise InputError(f"'{name}' has no {split} result on {suite}: evaluate both splits")
                where = f"'{name}' and '{first}' on {suite} ({split})"
                _refuse_difference(where, by_split[split], results[first][suite][split])
                dtypes[by_split[split].dtype] = (suite, split)
    if len(dtypes) > 1:
        raise InputError(
            "the suites do not average: "
            + " but ".join(f"{suite} ({split}) was evaluated in {dtype}" for dtype, (suite, split) in dtypes.items())
            + "; evaluate all in one dtype"
        )


def _refuse_difference(where: str, ours: SuiteResult, theirs: SuiteResult) -> None:
    checks: Iterable[tuple[str, Callable[[SuiteResult], object]]] = (
        ("dtype", lambda result: result.dtype),
        ("lm-eval version", lambda result: result.lm_eval_version),
        ("suite digest", lambda result: result.suite_digest),
        ("limit", lambda result: result.limit),
        ("decoding", lambda result: result.decoding),
        ("number of few-shot examples", lambda result: dict(result.few_shot)),
        ("sandbox", lambda result: result.sandbox),
        ("number of items", lambda result: result.n),
        ("list of item ids", lambda result: list(result.scores)),
        ("items digest", lambda result: result.items_digest),
    )
    for what, of in checks:
        if of(ours) != of(theirs):
            shown = "" if what == "list of item ids" else f" ({of(ours)} against {of(theirs)})"
            raise InputError(
                f"the results of {where} cannot be compared: the {what} differs{shown}; evaluate both again"
            )


def _listed(suites: Iterable[str]) -> str:
    return ", ".join(suites) or "no suite"
