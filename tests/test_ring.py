"""The monitor's places: ready for the next request whatever the last one left, each taken by one request at a time."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from vea_sdk.monitor.ring import Buffers, Ring
from vea_sdk.monitor.slots import SlotRecorder

CPU = torch.device("cpu")


@pytest.mark.parametrize(("first", "count", "tokens"), [(0, 1, 5), (1, 2, 3), (2, 1, 1), (0, 4, 5)])
def test_a_place_is_cleared_of_all_that_the_last_request_left(first: int, count: int, tokens: int) -> None:
    """And of nothing else: not the neighbours, the row that belongs to no layer, or what lies behind the tokens."""
    layers, slots, width, left = 3, 4, 5, 7.0
    buffers = Buffers(layers, slots, width, CPU)
    for tensor in vars(buffers).values():
        tensor.fill_(left)
    buffers.clear(first, count, tokens)
    for slot in range(slots):
        cleared = first <= slot < first + count
        for layer in range(layers + 1):
            row = buffers.rows[slot, layer].tolist()
            if cleared and layer < layers:
                assert row == [0.0] * tokens + [left] * (width - tokens)
            else:
                assert row == [left] * width
        for tensor in (buffers.figures[:, :, slot], buffers.trace[:, :, slot]):
            assert bool(tensor.isnan().all() if cleared else (tensor == left).all())
        assert (float(buffers.counts[slot]), float(buffers.passes[slot])) == ((0, 0) if cleared else (left, left))


def test_places_are_taken_and_given_back() -> None:
    ring = Ring(1, 4, 2, [CPU], spare=True)
    assert ring.take(3) == [0, 1, 2]
    ring.give_back(1)
    assert ring.take(5) == [1, 3]  # never the spare one, number 4
    assert ring.take(1) == []
    for slot in (2, 0):
        ring.give_back(slot)
    assert ring.take(2) == [0, 2]


@pytest.mark.parametrize(
    ("places", "runs"),
    [
        ([(0, 0), (1, 1), (2, 2)], [(0, 0, 3)]),
        ([(0, 0), (1, 2), (2, 3), (3, 5)], [(0, 0, 1), (1, 2, 2), (3, 5, 1)]),  # others hold the places between
        ([(0, 0), (2, 1), (3, 2)], [(0, 0, 1), (2, 1, 2)]),  # a row that is not sampled
    ],
)
def test_neighbours_in_the_batch_and_in_the_ring_are_read_together(
    places: list[tuple[int, int]], runs: list[tuple[int, int, int]]
) -> None:
    assert SlotRecorder([0], Ring(1, 6, 2, [CPU]), places).runs == runs


class Hesitant(list[int]):
    """Free places that take their time to be counted, so that another thread comes in between."""

    def __len__(self) -> int:
        found = super().__len__()
        time.sleep(0.05)
        return found


@pytest.mark.parametrize(("slots", "wanted"), [(1, 1), (3, 2), (4, 4)])
def test_threads_take_places_one_after_the_other(slots: int, wanted: int) -> None:
    ring = Ring(1, slots, 2, [CPU])
    ring._free = Hesitant(range(slots))
    taken: list[int] = []
    errors: list[BaseException] = []

    def take() -> None:
        try:
            taken.extend(ring.take(wanted))
        except IndexError as error:  # counted before another thread took them
            errors.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not errors
    assert sorted(taken) == list(range(slots))
