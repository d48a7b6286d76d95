"""How sure a model was of the answer that ``generate()`` returned, from the logits of its own passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vea_sdk.capture.interception import PHASE, GenerateCall, Phase


class Chosen:
    """log softmax(raw logits, float32) of the tokens of an answer, of the sampled rows of a batch.

    A pass shows the logits and the next one feeds the token that was chosen by them; the last token stands in what is
    returned. Nothing waits for the device. What was fed is held against what was returned: where they differ, as where
    a pass was not seen, no certainty is known.
    """

    def __init__(self, phase: Phase, rows: Sequence[int]) -> None:
        self._prompt, self._ends = phase.ids.shape[1], phase.config.eos_token_id
        self._first, self._rows = min(rows), slice(min(rows), max(rows) + 1)
        self._next: Tensor | None = None  # [rows, vocabulary] of the token that is to be chosen
        self._fed: list[Tensor] = []  # [rows, 1] each
        self._logs: list[Tensor] = []  # [rows, 1] each
        self._answer: Tensor | None = None  # [rows, n] of what was returned
        self._host: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, call: GenerateCall | None, phase: Phase | None, rows: Sequence[int]) -> Chosen | None:
        """None where passes do not tell the answer: without ``generate()``, with beams or drafts, with a loop of the
        caller's, and in a batch whose rows may stop at anything but an end token."""
        config = None if phase is None or phase.name != "prefill" else phase.config
        if call is None or phase is None or config is None or call.inputs.get("custom_generate") is not None:
            return None
        stops = call.inputs.get("stopping_criteria") or config.stop_strings
        if (config.num_beams or 1) > 1 or (stops and len(phase.ids) > 1):
            return None
        return cls(phase, rows)

    def add(self, ids: Tensor | None, output: Any) -> None:
        """A pass has ended that was fed ``ids`` [B, L]; a prompt may take several."""
        logits = getattr(output, "logits", None)
        if PHASE.get() is None and self._next is not None and ids is not None:
            self._choose(ids[self._rows, -1:])
        self._next = None if logits is None else logits[self._rows, -1].log_softmax(-1, dtype=torch.float32)

    def end(self, sequences: Tensor) -> None:
        """``generate()`` has returned these tokens, after those of the prompt."""
        answer = sequences[self._rows, self._prompt :].clone()  # the caller may write into what was returned
        if self._next is not None and len(self._logs) == answer.shape[1] - 1:
            self._choose(answer[:, -1:])
        self._next = None
        if self._logs and len(self._logs) >= answer.shape[1]:  # a pass beyond the end may have run before it was known
            self._answer = answer

    def _choose(self, tokens: Tensor) -> None:
        assert self._next is not None
        self._fed.append(tokens.clone())  # a view would keep all that was fed before
        self._logs.append(self._next.gather(1, tokens.to(self._next.device, non_blocking=True)))

    @property
    def device(self) -> torch.device | None:
        """Where this is; None where nothing is known."""
        return self._logs[-1].device if self._logs else None

    @property
    def copied(self) -> int:
        """Bytes that came to the host."""
        return 0 if self._host is None else sum(one.numel() * one.element_size() for one in self._host)

    def certainty(self, row: int) -> tuple[float, float] | None:
        """(c, c^(1/n)) of a row of the batch, whose end token is its last; waits for the device."""
        if self._answer is None:
            return None
        if self._host is None:
            count = self._answer.shape[1]
            same = torch.cat(self._fed[:count], 1) == self._answer
            self._host = self._answer.int().cpu(), same.cpu(), torch.cat(self._logs[:count], 1).cpu()
        tokens, same, logs = (one[row - self._first] for one in self._host)
        if self._ends is not None:
            ended = torch.isin(tokens, torch.as_tensor(self._ends)).nonzero()
            length = int(ended[0]) + 1 if len(ended) else len(tokens)  # padding follows until all rows have ended
            same, logs = same[:length], logs[:length]
        total = float(logs.double().sum())
        return (math.exp(total), math.exp(total / len(logs))) if same.all() and not math.isnan(total) else None
