"""Methods of mergekit 0.1.5 as methods of ours, with the parameters that compute the same."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rammerge.errors import InputError

NO_EQUAL = {
    "arcee_fusion": "it fuses two models without a base",
    "breadcrumbs_ties": "no method here elects signs after it drops outliers",
    "karcher": "mergekit takes the mean of whole weights, and `karcher` here of task vectors",
    "nearswap": "it interpolates two models without a base",
    "nuslerp": "it interpolates two models without a base",
    "passthrough": "it stacks layers, and a recipe keeps the base's architecture",
    "slerp": "it interpolates two models without a base",
    "task_adapter": "it transfers an adapter between models",
}


@dataclass(frozen=True)
class Settings:
    """The parameters of a configuration.

    Attributes:
        where: the file, for messages.
        shared: parameters of the whole merge.
        own: parameters of each agent.
        taken: names of parameters that were looked at. `int8_mask` changes no result.
    """

    where: str
    shared: Mapping[str, Any]
    own: Sequence[Mapping[str, Any]]
    taken: set[str] = field(default_factory=lambda: {"int8_mask"})

    def each(self, name: str, default: float | None = None) -> list[float]:
        """Return a parameter for each agent."""
        self.taken.add(name)
        return [self._number(name, own.get(name, self.shared.get(name, default))) for own in self.own]

    def number(self, name: str, default: float) -> float:
        """Return a parameter that is one number for all agents."""
        numbers = set(self.each(name, default))
        if len(numbers) > 1:
            raise self.error(f"{name} differs between the models, and a recipe has one for all of them")
        return numbers.pop()

    def flag(self, name: str, default: bool) -> bool:
        """Return a parameter that is true or false."""
        self.taken.add(name)
        value = self.shared.get(name, default)
        if not isinstance(value, bool):
            raise self.error(f"{name} is {value!r} and must be true or false")
        return value

    def refuse_others(self) -> None:
        """Raise InputError if there is a parameter that was not looked at."""
        given = {*self.shared, *(name for own in self.own for name in own)}
        if others := sorted(given - self.taken):
            raise self.error(f"the parameter {others[0]} has no equal in a recipe; remove it")

    def error(self, problem: str) -> InputError:
        """Return an error that names the file."""
        return InputError(f"{self.where}: {problem}")

    def _number(self, name: str, value: Any) -> float:
        if value is None:
            raise self.error(f"each model needs the parameter {name}")
        if isinstance(value, list | Mapping):
            raise self.error(f"{name} varies over layers or tensors; give one value, and write `tensors` in the recipe")
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{name} is {value!r} and must be a number")
        return number


@dataclass
class Translation:
    """A method of ours.

    Attributes:
        method: its name.
        params: its parameters.
        preset: its preset.
        weights: factors of the agents' task vectors, if the method takes any.
        notes: what differs all the same, one sentence each.
    """

    method: str
    params: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    weights: Sequence[float] | None = None
    notes: list[str] = field(default_factory=list)


def weighted_mean(settings: Settings) -> Translation:
    """Return the weighted mean of models as the first one plus the weighted differences of the others from it."""
    weights = settings.each("weight")
    total = math.fsum(weights)
    if not settings.flag("normalize", True) and not math.isclose(total, 1.0):
        raise settings.error(f"the weights of a linear merge without `normalize` must sum to 1, not {total:g}")
    if total == 0.0:
        raise settings.error("the weights of a linear merge sum to 0; change one")
    note = "the first model is the base, because a recipe needs one; the weighted mean is the same"
    return Translation("task_arithmetic", {"scale": 1.0}, weights=[w / total for w in weights[1:]], notes=[note])


def _task_arithmetic(settings: Settings) -> Translation:
    return _summed(settings, Translation("task_arithmetic", {"scale": settings.number("lambda", 1.0)}))


def _ties(settings: Settings) -> Translation:
    _refuse_rescaling(settings)
    params = {"density": settings.number("density", 1.0), "scale": settings.number("lambda", 1.0), "scope": "tensor"}
    note = (
        "trimming keeps one change more of each tensor, as TIES's own code does, and all that are as large as that one"
    )
    return _elected(settings, Translation("ties", params, notes=[note]), normalize=True)


def _dare_linear(settings: Settings) -> Translation:
    params = {"drop_rate": _drop_rate(settings), "scale": settings.number("lambda", 1.0)}
    return _summed(settings, Translation("dare", params, notes=[_made_up_for(settings)]))


def _dare_ties(settings: Settings) -> Translation:
    params = {"drop_rate": _drop_rate(settings), "density": 1.0, "scale": settings.number("lambda", 1.0)}
    return _elected(settings, Translation("dare_ties", params, notes=[_made_up_for(settings)]), normalize=False)


def _breadcrumbs(settings: Settings) -> Translation:
    _refuse_rescaling(settings)
    dropped, outliers = 1.0 - settings.number("density", 1.0), settings.number("gamma", 0.01)
    # Where fewer are to be dropped than there are outliers, mergekit drops fewer outliers.
    largest = min(outliers, dropped)
    params = {"drop_smallest": _rounded(dropped - largest), "drop_largest": _rounded(largest)}
    note = "the numbers of dropped changes are rounded by themselves, so that a tensor may keep one more or less"
    scaled = params | {"scale": settings.number("lambda", 1.0)}
    return _summed(settings, Translation("breadcrumbs", scaled, notes=[note]))


def _della(settings: Settings) -> Translation:
    if not settings.flag("normalize", True):
        raise settings.error("without `normalize` the agreeing values are summed, and della here averages them")
    return _elected(settings, _sampled_by_rank(settings, "ties"), normalize=True)


def _della_linear(settings: Settings) -> Translation:
    return _summed(settings, _sampled_by_rank(settings, "sum"))


def _sampled_by_rank(settings: Settings, merge: str) -> Translation:
    params: dict[str, Any] = {"drop_rate": _drop_rate(settings), "window": 2 * settings.number("epsilon", 0.15)}
    params |= {"scale": settings.number("lambda", 1.0), "merge": merge}
    return Translation("della", params, notes=[_made_up_for(settings)])


def _sce(settings: Settings) -> Translation:
    note = "agents weigh by their changes' size; mergekit weighs them equally where changes are small"
    return Translation("sce", {"select": settings.number("select_topk", 1.0)}, notes=[note])


def _ram(settings: Settings) -> Translation:
    return Translation("ram", {"epsilon": settings.number("epsilon", 1e-5)})


def _ram_plus(settings: Settings) -> Translation:
    defaults = {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5}
    params = {name: settings.number(name, default) for name, default in defaults.items()}
    return Translation("ram_plus", params, preset="mergekit")


def _model_stock(settings: Settings) -> Translation:
    if settings.flag("filter_wise", False):
        raise settings.error("`filter_wise` has no equal in a recipe: model_stock here is by tensor")
    return Translation("model_stock", {"scope": "tensor"})


def _multi_slerp(settings: Settings) -> Translation:
    settings.taken.add("eps")
    if not settings.flag("normalize_weights", True) or len(set(settings.each("weight"))) > 1:
        raise settings.error("multi_slerp here weighs all directions equally; give equal weights and normalize them")
    return Translation("multi_slerp", preset="mergekit")


METHODS: Mapping[str, Callable[[Settings], Translation]] = {
    "breadcrumbs": _breadcrumbs,
    "dare_linear": _dare_linear,
    "dare_ties": _dare_ties,
    "della": _della,
    "della_linear": _della_linear,
    "linear": weighted_mean,
    "model_stock": _model_stock,
    "multislerp": _multi_slerp,
    "ram": _ram,
    "ramplus_tl": _ram_plus,
    "sce": _sce,
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
}


def _summed(settings: Settings, translation: Translation) -> Translation:
    """Take a method that adds weighted task vectors, whose weights may be normalized."""
    weights = settings.each("weight")
    total = math.fsum(weights) if settings.flag("normalize", False) else 1.0
    # mergekit divides by 1 where the weights sum to nothing.
    translation.weights = [weight / (total if abs(total) >= 1e-8 else 1.0) for weight in weights]
    return translation


def _elected(settings: Settings, translation: Translation, *, normalize: bool) -> Translation:
    """Take a method that elects signs, and then averages what agrees by weight or sums it."""
    weights = settings.each("weight")
    if not settings.flag("normalize", normalize):
        translation.params["merge"], translation.weights = "sum", weights
    elif len(set(weights)) > 1 or weights[0] <= 0:
        raise settings.error(
            "with `normalize` agreeing values are averaged by weight, and here equally; give equal weights, or "
            "`normalize: false`"
        )
    return translation


def _drop_rate(settings: Settings) -> float:
    return _rounded(1.0 - settings.number("density", 1.0))


def _rounded(share: float) -> float:
    """Return 1 - 0.9 as 0.1."""
    return round(share, 12)


def _made_up_for(settings: Settings) -> str:
    if not settings.flag("rescale", True):
        raise settings.error("without `rescale` dropped elements are not made up for, and here they are")
    return "masks are random; what is left is divided by its probability, where mergekit restores a tensor's L1 norm"


def _refuse_rescaling(settings: Settings) -> None:
    if settings.flag("rescale", False):
        raise settings.error("`rescale` has no equal in a recipe for this method; remove it")
