"""Passes inside ``torch.compile``: buffers bound to the attention modules instead of state of the running thread.

A traced function can read neither a context variable nor a count of steps. So before a compiled pass, outside of its
graph, every watched module gets a :class:`Tap`: tensors that say what to read, and tensors for the row and its figures,
the same ones as long as the shapes stay. The graph fills them, and after the pass they are copied to the recorder.
Nothing in here belongs to a thread: a compiled model under capture is to be run by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vea_sdk import ops
from vea_sdk.adapters import AttentionCall

if TYPE_CHECKING:
    from vea_sdk.capture.prompt import Step

_NAME = "_vea_sdk_taps"


class Tap:
    """What a compiled attention module is to read in the next pass, and what it has read."""

    def __init__(self, index: Tensor, places_stay: bool) -> None:
        batch, tokens = index.shape
        self.index = torch.empty_like(index)  # [B, M] key positions in the prompt, -1 for none
        self.behind = index.new_empty(batch)  # [B] tokens of the pass that follow the one whose row is read
        self.seen = index.new_empty(1)  # tokens fed so far, this pass included
        self.row = torch.empty(batch, tokens, dtype=torch.float32, device=index.device)
        self.figures = torch.empty(batch, 4, dtype=torch.float32, device=index.device)
        self.reads = 0  # how often the pass has filled them
        self._places_stay = places_stay
        for tensor in (self.index, self.behind, self.seen, self.row, self.figures):
            torch._dynamo.mark_static_address(tensor, guard=False)  # a CUDA graph may write to it where it is

    def fits(self, index: Tensor) -> bool:
        return self.index.shape == index.shape and self.index.device == index.device

    def prepare(self, index: Tensor, step: Step) -> None:
        """Say what to read in the next pass."""
        self.index.copy_(index)
        self.seen.fill_(step.seen)
        if step.query_index is None:
            self.behind.zero_()
        else:
            self.behind.copy_(step.length - 1 - step.query_index)
        self.reads = 0

    def read(self, call: AttentionCall) -> None:
        """Compute one row, inside the graph."""
        queries, keys = call.query.shape[-2], call.key.shape[-2]
        index = self.index
        if not self._places_stay:  # a sliding cache has dropped its first keys
            index = torch.where(index < 0, -1, index - (self.seen - keys).clamp(min=0)).clamp(min=-1)
        row = queries - 1 - self.behind
        scores = ops.image_attention(
            call.query,
            call.key,
            index,
            row if queries > 1 else None,
            scale=call.scale,
            key_stop=row + 1 if call.causal and call.mask is None else None,
            mask=call.mask,
            softcap=call.softcap,
            window=call.window,
            sinks=call.sinks,
            position_bias=call.position_bias,
            stats=self.figures,
        )
        assert isinstance(scores, Tensor)
        self.row.copy_(scores)
        self.reads += 1


class Taps:
    """The taps of one module, of all sessions that watch it."""

    def __init__(self) -> None:
        self.sessions = 0
        self.told = 0  # sessions that know of the running pass
        self.open: tuple[Tap, ...] = ()
        self.marked = False  # whether the module's ``forward`` stands in the module itself

    @property
    def hidden(self) -> bool:
        """Whether a session must look at the running thread itself, which breaks the graph."""
        return self.told < self.sessions


def taps_of(module: nn.Module) -> Taps | None:
    """The module's taps, None where no session watches it."""
    return getattr(module, _NAME, None)


def watch(module: nn.Module) -> None:
    taps = taps_of(module)
    if taps is None:
        taps = Taps()
        setattr(module, _NAME, taps)
    taps.sessions += 1


def unwatch(module: nn.Module) -> None:
    taps = taps_of(module)
    assert taps is not None
    taps.sessions -= 1
    if taps.sessions == 0:
        delattr(module, _NAME)


def tell(module: nn.Module, tap: Tap | None) -> None:
    """Before a compiled pass: what one session wants of the module, None for nothing.

    A graph made before knows nothing of taps, and torch does not look for them. But it does look whether ``forward`` is
    the class's own, so that becomes an attribute of the module for the pass, and a second graph is made beside it.
    """
    taps = taps_of(module)
    assert taps is not None
    taps.told += 1
    if taps.told == 1 and "forward" not in vars(module):
        module.forward = module.forward
        taps.marked = True
    if tap is not None:
        taps.open += (tap,)


def untell(module: nn.Module, tap: Tap | None) -> None:
    """After the pass."""
    taps = taps_of(module)
    assert taps is not None
    taps.told -= 1
    if taps.told == 0 and taps.marked:
        del module.forward
        taps.marked = False
    taps.open = tuple(one for one in taps.open if one is not tap)


def is_compiled(forward: Callable[..., Any]) -> bool:
    """Whether a module's ``forward`` was replaced by ``torch.compile`` of it, so that hooks of the module itself run
    outside of the graph."""
    return hasattr(forward, "_torchdynamo_orig_callable")


def device_of(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))
