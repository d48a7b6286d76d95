"""A recorder that writes into the ring: no buffers of its own, and only the rows of the batch that are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vea_sdk.adapters import AttentionCall
from vea_sdk.capture.prompt import Step
from vea_sdk.capture.recorder import Recorder
from vea_sdk.monitor.ring import FIRST, LAST, NOW, PROMPT, SUM, Buffers, Ring


class SlotRecorder(Recorder):
    """Rows of one batch, in the slots of the ring.

    ``places``: (row of the batch, slot), ascending in both. Runs of neighbours are read by one launch.
    """

    def __init__(self, layers: Sequence[int], ring: Ring, places: Sequence[tuple[int, int]]) -> None:
        super().__init__(layers, None)
        self._ring = ring
        self.runs = _runs(places)  # (first row of the batch, first slot, how many)
        self._run = self.runs[0]  # the one that is being read
        self._kind = PROMPT
        self.fed = 0  # generated tokens so far
        self._traced: dict[torch.device, list[_Traced]] = {}  # per run; devices whose slots are ready
        self.device_of: dict[int, torch.device] = {}  # of each layer read
        self.passes: int | None = 0  # since the prompt, that graphs were to read; None: not known
        self.too_many = 0  # image tokens, where they are more than a slot holds

    def start(self, index: Tensor) -> None:
        super().start(index)
        self._traced.clear()
        self.device_of.clear()
        self.passes = 0
        self.too_many = index.shape[1] if index.shape[1] > self._ring.width else 0

    def next_row(self, generated: int) -> None:
        self._kind, self.fed = (NOW if generated else PROMPT), generated

    def read_by_graph(self, finished: bool) -> None:
        """A pass was to be read by a graph; ``finished``: it came to its end."""
        self.passes = self.passes + 1 if finished and self.passes is not None else None

    def read_call(self, layer: int, call: AttentionCall, step: Step) -> None:
        for run in () if self.too_many else self.runs:
            self._run = row, _, count = run
            if count == step.batch:
                super().read_call(layer, call, step)
            else:
                rows = slice(row, row + count)
                part = replace(
                    call,
                    query=call.query[rows],
                    key=call.key[rows],
                    mask=_of(call.mask, rows),
                    position_bias=_of(call.position_bias, rows),
                )
                super().read_call(layer, part, _part(step, rows, count))

    def read_weights(self, layer: int, weights: Tensor, step: Step) -> None:
        for run in () if self.too_many else self.runs:
            self._run = row, _, count = run
            rows = slice(row, row + count)
            super().read_weights(layer, weights[rows], _part(step, rows, count))

    def end_pass(self, live: Tensor | None) -> None:
        """Add a generated token to the trace; ``live`` [B]: rows of the batch that have not ended before."""
        if self._kind == PROMPT:
            return
        for device, runs in self._traced.items():
            here = None if live is None else live.to(device, non_blocking=True)
            for (row, _, count), traced in zip(self.runs, runs, strict=True):
                if here is None:
                    traced.add(first=self.fed == 1)
                else:
                    traced.add_live(here[row : row + count])

    def ready(self, layer: int, device: torch.device) -> Buffers:
        """The buffers that a layer is read into; the slots are cleared for the prompt."""
        assert self._index is not None
        buffers = self._ring.on(device)
        if device not in self._traced:
            for _, slot, count in self.runs:
                buffers.clear(slot, count, self._index.shape[1])
            self._traced[device] = [_Traced(buffers, slot, count) for _, slot, count in self.runs]
        self.device_of[layer] = device
        return buffers

    def _index_for(self, dropped: int, device: torch.device) -> Tensor:
        row, _, count = self._run
        return super()._index_for(dropped, device)[row : row + count]

    def _slots(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
        assert self._index is not None
        tokens = self._index.shape[1]
        buffers = self.ready(layer, device)
        _, slot, count = self._run
        number = self.layers.index(layer)
        row = number if self._kind == PROMPT else -1
        slots = slice(slot, slot + count)
        return buffers.rows[slots, row, :tokens], buffers.figures[self._kind, number, slots]


class _Traced:
    """Views of the ring by which the tokens of neighbouring slots are added up; indexing costs more than adding."""

    def __init__(self, buffers: Buffers, slot: int, count: int) -> None:
        slots = slice(slot, slot + count)
        self._mass = buffers.figures[NOW, :, slots, 0]
        self._all = buffers.trace[:, :, slots]
        self._first, self._last, self._sum = (self._all[part] for part in (FIRST, LAST, SUM))
        self._counts = buffers.counts[slots]

    def add(self, first: bool) -> None:
        """All rows are alive."""
        if first:
            self._all.copy_(self._mass.expand_as(self._all))
        else:
            self._sum.add_(self._mass)
            self._last.copy_(self._mass)
        self._counts.add_(1)

    def add_live(self, live: Tensor) -> None:
        """Some rows are fed padding until the longest of the batch has ended."""
        begins = live & (self._counts == 0)
        self._first.copy_(torch.where(begins, self._mass, self._first))
        self._last.copy_(torch.where(live, self._mass, self._last))
        grown = torch.where(live, self._sum + self._mass, self._sum)
        self._sum.copy_(torch.where(begins, self._mass, grown))
        self._counts.add_(live)


def _runs(places: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(first row, first slot, how many) of neighbours in both."""
    found: list[tuple[int, int, int]] = []
    for row, slot in places:
        if found and found[-1][0] + found[-1][2] == row and found[-1][1] + found[-1][2] == slot:
            found[-1] = (*found[-1][:2], found[-1][2] + 1)
        else:
            found.append((row, slot, 1))
    return found


def _part(step: Step, rows: slice, count: int) -> Step:
    return replace(step, batch=count, query_index=None if step.query_index is None else step.query_index[rows])


def _of(tensor: Tensor | None, rows: slice) -> Tensor | None:
    """The rows of a tensor [B, ...]; one of [1, ...] serves all."""
    return tensor if tensor is None or tensor.shape[0] == 1 else tensor[rows]
