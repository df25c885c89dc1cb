"""Contract: the same recipe and the same scores give the same proposals, however often the search was killed.

A larger search goes on where a smaller one ended.
"""

from pathlib import Path

import pytest

from rammerge.errors import InputError
from rammerge.recipe import Search
from tasks.search.space import Space
from tasks.search.study import Proposal, Study, open_database

METHODS = Search.model_validate(
    {
        "methods": {
            "ram_plus": {
                "scope": ["global", "tensor"],
                "r": {"low": 0.01, "high": 0.5, "log": True},
                "alpha": {"low": 0.0, "high": 4.0, "when": {"scope": "tensor"}},
            },
            "task_arithmetic": {"scale": [0.2, 1.2]},
            "multi_slerp": {},
            "karcher": {"iterations": [10, 50]},
        }
    }
).methods


def study(folder: Path, objectives: int = 1) -> Study:
    address = f"sqlite:///{folder / 'trials.db'}"
    return Study(Space(METHODS), name="x", seed="zoo", database=address, objectives=objectives)


def score(proposal: Proposal) -> float:
    scale: float = proposal.params.get("scale", 0.1)
    return len(proposal.method) / 20 - abs(scale - 0.7)


def search(folder: Path, trials: int, *, objectives: int = 1, killed: bool = False) -> list[Proposal]:
    running = study(folder, objectives)
    found = running.known()
    while len(found) < trials:
        if killed:
            running.ask(4)  # and nothing becomes of them
            running = study(folder, objectives)
        asked = running.ask(4)
        running.tell([(each, [score(each), -score(each)][:objectives]) for each in asked])
        found += asked
    return found


@pytest.mark.parametrize("objectives", [1, 2])
def test_kills_change_no_proposal(tmp_path: Path, objectives: int) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = search(tmp_path / "whole", 16, objectives=objectives)
    assert search(tmp_path / "killed", 16, objectives=objectives, killed=True) == whole
    assert [proposal.number for proposal in whole] == list(range(16))
    assert study(tmp_path / "whole", objectives).known() == whole


def test_a_larger_search_begins_with_the_smaller_one(tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    small = search(tmp_path, 8)
    large = search(tmp_path, 16)
    assert large == search(tmp_path / "once", 16)
    assert large[:8] == small


def test_proposals_are_in_the_space_and_people_can_read_them(tmp_path: Path) -> None:
    proposals = search(tmp_path, 24)
    assert {proposal.method for proposal in proposals} == set(METHODS)
    for proposal in proposals:
        Space(METHODS).settle(proposal.method, proposal.params)
        assert ("alpha" in proposal.params) == (proposal.params.get("scope") == "tensor")
        assert all(len(str(value)) <= 9 for value in proposal.params.values())
        if proposal.method == "karcher":
            assert isinstance(proposal.params["iterations"], int)


def test_proposals_follow_the_scores(tmp_path: Path) -> None:
    later = search(tmp_path, 32)[16:]
    near = [p for p in later if p.method == "task_arithmetic" and abs(p.params["scale"] - 0.7) < 0.25]
    assert len(near) > len(later) / 3  # one eighth by chance


@pytest.mark.parametrize("address", ["nonsense", "sqlite:////nowhere/at/all.db", "oracle+none://u:secret@host/x"])
def test_a_database_that_does_not_open_is_refused_by_one_sentence(address: str) -> None:
    with pytest.raises(InputError, match="cannot be opened") as raised:
        open_database(address)
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)
