"""The two operations in plain torch, for any device and accumulation dtype.

One implementation, two users: ``ops.reference`` runs it in float64 as the oracle, and the operators run it in
float32 where no compiled kernel serves. Only one query row is scored, K is never repeated over the query heads of
its group, and its conversion to the accumulation dtype goes block by block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import Arguments

_KEY_BLOCK = 4096  # keys converted to the accumulation dtype at a time


def image_attention(
    a: Arguments, out: Tensor | None, dtype: torch.dtype, stats: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """(out or 0) + weight·scores in float32, and the mask of its top k; ``stats`` is filled where given."""
    probabilities = _probabilities(a, dtype)
    heads = _at_tokens(probabilities, a.image_index)
    if stats is not None:
        stats.copy_(figures(heads.mean(1), probabilities.sum(-1).mean(1)))
    scores = heads if a.per_head else heads.mean(1)
    result = (scores * a.weight).float() if out is None else out.add_(scores.float(), alpha=a.weight)
    if a.top_k is None:
        return result, None
    return result, topk_mask(result.mean(1) if a.per_head else result, a.top_k, a.image_index >= 0)


def figures(row: Tensor, total: Tensor) -> Tensor:
    """Image mass, text mass, peak and entropy, [B, 4], of the mean row at the image tokens [B, M] and its sum over all
    keys [B]; defined at ``image_attention``."""
    mass = row.sum(-1)
    share = row / mass[:, None]
    peak = share.amax(-1) if row.shape[-1] else mass / mass
    entropy = torch.special.entr(share).sum(-1) if row.shape[-1] else mass / mass
    return torch.stack([mass, (total - mass).clamp(min=0), peak, entropy], -1)


def topk_mask(scores: Tensor, k: int, eligible: Tensor | None = None) -> Tensor:
    """The k largest of each row of [B, M]; ties to the lower index; NaN and ineligible places never."""
    allowed = ~scores.isnan() if eligible is None else eligible & ~scores.isnan()
    by_value = scores.masked_fill(~allowed, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    allowed_first = allowed.gather(-1, by_value).to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    order = by_value.gather(-1, allowed_first)
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order[:, :k], True)
    return chosen & allowed


def _query_row(rows: Tensor, query_index: Tensor | None) -> Tensor:
    """Row ``query_index[b]`` (default the last) of dimension 2: [B|1, H, Lq|1, X] -> [B|1, H, X]."""
    if query_index is None or rows.shape[2] == 1:
        return rows[:, :, -1]
    index = query_index.to(torch.int64).clamp(0, rows.shape[2] - 1)
    samples = torch.arange(len(index), device=rows.device)
    return rows.expand(len(index), -1, -1, -1)[samples, :, index]


def _raw_scores(a: Arguments, dtype: torch.dtype) -> Tensor:
    """q·k of one query row against every key: [B, Hq, Lk]."""
    batch, heads, _, dim = a.query.shape
    kv_heads, keys = a.key.shape[1], a.key.shape[2]
    row = _query_row(a.query, a.query_index).to(dtype).reshape(batch, kv_heads, heads // kv_heads, dim)
    scores = row.new_empty(batch, kv_heads, heads // kv_heads, keys)
    for t in range(0, keys, _KEY_BLOCK):
        block = a.key[:, :, t : t + _KEY_BLOCK].to(dtype)
        scores[..., t : t + _KEY_BLOCK] = row @ block.transpose(-1, -2)
    return scores.reshape(batch, heads, keys)


def _hidden_keys(a: Arguments) -> Tensor:
    """True where the range (cut to the keys that exist) or the window forbids a key: [B|1, 1, Lk]."""
    keys, device = a.key.shape[2], a.key.device
    t = torch.arange(keys, device=device)[None, None]
    stop = torch.full((1,), keys, device=device) if a.key_stop is None else a.key_stop.long().clamp(0, keys)
    hidden = t >= stop[:, None, None]
    if a.key_start is not None:
        hidden = hidden | (t < a.key_start[:, None, None])
    if a.window is not None:
        hidden = hidden | (t < stop[:, None, None] - a.window)
    return hidden


def _probabilities(a: Arguments, dtype: torch.dtype) -> Tensor:
    """Softmax of one query row over all keys it may see: [B, Hq, Lk]. A row that may see nothing is NaN."""
    keys = a.key.shape[2]
    scores = _raw_scores(a, dtype) * a.scale
    if a.softcap is not None:
        scores = a.softcap * torch.tanh(scores / a.softcap)
    if a.position_bias is not None:
        scores = scores + _query_row(a.position_bias, a.query_index)[..., :keys].to(dtype)
    hidden = _hidden_keys(a)
    if a.mask is not None:
        row = _query_row(a.mask, a.query_index)[..., :keys]
        if a.mask.dtype == torch.bool:
            hidden = hidden | ~row
        else:  # Transformers writes "masked" as the lowest finite number of the dtype
            hidden = hidden | (row <= torch.finfo(a.mask.dtype).min)
            scores = scores + row.to(dtype)
    scores = scores.masked_fill(hidden, -torch.inf)
    if a.query_index is not None:  # on a device that cannot raise; on the CPU such a row was refused before
        outside = (a.query_index < 0) | (a.query_index >= a.query.shape[2])
        scores = scores.masked_fill(outside[:, None, None], torch.nan)
    if a.sinks is None:
        return scores.softmax(-1)
    sink = a.sinks.to(dtype)[None, :, None].expand(len(scores), -1, 1)
    return torch.cat([scores, sink], -1).softmax(-1)[..., :keys]


def _at_tokens(row: Tensor, image_index: Tensor) -> Tensor:
    """[B, H, Lk] at the image tokens: [B, H, M]. Index -1 gives 0, any other index off the keys gives NaN."""
    keys = row.shape[-1]
    index = image_index.to(torch.int64)[:, None]
    values = row.gather(-1, index.clamp(0, keys - 1).expand(-1, row.shape[1], -1))
    values = values.masked_fill((index < 0) | (index >= keys), torch.nan)
    return values.masked_fill(index == -1, 0.0)
