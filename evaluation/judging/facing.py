"""A model of one run against a model of another, on the items that both were asked."""

from typing import Any

from evaluation.judging.comparable import refuse_difference
from evaluation.judging.comparing import compare_family, reference_roles
from evaluation.judging.leaderboard import Champion, Leaderboard, Row
from evaluation.suites import SPLITS
from rammerge.errors import InputError


def face(board: Leaderboard, ours: str, other: Leaderboard, theirs: str, *, called: str) -> Leaderboard:
    """Return the leaderboard of `ours` as the only variant and `theirs` as the champion, beside the base and agents.

    Args:
        board: of our run, whose base and agents stay.
        ours: an agent, a variant or the champion of it.
        other: of their run, which may be the same.
        theirs: any model of it.
        called: the name of their row.

    Raises:
        InputError: a run has no model of that name, ours is the base, or the runs did not ask the same in the same
            way; the message says what differs.
    """
    row, rival = board.row(ours), other.row(theirs)
    if row.kind == "base":
        raise InputError(f"'{ours}' is the base of its run, which everything is compared with already; name it first")
    _require_same_items(board, other)
    base = board.names("base")[0]
    agents = [name for name in board.names("agent") if name != ours] or board.names("agent")
    best = board.best_agent if board.best_agent in agents else agents[0]
    kept = {name: board.row(name) for name in (base, *agents) if name != ours}
    rows: dict[str, Row] = {
        **kept,
        called: rival.model_copy(update={"name": called, "kind": "champion"}),
        ours: row.model_copy(update={"kind": "variant"}),
    }
    scores = {name: board.scores[name] for name in (*kept, ours)} | {called: other.scores[theirs]}
    templates = {name: board.templates[name] for name in (*kept, ours)} | {called: other.templates[theirs]}
    references = reference_roles(base, best, called, None)
    comparisons = compare_family([ours], references, scores, board.clusters["test"], board.confidence)
    champion = Champion(name=called, row=called)
    found: dict[str, Any] = {"rows": tuple(rows.values()), "selected": ours, "best_agent": best, "champion": champion}
    found |= {"comparisons": comparisons, "scores": scores, "templates": templates}
    faced = board.model_copy(update={**found, "reference": None, "yardsticks": {}})
    faced.compare(ours, called)  # refuses other templates
    return faced


def _require_same_items(board: Leaderboard, other: Leaderboard) -> None:
    if set(board.suites) != set(other.suites):
        raise InputError(
            f"the runs cannot be compared: one was evaluated on {', '.join(board.suites)}, the other on "
            f"{', '.join(other.suites)}; give both the same suites"
        )
    for suite in board.suites:
        for split in SPLITS:
            where = f"the two runs on {suite} ({split})"
            refuse_difference(where, board.asked[suite][split], other.asked[suite][split])
