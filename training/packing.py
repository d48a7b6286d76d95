"""All questions about a picture in one sequence: the picture once, then one block per question.

A block sees the picture and itself, never another block, and its positions start right after the picture, so every
block is exactly the sequence that inference sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, LlavaForConditionalGeneration, PreTrainedTokenizerFast


@dataclass
class Blocks:
    """Token ids [B, blocks, length], and the targets of the answer tokens (-100 elsewhere), same shape."""

    ids: torch.Tensor
    targets: torch.Tensor


def pack(pairs: list[list[tuple[str, str]]], prompt: str, tokens: PreTrainedTokenizerFast, assistant: int) -> Blocks:
    """Lay out (question, answer) pairs of each picture as blocks, padded to the longest."""
    rows = []
    for picture, questions in enumerate(pairs):
        for block, (question, answer) in enumerate(questions):
            asked = [*tokens.encode(prompt.format(question=question), add_special_tokens=False), assistant]
            told = [*tokens.encode(answer, add_special_tokens=False), tokens.eos_token_id]
            rows.append((picture, block, asked, told))
    length = max(len(asked) + len(told) for *_, asked, told in rows)
    shape = (len(pairs), max(map(len, pairs)), length)
    ids, targets = torch.full(shape, tokens.pad_token_id), torch.full(shape, -100)
    for picture, block, asked, told in rows:
        line = torch.tensor(asked + told)
        ids[picture, block, : len(line)] = line
        targets[picture, block, len(asked) - 1 : len(line) - 1] = torch.tensor(told)
    return Blocks(ids, targets)


def _packed_attention(
    module: nn.Module,
    query: torch.Tensor,  # [B, heads, prefix + blocks * length, D]
    key: torch.Tensor,  # [B, key heads, same, D]
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    prefix: int,
    blocks: int,
    **unused: object,
) -> tuple[torch.Tensor, None]:
    """Causal over the prefix; each block over the prefix and itself. Cheaper than one masked product over all."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    b, h, total, d = query.shape
    first = functional.scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True, scale=scaling
    )
    length = (total - prefix) // blocks
    q, k, v = (t[:, :, prefix:].reshape(b, h, blocks, length, d) for t in (query, key, value))
    kp, vp = key[:, :, :prefix], value[:, :, :prefix]
    far = (q.reshape(b, h, -1, d) @ kp.mT).view(b, h, blocks, length, prefix)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    near = (q @ k.mT).masked_fill(later, float("-inf"))
    weights = (torch.cat([far, near], -1) * scaling).softmax(-1)
    seen = weights[..., :prefix].reshape(b, h, -1, prefix) @ vp
    rest = seen + (weights[..., prefix:] @ v).reshape(b, h, -1, d)
    return torch.cat([first, rest], 2).transpose(1, 2), None


AttentionInterface.register("packed", _packed_attention)


def image_features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Projected patch features [B, 196, width]."""
    hidden = model.model.vision_tower(pixels).last_hidden_state[:, 1:]
    return model.model.multi_modal_projector(hidden)


def answer_logits(
    model: LlavaForConditionalGeneration, features: torch.Tensor, blocks: Blocks, user: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at the answer positions and their targets, both flat."""
    text = model.model.language_model
    text.config._attn_implementation = "packed"
    b, count, length = blocks.ids.shape
    prefix = 1 + features.shape[1]
    start = text.embed_tokens(torch.full((b, 1), user))
    hidden = torch.cat([start, features, text.embed_tokens(blocks.ids.view(b, -1))], 1)
    positions = torch.cat([torch.arange(prefix), torch.arange(prefix, prefix + length).repeat(count)])[None]
    rotary = text.rotary_emb(hidden, position_ids=positions)
    for layer in text.layers:
        hidden = layer(hidden, position_embeddings=rotary, attention_mask=None, prefix=prefix, blocks=count)
    targets = blocks.targets.view(b, -1)
    answering = targets >= 0
    return model.lm_head(text.norm(hidden[:, prefix:][answering])), targets[answering]
