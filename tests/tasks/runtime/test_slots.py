"""Contract of room: small models run at once, a large one alone, each in the order in which it was asked for."""

import threading
from pathlib import Path

import pytest

from rammerge.checkpoints.checkpoint import open_checkpoint
from tasks.runtime.slots import Room, fills_the_machine
from tests.evaluation.made import write_model
from tests.fixtures.waiting import wait_until


def test_a_large_model_waits_for_all_places_and_the_next_small_one_for_it() -> None:
    room = Room(2)
    order: list[str] = []

    def run(name: str, places: int) -> None:
        assert room.take(places)
        order.append(name)
        room.give_back(places)

    assert room.take(1)
    threads = [threading.Thread(target=run, args=("large", 2))]
    threads[0].start()
    wait_until(lambda: room.waiting == 1, "the large model to wait")
    threads.append(threading.Thread(target=run, args=("small", 1)))  # there would be a place for it
    threads[1].start()
    wait_until(lambda: room.waiting == 2, "the small model to wait")
    assert order == []
    room.give_back(1)
    for thread in threads:
        thread.join()
    assert order == ["large", "small"]


def test_small_models_have_places_at_once() -> None:
    room = Room(2)
    assert room.take(1)
    assert room.take(1)
    assert not room.take(1, timeout=0)
    room.give_back(1)
    assert room.take(1, timeout=0)


def test_whoever_gives_up_waiting_leaves_the_place_to_others() -> None:
    room = Room(2)
    assert room.take(1)
    assert not room.take(2, timeout=0)
    assert room.take(1, timeout=0)


@pytest.mark.parametrize(("device", "alone"), [("cpu", False), ("cuda:1", True)])
def test_a_small_model_shares_the_processors_and_none_the_gpu(tmp_path: Path, device: str, alone: bool) -> None:
    assert fills_the_machine(open_checkpoint(write_model(tmp_path)), device) is alone
