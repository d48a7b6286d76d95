"""Running ``generate()``: which options it gets, what it said, and how sure it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList

from vea_sdk.adapters.modules import unwrap
from vea_sdk.errors import InvalidInputError

MAX_NEW_TOKENS = 64
"""The longest answer, where nothing else is said."""

MOST_LOGITS = 2**30
"""Bytes of logits that ``generate()`` may hold for an answer's certainty, which is not computed above that."""


@dataclass(frozen=True)
class Generated:
    """One sequence that ``generate()`` gave.

    ``tokens``: [n] ids of the answer, the end token included. ``log_probabilities``: [n] float32 of log softmax(raw
    logits) at each of them, None where there are no logits. ``finished``: whether it came to its end by itself.
    ``output``: what ``generate()`` returned, where the caller asked for more than tokens.
    """

    text: str
    tokens: Tensor
    log_probabilities: Tensor | None
    finished: bool
    output: Any = None

    @property
    def certainty(self) -> float | None:
        """c = exp(Σ log softmax(raw logits)[token]) over all tokens."""
        return None if self.log_probabilities is None else math.exp(float(self.log_probabilities.sum()))

    @property
    def certainty_per_token(self) -> float | None:
        """c^(1/n): the geometric mean of the tokens' probabilities."""
        return None if self.log_probabilities is None else math.exp(float(self.log_probabilities.mean()))


class Generation:
    """The options of one question's runs of ``generate()``: greedy and at most 64 tokens unless told otherwise.

    Raises InvalidInputError for options that ask for what an answer cannot hold.
    """

    def __init__(self, model: nn.Module, given: Mapping[str, Any], max_new_tokens: int | None) -> None:
        self._model = model
        self._given = dict(given)
        config = given.get("generation_config")
        defaults: dict[str, Any] = {} if config is not None else {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS}
        if "max_length" in given:
            defaults.pop("max_new_tokens", None)
        if max_new_tokens is not None:
            defaults["max_new_tokens"] = max_new_tokens
        self.options = {**defaults, **given}
        self._check(max_new_tokens)

    def _check(self, max_new_tokens: int | None) -> None:
        if max_new_tokens is not None and (isinstance(max_new_tokens, bool) or max_new_tokens < 1):
            raise InvalidInputError(f"max_new_tokens={max_new_tokens!r} must be at least 1.")
        several = self.option("num_return_sequences")
        if several not in (None, 1):
            raise InvalidInputError(
                f"num_return_sequences={several} asks for several answers to one question, and an Answer holds one. "
                "Ask as often as you want answers (do_sample=True), or run model.generate() inside vea.capture()."
            )

    def option(self, name: str) -> Any:
        """What ``generate()`` will take for an option: the call's, else its configuration's, else the model's."""
        sources = (self.options.get("generation_config"), getattr(unwrap(self._model), "generation_config", None))
        if self.options.get(name) is not None:
            return self.options[name]
        return next((value for value in (getattr(one, name, None) for one in sources) if value is not None), None)

    @property
    def own_generate(self) -> bool:
        """Whether the model generates by Transformers' code or by its own."""
        function = getattr(type(unwrap(self._model)), "generate", None)
        return (
            not str(getattr(function, "__module__", "")).startswith("transformers.")
            or "custom_generate" in self.options
        )

    @property
    def why_no_rows(self) -> str | None:
        """Why a row of attention cannot be had for every token of the answer; None where it can."""
        if any(self.option(name) is not None for name in ("assistant_model", "prompt_lookup_num_tokens")):
            return "assisted decoding and prompt lookup feed tokens before it is known whether they stay"
        if (self.option("num_beams") or 1) > 1:
            return "beam search changes between sequences while it generates"
        if self.own_generate:
            return "the model generates by code of its own, whose passes are not known"
        return None

    def why_no_certainty(self, rows: int) -> str | None:
        """Why ``generate()`` gives no logits for this many answers at once; None where it does."""
        if self.own_generate:
            return "the model generates by code of its own, which returns none"
        if not self._logits(rows):
            return (
                f"those of {rows} answers of {self._longest} tokens would take more than {MOST_LOGITS / 2**30:g} GiB: "
                "pass a smaller max_new_tokens"
            )
        return None

    @property
    def why_not_together(self) -> str | None:
        """Why the views of an ensemble cannot choose their tokens together; None where they can."""
        if self.option("do_sample"):
            return "do_sample=True draws a token for each of them"
        if (self.option("num_beams") or 1) > 1:
            return f"num_beams={self.option('num_beams')} would give each of them beams of its own"
        if any(self.option(name) is not None for name in ("assistant_model", "prompt_lookup_num_tokens")):
            return "assisted decoding and prompt lookup go by one sequence at a time"
        if self.own_generate:
            return "the model generates by code of its own, into which nothing can be put"
        return None

    def run(
        self,
        processor: Any,
        inputs: Mapping[str, Any],
        prompt_length: int,
        *,
        together: bool = False,
        forced: Tensor | None = None,
    ) -> list[Generated]:
        """Generate for every row of ``inputs``.

        Args:
            processor: whose tokenizer makes texts of the tokens.
            inputs: what the model is fed.
            prompt_length: of the tokens returned, those of the prompt.
            together: all rows choose their tokens by the mean of their log-probabilities, and are one answer.
            forced: [n] ids that every row is made to say, whatever it would have said.
        """
        clash = sorted(set(inputs) & set(self._given))
        if clash:
            raise InvalidInputError(f"{clash[0]}= is made from the picture and the question. Leave it out.")
        rows = len(inputs["input_ids"]) if "input_ids" in inputs else len(next(iter(inputs.values())))
        options = self.options | (self._logits(rows) if not self.own_generate else {})
        if together:
            options["logits_processor"] = _processors(options, MeanOfRows())
        if forced is not None:
            options["logits_processor"] = _processors(options, Forced(forced))
            options |= {"do_sample": False, "num_beams": 1, "max_new_tokens": len(forced)}
            options.pop("max_length", None)
        output: Any = self._model.generate(**inputs, **options)  # type: ignore[operator]
        sequences = output if isinstance(output, Tensor) else output["sequences"]
        logits = None if isinstance(output, Tensor) else output.get("logits")
        beams = None if isinstance(output, Tensor) else output.get("beam_indices")
        if together:
            sequences, logits = sequences[:1], logits and tuple(mean_of_rows(step) for step in logits)
        count = sequences.shape[1] - prompt_length if logits is None else len(logits)
        new = sequences[:, -(count if beams is None else beams.shape[1]) :]
        chosen = None if logits is None else _log_probabilities(logits, new, beams).cpu()
        new = new.cpu()
        lengths = self._lengths(new)
        texts = processor.batch_decode(new, skip_special_tokens=True)
        limit = self._limit(prompt_length)
        asked = output if self._given.get("return_dict_in_generate") else None
        return [
            Generated(
                str(text).strip(),
                new[row, :length],
                None if chosen is None else chosen[row, :length],
                finished=ended or limit is None or length < limit,
                output=asked,
            )
            for row, (text, (length, ended)) in enumerate(zip(texts, lengths, strict=True))
        ]

    def _logits(self, rows: int) -> dict[str, Any]:
        config: Any = unwrap(self._model).config
        vocabulary = getattr(config.get_text_config(decoder=True), "vocab_size", 0)
        if 4 * rows * self._longest * vocabulary > MOST_LOGITS:
            return {}
        return {"return_dict_in_generate": True, "output_logits": True}

    @property
    def _longest(self) -> int:
        return int(self.option("max_new_tokens") or self.option("max_length") or MAX_NEW_TOKENS)

    def _limit(self, prompt_length: int) -> int | None:
        """The most tokens an answer may have; None where only its own end stops it."""
        if (most := self.option("max_new_tokens")) is not None:
            return int(most)
        length = self.option("max_length")
        return None if length is None else int(length) - prompt_length

    def _lengths(self, new: Tensor) -> list[tuple[int, bool]]:
        """Of every row, how many tokens are the answer, and whether an end token is its last."""
        ends = self.option("eos_token_id")
        if ends is None:
            return [(new.shape[1], False)] * len(new)
        is_end = torch.isin(new, torch.as_tensor(ends).cpu())
        # A row that has ended goes on in padding until the others have.
        return [(int(row.to(torch.uint8).argmax()) + 1, True) if row.any() else (len(row), False) for row in is_end]


class MeanOfRows(LogitsProcessor):
    """Gives every row the mean over rows of log p, so that all of them choose the same token."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return mean_of_rows(scores).expand_as(scores).to(scores.dtype)


class Forced(LogitsProcessor):
    """Leaves one token at every step: the next of those that are to be said."""

    def __init__(self, tokens: Tensor) -> None:
        self.left = iter(tokens.tolist())

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = next(self.left)
        found = torch.full_like(scores, -torch.inf)
        found[:, token] = 0
        return found


def mean_of_rows(logits: Tensor) -> Tensor:
    """[1, V] mean over rows of log softmax(logits, float32), of [rows, V]."""
    return torch.log_softmax(logits.float(), dim=-1).mean(0, keepdim=True)


def _processors(options: Mapping[str, Any], last: LogitsProcessor) -> LogitsProcessorList:
    return LogitsProcessorList([*(options.get("logits_processor") or ()), last])


def _log_probabilities(logits: tuple[Tensor, ...], new: Tensor, beams: Tensor | None) -> Tensor:
    """[B, n] log softmax(raw logits, float32) of the tokens, step by step: at once would be a second copy of them."""
    steps = []
    for step, values in enumerate(logits[: new.shape[1]]):
        at = values if beams is None else values[beams[:, step].clamp(min=0)]
        steps.append(torch.log_softmax(at.float(), dim=-1).gather(1, new[:, step : step + 1].to(at.device)))
    return torch.cat(steps, dim=1)
