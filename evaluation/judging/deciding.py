"""From a recipe's words to gates, and from gates to a decision on a variant."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.judging.comparable import IncomparableError
from evaluation.judging.gates import Gate, GateDecision, GateOutcome
from evaluation.judging.leaderboard import Leaderboard
from evaluation.judging.rules import RULES
from rammerge.errors import InputError, closest
from rammerge.system.plugins import entry_points, is_reference, load_object
from rammerge.system.reached import code_digest
from rammerge.system.schema import check


def parse_gate(
    content: Mapping[str, Any], *, where: str = "gate", trusted: Collection[str] = (), directory: Path | None = None
) -> Gate:
    """Return the gate that a recipe writes as {rule: name, parameter: value, ...}.

    Args:
        content: what the recipe writes.
        where: what messages call it.
        trusted: modules whose code may run, for a rule named `module:name`.
        directory: where such a module may lie besides the import path.

    Raises:
        InputError: an unknown rule or parameter, or a bad value; names `where` and the nearest valid name.
    """
    name = str(content.get("rule"))
    return check(_rule(name, where, trusted, directory), content, f"{where} ({name})")


def own_code(gates: Sequence[Gate]) -> dict[str, str]:
    """Return the digest of the code of each rule that is not rammerge's own, by the rule's name."""
    return {gate.rule: code_digest(type(gate)) for gate in gates if type(gate) not in RULES.values()}


def _rule(name: str, where: str, trusted: Collection[str], directory: Path | None) -> type[Gate]:
    """Return the rule of that name: one of rammerge's, of a trusted module, or of an installed package."""
    if name in RULES:
        return RULES[name]
    rule = (
        load_object(name, what="gate", trusted=trusted, directory=directory)
        if is_reference(name)
        else _offered(name, where)
    )
    if not (isinstance(rule, type) and issubclass(rule, Gate)):
        raise InputError(f"{where}: the rule '{name}' is not a subclass of evaluation.judging.gates.Gate; correct it")
    return rule


def _offered(name: str, where: str) -> Any:
    """Return what an installed package offers under the entry point `name` of the group `rammerge.gates`."""
    offered = entry_points("rammerge.gates", what="gate")
    if name not in offered:
        rules = [*RULES, *offered]
        raise InputError(f"{where}: unknown rule '{name}'{closest(name, rules)}; the rules are {', '.join(rules)}")
    return offered[name]()


def check_names(gates: Sequence[Gate], *, models: Sequence[str], suites: Sequence[str]) -> None:
    """Raise InputError if a gate refers to a model or suite that is not in the recipe."""
    known = {"model": models, "suite": suites}
    for gate in gates:
        for kind, name in gate.names():
            if name not in known[kind]:
                raise InputError(
                    f"the gate {gate.rule} names the unknown {kind} '{name}'{closest(name, known[kind])}; there are "
                    f"{', '.join(known[kind])}"
                )


def decide(leaderboard: Leaderboard, variant: str, gates: Sequence[Gate]) -> GateDecision:
    """Judge `variant` by every gate on the test split.

    Raises:
        InputError: `variant`, or a model or suite that a gate names, is not on the leaderboard.
    """
    leaderboard.row(variant)
    check_names(gates, models=[row.name for row in leaderboard.rows], suites=leaderboard.suites)
    outcomes = tuple(_judged(gate, leaderboard, variant) for gate in gates)
    return GateDecision(variant=variant, passed=all(outcome.passed for outcome in outcomes), outcomes=outcomes)


def _judged(gate: Gate, leaderboard: Leaderboard, variant: str) -> GateOutcome:
    try:
        return gate.judge(leaderboard, variant)
    except IncomparableError as error:
        return GateOutcome(rule=gate.rule, passed=False, sentence=f"{variant} is not judged: {error}.", numbers={})
