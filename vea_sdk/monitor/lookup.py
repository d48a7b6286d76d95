"""Which generation a pass belongs to.

It is known by the ``generate()`` that runs it; outside of that by its cache; where there is no cache, by the thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vea_sdk.capture.interception import CALL, PHASE
from vea_sdk.capture.prompt import CACHE_NAMES, cache_in, fed_ids
from vea_sdk.monitor.generation import Generation

IGNORED = Generation()
"""Stands for passes that are nobody's request: drafts, and tokens whose prompt was fed before the monitor came."""

Begin = Callable[[Mapping[str, Any], Tensor, Generation | None], Generation]
End = Callable[[Generation, str], None]


class _Uncached(threading.local):
    generation: Generation | None = None


class Lookup:
    """``begin(fed, tokens, before)`` makes the generation of a new prompt, ``before`` being the one that the same cache
    served before; ``end(generation, how)`` is told of an end, from any thread and in the middle of anything."""

    def __init__(self, begin: Begin, end: End) -> None:
        self._begin, self._end = begin, end
        self._uncached = _Uncached()
        self._caches: dict[int, tuple[weakref.ref[Any], Generation]] = {}
        self.asks = False  # whether a static cache is asked if it is empty: where graphs feed tokens unseen

    def running(self) -> Generation | None:
        """The generation of the ``generate()`` that goes on in this context, if that is certain already."""
        call, phase = CALL.get(), PHASE.get()
        known = None if call is None else call.kept.get(id(self))
        if known is None or not (known is IGNORED or phase is None or phase is known.phase):
            return None
        return known  # type: ignore[no-any-return]

    def find(self, fed: Mapping[str, Any]) -> Generation:
        """The generation of a pass with these named arguments, begun now if it feeds a new prompt."""
        call, phase, tokens, cache = CALL.get(), PHASE.get(), tokens_in(fed), cache_in(fed)
        if tokens is None or tokens.dim() < 2:
            return IGNORED
        if phase is not None and phase.name == "draft":  # the model drafts for itself, or for another one
            if call is not None:
                call.kept[id(self)] = IGNORED
            return IGNORED
        by_thread = cache is None or not _is_referable(cache)
        before = self._uncached.generation if by_thread else self._caches.get(id(cache), (None, None))[1]
        if call is None and before is not None:
            if phase is not None and phase is before.phase:
                return before
            if phase is None and self._continues(before, cache, tokens, fed_ids(fed)):
                return before
        elif call is None and phase is None and cache is not None and tokens.shape[1] == 1:
            return IGNORED
        for ended in (before, None if call is None else call.kept.get(id(self))):
            if ended is not None:
                self._end(ended, "ended")
        generation = self._begin(fed, tokens, None if cache is None else before)
        if call is not None:
            call.kept[id(self)] = generation
        elif by_thread:
            generation.ids = fed_ids(fed)
            self._uncached.generation = generation
        if not by_thread and (call is None or generation.follower is not None):
            self._keep(cache, generation, ends=call is None)
        return generation

    def passed(self, generation: Generation, output: Any) -> None:
        """A pass has ended: from now on its cache, if it made one, tells the generation."""
        cache = _cache_of(output)
        if self._uncached.generation is generation and cache is not None and _is_referable(cache):
            self._uncached.generation = generation.ids = None
            self._keep(cache, generation, ends=True)

    def _continues(self, known: Generation, cache: Any, tokens: Tensor, ids: Tensor | None) -> bool:
        """Whether a hand-written loop goes on: it feeds a token, a further piece of the prompt, or, without a cache,
        the ids of the last pass and one more. A new turn on the same cache is a new request."""
        if tokens.shape[1] == 1:
            known.decoding = True
            return True
        if cache is not None:
            return not known.decoding and not _is_empty(cache, self.asks)
        before = known.ids
        if ids is None or before is None or ids.shape != (before.shape[0], before.shape[1] + 1):
            return False
        known.ids = ids
        return torch.equal(ids[:, :-1], before)

    def _keep(self, cache: Any, generation: Generation, ends: bool) -> None:
        """Know the generation by its cache; ``ends``: it ends with it."""
        key = id(cache)

        def gone(_: Any) -> None:
            if (entry := self._caches.pop(key, None)) is not None and ends:
                self._end(entry[1], "ended")

        self._caches[key] = (weakref.ref(cache, gone), generation)


def tokens_in(fed: Mapping[str, Any]) -> Tensor | None:
    """What a pass feeds, ids [B, L] or embeddings [B, L, D]; of a model with names of its own, its first tensor."""
    for name in ("decoder_input_ids", "input_ids", "inputs_embeds"):
        if isinstance(fed.get(name), Tensor):
            return fed[name]  # type: ignore[no-any-return]
    return next((value for value in fed.values() if isinstance(value, Tensor)), None)


def _cache_of(output: Any) -> Any:
    """The cache in what a model returned."""
    if isinstance(output, Mapping):
        return next((output[name] for name in CACHE_NAMES if name in output), None)
    parts = output if isinstance(output, tuple) else ()
    return next((part for part in parts if hasattr(part, "get_seq_length")), None)


def _is_referable(cache: Any) -> bool:
    """Whether its end can be told. That of a plain dictionary or list cannot: the thread tells its generation."""
    try:
        weakref.ref(cache)
    except TypeError:
        return False
    return True


def _is_empty(cache: Any, ask: bool) -> bool:
    if isinstance(cache, dict | list | tuple):
        return not cache
    length = cache.get_seq_length() if hasattr(cache, "get_seq_length") else None
    if ask and isinstance(length, Tensor):
        length = int(length)
    return isinstance(length, int) and length == 0  # a static cache counts on the device: the host would wait
