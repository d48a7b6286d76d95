"""Device buffers that hold the captured rows, one per layer, written by the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from vea_sdk import ops
from vea_sdk.adapters import AttentionCall
from vea_sdk.capture import tensor_parallel
from vea_sdk.capture.call import heads_from_weights, row_from_weights
from vea_sdk.capture.prompt import Step
from vea_sdk.errors import CaptureError
from vea_sdk.ops.plain import figures
from vea_sdk.ops.step_reader import StepReader, step_reader

_FIRST_CAPACITY = 64  # rows, once a token was generated; doubled when generation outgrows it
_NOTHING = nullcontext()


class Recorder:
    """Rows [capacity, batch, image tokens] per layer, each on the device its layer runs on."""

    def __init__(
        self, layers: Sequence[int], top_k: int | None, ranks: Any | None = None, per_head: bool = False
    ) -> None:
        self.layers = tuple(layers)
        self.top_k = top_k
        self.per_head = per_head
        self._ranks = ranks  # process group that shares the heads; every process reads the same rows in one order
        self.generated: list[int] = []  # per row, the generated tokens up to its query (0 = last prompt token)
        self._scores: dict[int, Tensor] = {}
        self._stats: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor] = {}
        self._heads: dict[int, Tensor] = {}  # [capacity, batch, heads, image tokens] per layer
        self.readers: dict[int, StepReader] = {}  # what reads steps of decoding the short way, where there is one
        self._index: Tensor | None = None
        self._shifted: dict[tuple[int, torch.device], Tensor] = {}

    def start(self, index: Tensor) -> None:
        """Forget the rows of an earlier prompt; ``index`` [B, M] are the key positions of the image tokens."""
        self._index = index
        self._shifted.clear()
        self._scores.clear()
        self._stats.clear()
        self._masks.clear()
        self._heads.clear()
        self.readers.clear()
        self.generated.clear()

    def next_row(self, generated: int) -> None:
        """Begin the row of the last prompt token (0) or of the n-th generated one."""
        self.generated.append(generated)

    @property
    def rows(self) -> int:
        """Rows in use; the last one may still be filling."""
        return len(self.generated)

    def read_call(self, layer: int, call: AttentionCall, step: Step) -> None:
        """Compute one row from query and keys, straight into the buffer."""
        keys = call.key.shape[-2]
        index = self._index_for(step.dropped(keys), call.key.device)
        out, stats = self._slots(layer, call.key.device)
        heads = self._head_slot(layer, call.query.shape[1], call.key.device) if self.per_head else None
        with torch.no_grad() if torch.is_grad_enabled() else _NOTHING:
            result = ops.image_attention(
                call.query,
                call.key,
                index,
                _moved(step.row(call.query.shape[-2]), call.query),
                scale=call.scale,
                key_stop=_moved(step.key_stop(keys), call.key) if call.causal and call.mask is None else None,
                mask=call.mask,
                softcap=call.softcap,
                window=call.window,
                sinks=call.sinks,
                position_bias=call.position_bias,
                out=out if heads is None else heads,
                per_head=heads is not None,
                top_k=self.top_k if self._ranks is None else None,
                stats=stats,
            )
            if heads is not None:
                out.copy_(heads.mean(1))
            if self._ranks is not None:
                self._all_heads(layer, out, stats, index)
            elif self.top_k is not None:
                self._masks[layer][self.rows - 1] = result[1]

    def read_weights(self, layer: int, weights: Tensor, step: Step) -> None:
        """Take one row from weights that an eager attention returned."""
        index = self._index_for(step.dropped(weights.shape[-1]), weights.device)
        with torch.no_grad():
            query = _moved(step.row(weights.shape[-2]), weights)
            row, total = row_from_weights(weights, index, query)
            heads = heads_from_weights(weights, index, query) if self.per_head else None
            self.store(layer, row, figures(row, total), index, heads)

    def store(self, layer: int, row: Tensor, figures: Tensor, index: Tensor, heads: Tensor | None = None) -> None:
        """Keep a row [B, M] that was computed elsewhere, its figures [B, 4] and its heads' rows [B, H, M];
        ``index`` as it was read, [B, M]."""
        with torch.no_grad():
            out, stats = self._slots(layer, row.device)
            out.copy_(row)
            stats.copy_(figures)
            if heads is not None:
                self._head_slot(layer, heads.shape[1], row.device).copy_(heads)
            if self._ranks is not None:
                self._all_heads(layer, out, stats, index)
            else:
                self._choose(layer, out, index)

    def index_on(self, device: torch.device) -> Tensor:
        """Key positions of the image tokens [B, M] in the prompt, on a layer's device."""
        return self._index_for(0, device)

    def _all_heads(self, layer: int, row: Tensor, stats: Tensor, index: Tensor) -> None:
        assert self._ranks is not None
        tensor_parallel.average(row, stats, self._ranks)
        self._choose(layer, row, index)

    def _choose(self, layer: int, row: Tensor, index: Tensor) -> None:
        """Mask the top k of a row; a token without a key, whose score is 0, is none of them."""
        if self.top_k is not None:
            self._masks[layer][self.rows - 1] = ops.topk_mask(row.masked_fill(index < 0, torch.nan), self.top_k)

    def scores(self) -> Tensor:
        """All rows as [layers, batch, rows, M] float32 on the first layer's device."""
        return _stack([self._scores[layer] for layer in self.layers], self.rows)

    def masks(self) -> Tensor:
        """The top-k masks, same shape as ``scores``."""
        return _stack([self._masks[layer] for layer in self.layers], self.rows)

    def stats(self) -> Tensor:
        """Image mass, text mass, peak and entropy of all rows: [layers, batch, rows, 4] on the first layer's device."""
        return _stack([self._stats[layer] for layer in self.layers], self.rows)

    def heads(self) -> Tensor:
        """Every head's rows as [layers, heads, batch, rows, M] float32 on the first layer's device.

        Raises CaptureError where the layers have different numbers of heads.
        """
        counts = {layer: self._heads[layer].shape[2] for layer in self.layers}
        if len(set(counts.values())) > 1:
            raise CaptureError(
                f"the layers have different numbers of heads ({counts}), which do not fit into one tensor. Capture "
                "those of one number at a time."
            )
        buffers = [self._heads[layer][: self.rows].to(self._heads[self.layers[0]].device) for layer in self.layers]
        return torch.stack(buffers).permute(0, 3, 2, 1, 4)

    def complete(self) -> bool:
        return self.rows > 0 and all(layer in self._scores for layer in self.layers)

    def _index_for(self, dropped: int, device: torch.device) -> Tensor:
        """Key positions inside this call: a sliding cache has dropped its first ``dropped`` keys."""
        assert self._index is not None
        found = self._shifted.get((dropped, device))
        if found is None:
            if dropped:
                self._shifted = {key: kept for key, kept in self._shifted.items() if key[0] == 0}
            found = torch.where(self._index < 0, -1, self._index - dropped).clamp(min=-1).to(device)
            self._shifted[(dropped, device)] = found
        return found

    def _slots(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The zeroed row [B, M] that belongs to this layer and pass, and the place of its statistics [B, 4]."""
        row, scores = self.rows - 1, self._scores.get(layer)
        if scores is None or scores.shape[0] <= row:
            self._grow(layer, row, device)
        return self._scores[layer][row], self._stats[layer][row]

    def _head_slot(self, layer: int, heads: int, device: torch.device) -> Tensor:
        """The zeroed place [B, heads, M] of this layer and pass; its row's place must be there."""
        capacity, batch, tokens = self._scores[layer].shape
        kept = self._heads.get(layer)
        if kept is None or kept.shape[0] < capacity:
            self._heads[layer] = _grown(kept, (capacity, batch, heads, tokens), torch.float32, device)
        return self._heads[layer][self.rows - 1]

    def _grow(self, layer: int, row: int, device: torch.device) -> None:
        assert self._index is not None
        capacity = max(_FIRST_CAPACITY, 2 * (row + 1)) if row > 0 else 1
        batch, tokens = self._index.shape
        scores = _grown(self._scores.get(layer), (capacity, batch, tokens), torch.float32, device)
        stats = _grown(self._stats.get(layer), (capacity, batch, 4), torch.float32, device)
        if self.top_k is not None:
            self._masks[layer] = _grown(self._masks.get(layer), (capacity, batch, tokens), torch.bool, device)
        self._scores[layer], self._stats[layer] = scores, stats
        if row > 0 and self.top_k is None and self._ranks is None and not self.per_head:
            reader = step_reader(self._index_for(0, device), scores, stats)
            if reader is not None:
                self.readers[layer] = reader


def _grown(buffer: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    grown = torch.zeros(shape, dtype=dtype, device=device)
    if buffer is not None:
        grown[: buffer.shape[0]] = buffer
    return grown


def _stack(buffers: Sequence[Tensor], rows: int) -> Tensor:
    device = buffers[0].device
    return torch.stack([buffer[:rows].to(device) for buffer in buffers]).transpose(1, 2)


def _moved(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.device)
