"""What graphs read, and where they write: flags on the device instead of branches of Python.

A graph made by ``torch.compile`` or captured by CUDA runs for sampled requests and for others, of whatever prompt, and
asks the host nothing. So each watched attention module holds a tap for good, and in every pass the graph computes a row
of each sequence from what a board on the device says at that moment: whether the sequence is sampled (if not, the
kernel reads none of its keys), where its image tokens lie, and in which slot of the ring its figures are wanted. What
belongs to nobody goes to a spare slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vea_sdk.adapters import AttentionCall
from vea_sdk.capture.call import row_from_weights, row_in_graph
from vea_sdk.capture.prompt import Step
from vea_sdk.monitor.ring import NOW, PROMPT, Ring
from vea_sdk.ops.arguments import FLOATS
from vea_sdk.ops.plain import figures


class Board:
    """The board on one device. Its tensors stay where they are, and are as large as the ring at all times.

    slot [R]: of each row of the running batch, ``ring.slots`` for nobody. mine [R]: rows that are sampled; sampled [R]:
    those of them that go on, the flag. index [R, width]: key positions of the image tokens in the prompt, -1 for none.
    behind [R]: tokens of the pass after the one whose row is read. kind [1]: PROMPT or NOW. seen [1]: tokens fed up to
    the pass that comes, itself included; graphs count it on. figures [layers, R, 4]: of the running pass.
    """

    def __init__(self, ring: Ring, layers: int, device: torch.device) -> None:
        self.device = device
        self.rows, self.nobody = ring.slots, ring.slots
        self.ring = ring.on(device)
        with torch.inference_mode(False), torch.device(device):
            self.slot = torch.full((self.rows,), self.nobody, dtype=torch.int64)
            self.mine = torch.zeros(self.rows, dtype=torch.bool)
            self.sampled = torch.zeros(self.rows, dtype=torch.bool)
            self.index = torch.full((self.rows, ring.width), -1, dtype=torch.int32)
            self.behind = torch.zeros(self.rows, dtype=torch.int64)
            self.kind = torch.zeros(1, dtype=torch.int64)
            self.seen = torch.zeros(1, dtype=torch.int32)
            self.figures = torch.full((layers, self.rows, 4), torch.nan, dtype=torch.float32)
        for tensor in (*vars(self).values(), *vars(self.ring).values()):
            if isinstance(tensor, Tensor):
                torch._dynamo.mark_static_address(tensor, guard=False)  # CUDA graphs write to them where they are
        self._streams: set[Any] = set()  # on a GPU, those on which the board may be in use
        self._next: int | None = None  # what ``seen`` holds, where the next generated token needs nothing said

    def load(self, runs: Sequence[tuple[int, int, int]], index: Tensor) -> None:
        """Rows of a batch are to be read: runs of (first row, first slot, how many), image tokens ``index`` [B, M].
        By kernels alone: no copy from the host, which would make it wait."""
        self.clear()
        batch, tokens = index.shape
        self.index[:batch, :tokens].copy_(index, non_blocking=True)
        self.index[:batch, tokens:].fill_(-1)
        self.figures.fill_(torch.nan)
        for row, slot, count in runs:
            self.slot[row : row + count].copy_(torch.arange(slot, slot + count, device=self.device))
            self.mine[row : row + count].fill_(True)

    def clear(self) -> None:
        """Nobody is sampled."""
        self.sampled.zero_()
        self.mine.zero_()
        self.slot.fill_(self.nobody)
        self._next = None

    def prepare(self, step: Step, live: Tensor | None) -> None:
        """Say what the next pass is; ``live`` [B]: rows that have not ended before."""
        goes_on = step.kind == "generated" and step.length == 1 and live is None
        if goes_on and self._next == step.seen:
            self._next += 1
            return
        self._next = step.seen + 1 if goes_on else None
        self.kind.fill_(PROMPT if step.kind == "prompt" else NOW)
        self.seen.fill_(step.seen)
        self.sampled.copy_(self.mine)
        if live is not None:
            self.sampled[: len(live)].logical_and_(live.to(self.device, non_blocking=True))
        if step.query_index is None or step.length == 1:
            self.behind.zero_()
        else:
            self.behind[: step.batch].copy_(step.length - 1 - step.query_index, non_blocking=True)

    def forget(self) -> None:
        """What the last pass has left is not known."""
        self._next = None

    def catch_up(self) -> None:
        """On a GPU, before the board changes: have this stream wait for graphs that run on others."""
        if self.device.type == "cuda":
            here = torch.cuda.current_stream(self.device)
            for stream in self._streams - {here}:
                here.wait_stream(stream)
            self._streams = {here}

    def used(self) -> None:
        """A graph is about to be run on this stream."""
        if self.device.type == "cuda":
            self._streams.add(torch.cuda.current_stream(self.device))


class BoardTap:
    """Reads one attention module in every pass: in a graph, while one is captured, or where the compiler gave up."""

    board: Board  # of the device that the module is on
    last: bool  # of the layers on that device

    def __init__(self, number: int, places_stay: bool) -> None:
        self._number = number  # of the layer in the ring
        self._places_stay = places_stay

    def read(self, call: AttentionCall) -> None:
        """Compute the figures of a row of every sequence; nothing, where the call is none that the kernel takes."""
        if not self._takes(call.query) or not _fits(call):
            return
        batch, queries, keys = call.query.shape[0], call.query.shape[-2], call.key.shape[-2]
        with torch.no_grad():
            sampled, index, row = self._places(batch, queries, keys)
            stop = row + 1 if call.causal and call.mask is None else torch.full_like(row, keys)
            stop = torch.where(sampled, stop, 0)
            scores = row_in_graph(call, index, row, stop, self.board.figures[self._number, :batch])
            self._keep(scores, queries)

    def read_weights(self, weights: Tensor) -> None:
        """The same from the weights [B, H, Lq, Lk] of an eager attention."""
        if self._takes(weights):
            with torch.no_grad():
                _, index, row = self._places(weights.shape[0], weights.shape[-2], weights.shape[-1])
                scores, total = row_from_weights(weights, index, row)
                self.board.figures[self._number, : len(weights)].copy_(figures(scores, total))
                self._keep(scores, weights.shape[-2])

    def _takes(self, tensor: Tensor) -> bool:
        return tensor.dim() == 4 and tensor.device == self.board.device and tensor.shape[0] <= self.board.rows

    def _places(self, batch: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
        """Per sequence: whether it is sampled [B], the image tokens among these keys [B, width], the row to read [B].

        Graphs that nobody announced may run on what the board says of another request. They too get indices that exist:
        anything else would be an error of the kernel, in somebody's request.
        """
        board = self.board
        row = queries - 1 - board.behind[:batch]
        sampled = board.sampled[:batch] & (row >= 0)  # a layer may be given fewer queries than tokens were fed
        index = board.index[:batch]
        if not self._places_stay:
            index = index - (board.seen - keys).clamp(min=0)  # a sliding cache has dropped its first keys
        known = (index >= 0) & (index < keys) & sampled[:, None]
        return sampled, torch.where(known, index, -1), row.clamp(min=0)

    def _keep(self, scores: Tensor, queries: int) -> None:
        """Put into the ring what is wanted there; the row itself only of a prompt, which a single token is not."""
        board, batch = self.board, scores.shape[0]
        slot = board.slot[:batch]
        if queries > 1:
            spare = board.ring.rows.shape[1] - 1
            board.ring.rows[slot, torch.where(board.kind == PROMPT, self._number, spare)] = scores
        if self.last:
            if queries > 1:
                kept, now = board.ring.figures[PROMPT][:, slot], board.figures[:, :batch]
                board.ring.figures[PROMPT][:, slot] = torch.where(board.kind == PROMPT, now, kept)
            self._add(slot, board.sampled[:batch] & (board.kind == NOW))
            board.ring.passes[slot] += 1
            board.seen.add_(queries)

    def _add(self, slot: Tensor, live: Tensor) -> None:
        """Add a generated token to the traces of the slots [B] where ``live`` [B]; without a branch."""
        board, ring = self.board, self.board.ring
        mass, counts = board.figures[:, : len(slot), 0], ring.counts[slot]
        first, last, total = ring.trace[:, :, slot].unbind(0)
        begins = live & (counts == 0)
        ring.trace[:, :, slot] = torch.stack(
            [
                torch.where(begins, mass, first),
                torch.where(live, mass, last),
                torch.where(begins, mass, torch.where(live, total + mass, total)),
            ]
        )
        ring.counts[slot] = counts + live


def _fits(call: AttentionCall) -> bool:
    """Whether the kernel takes these shapes and types: it would raise, and in a graph there is nobody to catch it."""
    query, key = call.query, call.key
    if key.dim() != 4 or key.dtype != query.dtype or query.dtype not in FLOATS or key.device != query.device:
        return False
    batch, heads, queries, dim = query.shape
    if key.shape[0] != batch or key.shape[3] != dim or heads % key.shape[1] != 0:
        return False
    if call.sinks is not None and call.sinks.shape != (heads,):
        return False
    for bias in (call.mask, call.position_bias):
        if bias is not None:
            if bias.dim() != 4 or bias.shape[3] < key.shape[2] or bias.device != query.device:
                return False
            if bias.dtype not in (*FLOATS, torch.bool):
                return False
            if bias.shape[0] not in (1, batch) or bias.shape[1] not in (1, heads) or bias.shape[2] not in (1, queries):
                return False
    return True
