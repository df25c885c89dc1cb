"""Whether the champion, or what runs make, has become worse."""

from collections.abc import Iterator

from evaluation.judging.facing import face
from evaluation.judging.leaderboard import Leaderboard
from evaluation.statistics import Difference
from rammerge.errors import InputError
from tasks.records.differences import find_board, shown
from tasks.records.history import read_history
from tasks.records.registry import TAG_RUN, TAG_VARIANT, get_release
from tasks.records.trouble import explained

_THEN = "the champion when it was promoted"


@explained()
def regressions(name: str, version: int, board: Leaderboard) -> list[str]:
    """Return what a run's leaderboard shows to be worse than before, one sentence each.

    The champion is worse if the interval of its scores now minus its scores when it was promoted, on the same items,
    lies below 0. The best variant is worse if the interval of its difference from the champion does.

    Args:
        name: registered model.
        version: the version that was champion when the run compared.
        board: of the run.
    """
    return list(_regressions(name, version, board))


def _regressions(name: str, version: int, board: Leaderboard) -> Iterator[str]:
    champion = board.champion
    if champion is None or champion.row is None:
        return
    if champion.row != board.selected:
        difference = board.compare(board.selected, champion.row).average
        if difference.high < 0:
            yield f"the best variant, {board.selected}, is worse than {champion.name}: {_shown(difference, board)}"
    change = _since_promotion(name, version, board, champion.row)
    if change is not None and change.high < 0:
        yield f"{champion.name} scores worse than when it was promoted: {_shown(change, board)}"


def _since_promotion(name: str, version: int, board: Leaderboard, row: str) -> Difference | None:
    """Return what the champion scores now minus what it scored then; None if that cannot be compared."""
    release = get_release(name, version)
    promoted = [event for event in read_history(release.tags) if event.what == "promoted"]
    if not promoted or not promoted[-1].run:
        return None
    then = find_board(release.model_copy(update={"tags": {**release.tags, TAG_RUN: promoted[-1].run}}))
    if then is None:
        return None
    try:
        return face(board, row, then, release.tags[TAG_VARIANT], called=_THEN).compare(row, _THEN).average
    except InputError:  # other items, or asked in another way
        return None


def _shown(difference: Difference, board: Leaderboard) -> str:
    return f"the difference on average is {shown(difference)} ({100 * board.confidence:g} % interval)"
