"""What makes scores comparable: the same items, asked in the same way, by the same code."""

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from evaluation.results import SuiteResult
from evaluation.suites import SPLITS, Split
from rammerge.errors import InputError

Results = Mapping[str, Mapping[str, Mapping[Split, SuiteResult]]]

# What has to be the same, in the order in which differences are named.
_WHAT = {
    "dtype": "dtype",
    "backend": "backend",
    "lm_eval_version": "lm-eval version",
    "suite_digest": "suite digest",
    "limit": "limit",
    "decoding": "decoding",
    "few_shot": "number of few-shot examples",
    "sandbox": "sandbox",
    "n": "number of items",
    "ids": "list of item ids",
    "items_digest": "items digest",
}


# What a server does not tell, such as its dtype.
_UNTOLD = "unknown"


class IncomparableError(InputError):
    """Two models were evaluated, and their scores say nothing about which is better."""


class Asked(BaseModel):
    """What was asked, and how: scores are compared only if all of it is the same. See `SuiteResult`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    lm_eval_version: str
    suite_digest: str
    limit: int | None
    decoding: str
    few_shot: dict[str, int]
    sandbox: str | None
    ids: list[str]
    items_digest: str
    backend: str = "transformers"

    @property
    def n(self) -> int:
        """The number of items."""
        return len(self.ids)

    @classmethod
    def of(cls, result: SuiteResult) -> "Asked":
        """Return what a result says was asked, and how."""
        fields = {name: getattr(result, name) for name in cls.model_fields if name != "ids"}
        return cls(**fields, ids=list(result.scores))


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
                refuse_difference(where, Asked.of(by_split[split]), Asked.of(results[first][suite][split]))
                if by_split[split].dtype != _UNTOLD:
                    dtypes[by_split[split].dtype] = (suite, split)
    if len(dtypes) > 1:
        raise InputError(
            "the suites do not average: "
            + " but ".join(f"{suite} ({split}) was evaluated in {dtype}" for dtype, (suite, split) in dtypes.items())
            + "; evaluate all in one dtype"
        )


def refuse_difference(where: str, ours: Asked, theirs: Asked) -> None:
    """Require that two results are of the same items, asked in the same way; `where` says which results they are.

    What a server does not tell is taken for the same.
    """
    for name, what in _WHAT.items():
        our, their = getattr(ours, name), getattr(theirs, name)
        if our != their and _UNTOLD not in (our, their):
            shown = "" if name == "ids" else f" ({our} against {their})"
            raise InputError(
                f"the results of {where} cannot be compared: the {what} differs{shown}; evaluate both again"
            )


def _listed(suites: Iterable[str]) -> str:
    return ", ".join(suites) or "no suite"
