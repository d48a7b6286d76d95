"""Places on the device for requests under way: allocated once, taken and given back, never grown."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable

import torch
from torch import Tensor

PROMPT, NOW = 0, 1  # figures of the last prompt token, and of the token that was fed last
FIRST, LAST, SUM = 0, 1, 2  # image mass of the generated tokens


class Buffers:
    """The ring's memory on one device; the kernel writes straight into it.

    rows [slots, layers + 1, width]: ā of the last prompt token at the image tokens; the last row of a slot takes what
    the kernel computes for generated tokens, whose figures alone are kept. figures [2, layers, slots, 4]: image mass,
    text mass, peak, entropy. trace [3, layers, slots]: image mass of the generated tokens. counts [slots]: how many.
    passes [slots]: since the prompt, that were read by graphs.
    """

    def __init__(self, layers: int, slots: int, width: int, device: torch.device) -> None:
        with torch.inference_mode(False):  # such tensors could not be written to outside of inference mode
            self.rows = torch.empty(slots, layers + 1, width, device=device)
            self.figures = torch.empty(2, layers, slots, 4, device=device)
            self.trace = torch.empty(3, layers, slots, device=device)
            self.counts = torch.empty(slots, device=device)
            self.passes = torch.empty(slots, device=device)

    def clear(self, first: int, count: int, tokens: int) -> None:
        """Ready the slots for a prompt with so many image tokens: the kernel adds to its rows; NaN is "not read"."""
        slots = slice(first, first + count)
        self.rows[slots, :-1, :tokens].zero_()
        self.figures[:, :, slots].fill_(torch.nan)
        self.trace[:, :, slots].fill_(torch.nan)
        self.counts[slots].zero_()
        self.passes[slots].zero_()


class Ring:
    """``slots`` places for requests, each with room for ``width`` image tokens, on every device of the model.

    ``spare``: one more, number ``slots``, that is never taken: there a graph writes what is nobody's.
    """

    def __init__(
        self, layers: int, slots: int, width: int, devices: Iterable[torch.device], spare: bool = False
    ) -> None:
        self.width, self.slots = width, slots
        self._shape = (layers, slots + spare, width)
        self._lock = threading.Lock()
        self._buffers = {device: Buffers(*self._shape, device) for device in devices}
        self._free = list(range(slots))

    def take(self, wanted: int) -> list[int]:
        """As many free slots as there are, up to ``wanted``, the lowest first: neighbours share one kernel launch."""
        with self._lock:
            return [heapq.heappop(self._free) for _ in range(min(wanted, len(self._free)))]

    def give_back(self, slot: int) -> None:
        with self._lock:
            heapq.heappush(self._free, slot)

    def forget_taken(self) -> None:
        """In a forked child: what the parent has under way is the parent's."""
        self._lock = threading.Lock()
        self._free = list(range(self.slots))

    def on(self, device: torch.device) -> Buffers:
        """The buffers on a device; made now only if the model has moved there since."""
        found = self._buffers.get(device)
        if found is None:
            found = self._buffers.setdefault(device, Buffers(*self._shape, device))
        return found

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for buffers in self._buffers.values() for tensor in vars(buffers).values()]
