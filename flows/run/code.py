"""The code that a recipe has this machine run, besides rammerge's own, said before any of it is trusted with more."""

import sys
from collections.abc import Iterator, Mapping

from evaluation.suites import bundled_suites
from flows.run.planned import Plan
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.system.plugins import is_reference, offered_by
from tasks.steps.conditions import SuiteRef


def foreign_code(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each suite, module and package whose code the recipe runs."""
    ours = {suite.path.resolve() for suite in bundled_suites({suite.name for suite in plan.suites})}
    places = [_of_suite(suite) for suite in plan.suites if suite.path.resolve() not in ours]
    places += [_of_object(name, "method") for name in _methods(plan)]
    places += [_of_object(rule, "gate") for rule in plan.gate_code]
    for place in dict.fromkeys(places):
        yield f"runs code from {place}"


def models_code(sources: Mapping[str, Checkpoint], *, trusted: bool) -> Iterator[str]:
    """Yield a sentence for each model that brings code, which runs only if the recipe says so; see SECURITY.md."""
    for name, model in sources.items():
        files = [str(file.relative_to(model.path)) for file in model.sidecars if file.suffix == ".py"]
        if files:
            what = f"which runs in its evaluation, from {model.path}" if trusted else "which is copied and never run"
            yield f"{name} brings code, {what}: {', '.join(sorted(files))}"


def _methods(plan: Plan) -> list[str]:
    """Return the names of methods that are not rammerge's own."""
    names = [method.name for method in plan.variants.values() if method.code]
    if plan.search:
        space = plan.search.space
        names += [name for name in space.methods if space.settle(name, {}).method.code]
    return names


def _of_suite(suite: SuiteRef) -> str:
    modules = ", ".join(sorted(file.name for file in suite.path.glob("*.py"))) or "the templates of its tasks"
    return f"the suite {suite.name}: {modules} in {suite.path}"


def _of_object(name: str, what: str) -> str:
    if not is_reference(name):
        return f"the installed package {offered_by(f'rammerge.{what}s', name)}: the {what} {name}"
    module = name.partition(":")[0]
    return f"the trusted module {module}: {getattr(sys.modules.get(module), '__file__', None) or 'of no file'}"
