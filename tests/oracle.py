"""The operators' truth: the formula once more, in float64 numpy, head by head, sharing nothing with the package."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.stats
import torch
from tolerances import FIGURES, FIGURES_MASS

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def make(batch, heads, kv_heads, rows, keys, dim, tokens, dtype=torch.float32, seed=0, index=torch.int64):
    """Random (query, key, image_index)."""
    g = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, rows, dim, generator=g).to(dtype)
    key = torch.randn(batch, kv_heads, keys, dim, generator=g).to(dtype)
    return query, key, torch.randint(-1, keys, (batch, tokens), generator=g).to(index)


def oracle(query, key, image_index, query_index=None, **options) -> np.ndarray:
    """Softmax probabilities at the image tokens: [B, Hq, M] float64."""
    return Rows(query, key, query_index, **options).at(image_index)


def check_figures(found: torch.Tensor, truth: np.ndarray) -> None:
    """``found`` [B, 4] against :meth:`Rows.figures`."""
    mass = truth[:, 0]
    faint = (mass > 0) & (mass < FIGURES_MASS)
    columns = np.where(faint[:, None], [True, True, False, False], True)
    np.testing.assert_allclose(
        np.where(columns, numbers(found), 0),
        np.where(columns, truth, 0),
        rtol=FIGURES,
        atol=FIGURES,
        equal_nan=True,
    )


class Rows:
    """The softmax of one query row per sample, head by head."""

    def __init__(self, query, key, query_index=None, **options) -> None:
        self.query, self.key, self.query_index = numbers(query), numbers(key), query_index
        self.options = {name: value for name, value in options.items() if value is not None}
        self.bias = numbers(self.options["position_bias"]) if "position_bias" in self.options else None
        self.mask = self.seen = None
        if (mask := self.options.get("mask")) is not None:
            values = numbers(mask)
            self.seen = values > (0 if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)
            self.seen |= np.isnan(values)
            self.mask = np.zeros_like(values) if mask.dtype == torch.bool else np.where(self.seen, values, 0)
        self.largest_logit = 0.0  # in magnitude, of all visible ones so far

    def at(self, image_index: torch.Tensor) -> np.ndarray:
        """[B, Hq, M]; 0 at index -1."""
        batch, heads = self.query.shape[:2]
        index = image_index.cpu().numpy()
        result = np.zeros((batch, heads, index.shape[1]))
        for b, h in itertools.product(range(batch), range(heads)):
            result[b, h] = np.where(index[b] == -1, 0, self.probabilities(b, h)[index[b]])
        return result

    def figures(self, image_index: torch.Tensor) -> np.ndarray:
        """Image mass, text mass, peak and entropy of the mean row: [B, 4]."""
        batch, heads = self.query.shape[:2]
        rows = self.at(image_index).mean(1)
        total = np.array([np.mean([self.probabilities(b, h).sum() for h in range(heads)]) for b in range(batch)])
        mass = rows.sum(1)
        with np.errstate(all="ignore"):
            share, nothing = rows / mass[:, None], np.full(batch, np.nan)
        if not share.shape[1]:
            return np.stack([mass, total, nothing, nothing], 1)
        return np.stack([mass, np.maximum(total - mass, 0), share.max(1), scipy.stats.entropy(share, axis=1)], 1)

    def probabilities(self, b: int, h: int) -> np.ndarray:
        """[Lk] float64; NaN throughout where nothing may be seen or a visible score is NaN."""
        heads, rows, dim = self.query.shape[1:]
        kv_heads, keys = self.key.shape[1:3]
        row = rows - 1 if self.query_index is None else int(self.query_index[b])
        place = (b, h, row, keys)
        with np.errstate(all="ignore"):
            s = self.key[b, h // (heads // kv_heads)] @ self.query[b, h, row] * self.options.get("scale", dim**-0.5)
            if (cap := self.options.get("softcap")) is not None:
                s = cap * np.tanh(s / cap)
            if self.bias is not None:
                s = s + _at(self.bias, *place)
            seen = self._in_range(b, keys)
            if self.mask is not None:
                seen &= _at(self.seen, *place)
                s = s + _at(self.mask, *place)
            logits = s[seen]
            if "sinks" in self.options:
                logits = np.append(logits, numbers(self.options["sinks"])[h])
            if logits.size == 0:
                return np.full(keys, np.nan)
            self.largest_logit = max(self.largest_logit, np.abs(logits[np.isfinite(logits)]).max(initial=0))
            total = np.exp(logits - logits.max()).sum()  # NaN if any logit is, or if all are -inf
            return np.where(seen, np.exp(s - logits.max()), 0) / total

    def _in_range(self, b: int, keys: int) -> np.ndarray:
        start, stop = (self.options.get(name) for name in ("key_start", "key_stop"))
        end = keys if stop is None else min(int(stop[b]), keys)
        begin = 0 if start is None else int(start[b])
        begin = max(begin, end - self.options["window"]) if "window" in self.options else begin
        t = np.arange(keys)
        return (t >= begin) & (t < end)


def _at(array: np.ndarray, b: int, h: int, row: int, keys: int) -> np.ndarray:
    """One row of a [B|1, H|1, Lq|1, >=Lk] array."""
    b, h, row = (0 if size == 1 else i for size, i in zip(array.shape, (b, h, row), strict=False))
    return array[b, h, row, :keys]
