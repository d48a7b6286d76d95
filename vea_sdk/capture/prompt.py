"""Which forward pass is the prompt, which one adds a generated token, and where the image keys lie."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vea_sdk.adapters import Adapter
from vea_sdk.capture.fed_prompt import Part
from vea_sdk.capture.interception import PHASE, Phase
from vea_sdk.errors import CaptureError, ImageTokenError, InvalidInputError

ImagePositions = Tensor | Sequence[int] | Sequence[Sequence[int]]


@dataclass(slots=True)
class Step:
    """One forward pass of the decoder."""

    kind: Literal["prompt", "generated"]
    batch: int
    length: int  # tokens fed in this pass
    seen: int  # tokens fed so far, this pass included
    query_index: Tensor | None  # [B] row to read, None = the last
    device: torch.device
    cross: bool = False  # the keys are vision states, not the tokens fed
    states: int | None = None  # keys of an encoder, where they follow the decoder's own in one softmax
    prompt_stays: bool = False  # no sliding cache forgets keys of the prompt

    @property
    def plain(self) -> bool:
        """Whether one token was fed, which sees all keys."""
        return self.length == 1 and self.query_index is None and self.states is None

    @property
    def kept(self) -> int:
        """Keys of a call from which a sliding cache has dropped none; 0 where it never drops one that counts."""
        return 0 if self.cross or self.prompt_stays else self.seen

    def row(self, call_queries: int) -> Tensor | None:
        """Row to read [B] of a call with so many queries, None = the last.

        generate() asks for the last logits only, so layers that make no keys of their own may get fewer queries than
        tokens were fed: the last ones.
        """
        if self.query_index is None or self.cross or call_queries >= self.length:
            return self.query_index
        row = self.query_index - (self.length - call_queries)
        if row.device.type == "cpu" and bool((row < 0).any()):  # elsewhere such a row becomes NaN: no waiting here
            raise CaptureError(
                f"a layer was given only the last {call_queries} of {self.length} tokens, and in one of the prompts "
                'the last one is padding. Pad prompts on the left (padding_side="left"), as generate() needs them.'
            )
        return row

    def dropped(self, call_keys: int) -> int:
        """How many of its first keys a sliding cache has forgotten; negative where other keys come first."""
        if self.states is not None:
            return self.states - call_keys
        return max(self.kept - call_keys, 0)

    def key_stop(self, call_keys: int) -> Tensor | None:
        """End of the keys a causal query without a mask may see: its own row, SDPA aligns both at the top left."""
        if self.cross:
            return None
        if self.query_index is not None:
            return self.query_index + 1
        if call_keys > self.length:
            return torch.full((self.batch,), self.length, dtype=torch.int64, device=self.device)
        return None


class PromptTracker:
    """Follows the passes of one generation and knows the key positions of its image tokens.

    Inside Transformers' ``generate()`` every pass of its prefill belongs to the prompt, whatever it feeds. Elsewhere a
    pass on an empty cache starts a prompt, further passes of several tokens continue it (a next turn), passes of one
    token are generated tokens, and so is a pass without a cache that repeats the last one plus one token.
    """

    def __init__(self, adapter: Adapter, image_positions: ImagePositions | None) -> None:
        self._adapter = adapter
        self.cross_attention = adapter.cross_attention
        self._merged = adapter.merged_attention
        self._given = None if image_positions is None else _as_index(image_positions)
        self._cache: weakref.ref[Any] | None = None
        self._left: list[weakref.ref[Any]] = []  # caches of earlier prompts
        self._continues = False  # whether the last pass came with the cache of the one before
        self._ids: Tensor | None = None
        self._phase: Phase | None = None  # part of generate() that the last pass belonged to
        self._total = 0  # tokens of the prompt that generate() is feeding
        self._token: Step | None = None  # the last pass, where it was a plain step of decoding
        self.part: Part = "new"  # what the last pass of a prompt was
        self.whole = False  # whether generate() was given the ids of the whole prompt, cached ones included
        self.seen = 0
        self.image_index: Tensor | None = None  # [B, M], None before the first prompt
        self.valid_tokens: Tensor | None = None  # [B] prompt tokens that are not padding
        self.missing: ImageTokenError | None = None  # why image_index is empty

    def advance(self, fed: Mapping[str, Any], tokens: Tensor) -> Step:
        """Take in one pass: ``tokens`` are its ids [B, L] or embeddings [B, L, D], ``fed`` its named arguments."""
        past = self._past_length(cache_in(fed), tokens.shape[1])
        return self._take(tokens.shape[0], tokens.shape[1], past, fed, tokens.device)

    def left(self, cache: Any, length: int) -> bool:
        """Whether a pass goes on with an earlier prompt, outside ``generate()``: one token on the cache of that."""
        return length == 1 and PHASE.get() is None and any(one() is cache for one in self._left if cache is not None)

    def advance_by_token(self, cache: Any, tokens: Tensor) -> Step | None:
        """The same for a pass that follows a step of decoding and is another one; None where this is not certain.

        Most passes are of this kind, and what they cost is what capture costs.
        """
        step, known = self._token, self._cache and self._cache()
        if step is None or known is None or known is not cache or PHASE.get() is not None:
            return None
        length = known.get_seq_length()  # not a number: it counts on the device, which is not waited for
        if tokens.shape[:2] != (step.batch, 1) or (isinstance(length, int) and length != self.seen):
            return None
        self.seen += 1
        self._total = step.seen = self.seen
        return step

    def advance_from_attention(self, query: Tensor, key: Tensor, fed: Mapping[str, Any]) -> Step:
        """The same for a model whose cache is not known, from the shapes of its first attention call."""
        batch, length = query.shape[0], query.shape[-2]
        past = key.shape[-2] - length
        self._continues = True
        return self._take(batch, length, past, fed, query.device)

    def _take(self, batch: int, length: int, past: int, fed: Mapping[str, Any], device: torch.device) -> Step:
        ids, mask = fed.get("input_ids"), fed.get("attention_mask")
        phase = PHASE.get()
        begins = phase is not self._phase
        self._phase = phase
        if phase is None:
            repeats = past == 0 and self._repeats(ids)
            generated = repeats or (past > 0 and length == 1 and self.image_index is not None)
            self.whole, self._total = past == 0, past + length
        else:
            generated = phase.name == "assisted" and not begins
            if begins:
                self._enter(phase, past, length, ids)
        self._continues |= past == self.seen
        if phase is not None and not begins:
            self.part = "same"
        else:
            self.part = "next" if past > 0 and self._continues else "new"
        self.seen = past + length
        self._ids = ids if past == 0 else None
        query_index = None
        candidates = 0
        if phase is not None and phase.name == "assisted":
            candidates = max(self.seen - self._total, 0)
            query_index = torch.full((batch,), length - 1 - candidates, dtype=torch.int64, device=device)
        elif isinstance(mask, Tensor) and mask.dim() == 2 and length > 1:
            last = mask.shape[1] - 1 - mask.flip(1).to(torch.int64).argmax(1)
            query_index = (last - (mask.shape[1] - length)).to(device)
        if not generated:
            self._locate(batch, self.seen - candidates, past, fed, device)
            if isinstance(mask, Tensor) and mask.dim() == 2:
                self.valid_tokens = mask.to(torch.int64).sum(1).to(device) - candidates
            else:
                self.valid_tokens = torch.full((batch,), self.seen - candidates, dtype=torch.int64, device=device)
        kind: Literal["prompt", "generated"] = "generated" if generated else "prompt"
        states = int(fed["encoder_hidden_states"].shape[1]) if self._merged else None
        stays = self._adapter.prompt_stays
        step = Step(kind, batch, length, self.seen, query_index, device, self.cross_attention, states, stays)
        self._token = step if generated and phase is None and past > 0 and step.plain else None
        return step

    def _enter(self, phase: Phase, past: int, length: int, ids: Tensor | None) -> None:
        """Begin a part of generate(). It may be given the whole prompt, or only what follows the cache."""
        given = phase.ids.shape[1]
        cached = past > 0 and isinstance(ids, Tensor) and torch.equal(ids, phase.ids[:, past : past + length])
        self.whole = past == 0 or cached
        self._total = given if self.whole else past + given
        if past == 0 and isinstance(ids, Tensor) and ids.shape[1] < length:
            self._total += length - ids.shape[1]  # tokens that the model itself puts before the prompt

    def _locate(self, batch: int, keys: int, past: int, fed: Mapping[str, Any], device: torch.device) -> None:
        """Find the image keys among the first ``keys``, once per prompt: the one moment at which the host reads from
        the device."""
        self.missing = None
        if self._given is not None:
            index = self._given.to(device)
            if index.shape[0] not in (1, batch):
                raise InvalidInputError(
                    f"image_positions has {index.shape[0]} rows, the prompt has a batch of {batch}. Give one row per "
                    "sequence, padded with -1."
                )
            total = max(self._total, keys)
            if int(index.max()) >= total or int(index.min()) < -1:
                raise InvalidInputError(
                    f"image_positions reaches from {int(index.min())} to {int(index.max())}, the prompt has "
                    f"{total} tokens. Positions count from 0; -1 stands for none."
                )
            if total > keys:  # a chunk of the prompt: later keys are not there yet
                index = torch.where(index < keys, index, -1)
            self.image_index = index.expand(batch, -1).contiguous()
            return
        if self._phase is not None and self.whole and isinstance(fed.get("input_ids"), Tensor):
            ids = self._phase.ids
            if past > 0 or fed["input_ids"].shape[1] > ids.shape[1]:
                fed, past = {**fed, "input_ids": ids[:, :keys]}, 0
        known = self.image_index if past > 0 and self._continues else None
        found: Tensor | None = None
        try:  # vision states that a later pass brings replace the earlier ones, or follow them in the cache
            found = self._positions(fed).to(device)
        except ImageTokenError as error:
            self.missing = error
            if past > 0 and not self._continues:
                self.missing = ImageTokenError(
                    f"the prompt continues a cache of {past} tokens that was filled outside this session, and what was "
                    "fed now holds no image token. Open the session before the picture is fed, give generate() the "
                    "ids of the whole prompt, or name the image keys with image_positions=."
                )
        if found is not None and past > 0 and not self.cross_attention:
            found = torch.where(found < 0, found, found + past)
        parts = [part for part in (known, found) if part is not None]
        if parts:
            self.image_index = torch.cat(parts, dim=1)
        else:
            self.image_index = torch.empty((batch, 0), dtype=torch.int64, device=device)
        if self.image_index.shape[1]:
            self.missing = None

    def _positions(self, fed: Mapping[str, Any]) -> Tensor:
        return self._adapter.vision_positions(fed) if self.cross_attention else self._adapter.prompt_positions(fed)

    def _past_length(self, cache: Any, fed: int) -> int:
        self._continues = False
        if cache is None:
            return 0
        known = self._cache() if self._cache is not None else None
        self._continues = known is cache
        length = cache.get_seq_length()
        if not isinstance(length, int):
            # A static cache counts on the device. Ask it when a prompt is fed, then count along without waiting.
            length = self.seen if self._continues and fed == 1 and PHASE.get() is None else int(length)
        if not self._continues:
            self._leave(known, cache)
        self._cache = weakref.ref(cache)
        return length

    def _leave(self, known: Any, cache: Any) -> None:
        """Another cache takes the place of the known one."""
        self._left = [one for one in self._left if one() is not None and one() is not cache]
        if known is not None:
            self._left.append(weakref.ref(known))

    def _repeats(self, ids: Tensor | None) -> bool:
        """Whether these ids are the last ones plus one token, as generation without a cache feeds them."""
        before = self._ids
        if ids is None or before is None or ids.shape != (before.shape[0], before.shape[1] + 1):
            return False
        return torch.equal(ids[:, :-1], before)


CACHE_NAMES = ("cache", "past_key_values")  # since Transformers 5.24, and before


def cache_in(fed: Mapping[str, Any]) -> Any:
    """The cache among the named arguments of a pass, or None."""
    for name in CACHE_NAMES:
        if (cache := fed.get(name)) is not None:
            return cache
    return None


def fed_ids(fed: Mapping[str, Any]) -> Tensor | None:
    """The ids among the named arguments of a pass, those of the decoder first."""
    found = (fed.get(name) for name in ("decoder_input_ids", "input_ids"))
    return next((ids for ids in found if isinstance(ids, Tensor)), None)


def _as_index(positions: ImagePositions) -> Tensor:
    """Positions as [B, M] int64; a boolean mask [B, tokens] is turned into positions padded with -1."""
    index = torch.as_tensor(positions)
    index = index[None] if index.dim() == 1 else index
    if index.dim() != 2 or index.numel() == 0 or index.is_floating_point():
        raise InvalidInputError(
            f"image_positions must be integers [batch, image tokens] or a mask [batch, tokens], got "
            f"{tuple(index.shape)} {index.dtype}"
        )
    if index.dtype == torch.bool:
        rows = [row.nonzero().flatten() for row in index]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    return index.to(torch.int64)
