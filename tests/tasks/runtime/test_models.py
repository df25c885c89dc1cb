"""Contract of room: small models run at once, a large one alone, each in the order in which it was asked for.

The work on one model is shared among all processes, unless somebody else waits for one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from evaluation.runners.pool import Worker
from tasks.runtime import models, turns
from tasks.runtime.gpus import Gpus, visible_as
from tasks.runtime.models import model_process, share_out
from tasks.runtime.places import Room
from tasks.runtime.turns import Claim, Turn, claim_of, merging_on
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


def test_a_small_model_shares_the_processors_and_none_a_gpu(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    assert claim_of(model, ["cpu"]) == Claim(alone=False)
    assert claim_of(model, ["cuda", "cuda:2"]) == Claim(gpus=("0", "2"))


_SECONDS = 60.0


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Room for two models, and no real processes."""

    class Processes:
        @contextmanager
        def worker(self, **_: bool) -> Iterator[Worker]:
            yield cast(Worker, threading.current_thread())  # only told apart, never asked

    room = Room(2)
    monkeypatch.setattr(turns, "PLACES", room)
    monkeypatch.setattr(models, "_pool", Processes())
    return room


def test_the_work_on_one_model_takes_the_room_that_nobody_waits_for(room: Room) -> None:
    both = threading.Barrier(2, timeout=_SECONDS)  # broken unless two pieces run at once

    def piece(number: int, process: Any) -> tuple[int, Any]:
        if number < 2:
            both.wait()
        return number, process

    found = share_out([partial(piece, number) for number in range(5)], Claim())
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    assert len({process for _, process in found}) == 2
    assert room.take(2, timeout=0)


@pytest.mark.parametrize("alone", [True, False])
def test_one_process_does_all_of_it_where_there_is_no_room_for_another(room: Room, alone: bool) -> None:
    taken = alone or room.take(1)
    found = share_out([lambda process: process] * 3, Claim(alone=alone))
    assert taken
    assert found == [threading.current_thread()] * 3


def test_others_who_wait_have_their_place_before_a_model_has_a_second_one(room: Room) -> None:
    assert room.take(1)
    waiting = threading.Thread(target=room.take, args=(2,))

    def wait_and_give_back(process: Any) -> Any:
        waiting.start()
        wait_until(lambda: room.waiting == 1, "another model to wait")
        room.give_back(1)
        return process

    found = share_out([wait_and_give_back, *[lambda process: process] * 3], Claim())
    assert found == [threading.current_thread()] * 4
    waiting.join()


def test_a_model_has_no_second_place_while_another_is_expected(room: Room) -> None:
    """Between two steps nobody waits for a moment; whoever took the place then would keep it for a whole suite."""
    expected = Turn(expected=True)

    found = share_out([lambda process: process] * 3, Claim())

    assert found == [threading.current_thread()] * 3
    expected.end()
    assert room.take_spare(lambda: True)


def test_what_a_piece_of_work_raises_comes_through_and_the_room_is_free_again(room: Room) -> None:
    both = threading.Barrier(2, timeout=_SECONDS)

    def fail(process: Any) -> None:
        both.wait()
        if process is not threading.main_thread():
            raise IndexError("of the assistant's piece")

    with pytest.raises(IndexError, match="of the assistant's piece"):
        share_out([fail, fail], Claim())
    assert room.take(2, timeout=0)


def test_each_gpu_is_for_one_and_they_are_given_in_order() -> None:
    gpus = Gpus()
    given: list[tuple[str, str | None]] = []

    def wait(name: str, numbers: list[str]) -> None:
        given.append((name, gpus.take(numbers)))

    assert [gpus.take(["0", "1"]), gpus.take(["0", "1"]), gpus.take(["0", "1"], timeout=0)] == ["0", "1", None]
    threads = [threading.Thread(target=wait, args=("either", ["0", "1"]))]
    threads[0].start()
    wait_until(lambda: gpus.waiting == 1, "the first to wait")
    threads.append(threading.Thread(target=wait, args=("only 1", ["1"])))
    threads[1].start()
    wait_until(lambda: gpus.waiting == 2, "the second to wait")
    gpus.give_back("1")
    threads[0].join()
    assert given == [("either", "1")]
    assert gpus.take(["2"], timeout=0) == "2"
    gpus.give_back("1")
    threads[1].join()
    assert given == [("either", "1"), ("only 1", "1")]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two GPUs, none of which is there: what the processes were asked."""
    asked: list[dict[str, Any]] = []

    class Process:
        def ask(self, what: str, **arguments: Any) -> None:
            asked.append({"do": what, **arguments})

    class Processes:
        @contextmanager
        def worker(self, **_: bool) -> Iterator[Worker]:
            yield cast(Worker, Process())

    monkeypatch.setattr(turns, "GPUS", Gpus())
    monkeypatch.setattr(models, "_pool", Processes())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    return asked


def test_models_run_on_several_gpus_at_once_each_in_a_process_that_sees_one(gpus: list[dict[str, Any]]) -> None:
    claim = Claim(gpus=("0", "1"))
    with model_process(claim), model_process(claim):
        assert gpus == [{"do": "see", "gpu": "6"}, {"do": "see", "gpu": "7"}]
        assert turns.GPUS.take(["0", "1"], timeout=0) is None
    assert turns.GPUS.take(["0"], timeout=0) == "0"
    assert visible_as("5") == "5"


@pytest.mark.usefixtures("gpus")
def test_a_merge_has_its_gpu_alone_but_in_a_step_that_has_one() -> None:
    with merging_on("cuda:1") as device:
        assert device == "cuda:1"
        assert turns.GPUS.take(["1"], timeout=0) is None
    with merging_on("cpu") as device:
        assert device == "cpu"
    turn = Turn()
    turn.begin(Claim(gpus=("1",)))
    try:
        with merging_on("cuda:0") as device:  # waiting for it could wait for a step that waits for this one
            assert device == "cuda:1"
    finally:
        turn.end()
        turns._thread.turn = None
    assert turns.GPUS.take(["1"], timeout=0) == "1"


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_fails_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr("torch.cuda.empty_cache", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"), merging_on("cuda:0"):
        pass
    assert turns.GPUS.take(["0"], timeout=0) == "0"


def test_a_process_of_one_step_starts_nothing_for_the_models_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    monkeypatch.setattr(models._pool, "warm_up", lambda: started.append(True))
    with models.none_expected():
        models.expect_models()
    assert not started
    models.expect_models()
    assert started
