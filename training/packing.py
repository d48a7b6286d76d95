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

from .data import Question


@dataclass
class Blocks:
    """Questions about a batch of pictures; empty blocks are padding.

    Token ids [B, blocks, length]; targets of the answer tokens (-100 elsewhere), same shape; position of the last
    prompt token [B, blocks].
    """

    ids: torch.Tensor
    targets: torch.Tensor
    last: torch.Tensor


def pack(asked: list[list[Question]], prompt: str, tokens: PreTrainedTokenizerFast, assistant: int) -> Blocks:
    """Lay out the questions about each picture, with their answers, as blocks, padded to the longest."""
    rows = []
    for picture, each in enumerate(asked):
        for block, (question, answer, _) in enumerate(each):
            said = [*tokens.encode(prompt.format(question=question), add_special_tokens=False), assistant]
            told = [*tokens.encode(answer, add_special_tokens=False), tokens.eos_token_id]
            rows.append((picture, block, said, told))
    length = max(len(said) + len(told) for *_, said, told in rows)
    shape = (len(asked), max(map(len, asked)), length)
    ids, targets = torch.full(shape, tokens.pad_token_id), torch.full(shape, -100)
    last = torch.zeros(shape[:2], dtype=torch.long)
    for picture, block, said, told in rows:
        line = torch.tensor(said + told)
        ids[picture, block, : len(line)] = line
        targets[picture, block, len(said) - 1 : len(line) - 1] = torch.tensor(told)
        last[picture, block] = len(said) - 1
    return Blocks(ids, targets, last)


def _packed_attention(
    module: nn.Module,
    query: torch.Tensor,  # [B, heads, prefix + blocks * length, D]
    key: torch.Tensor,  # [B, key heads, same, D]
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    prefix: int,
    blocks: Blocks,
    **unused: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal over the prefix; each block over the prefix and itself. Cheaper than one masked product over all.

    Also returns where each block's last prompt token looks: its head-averaged attention [B, blocks, 196].
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    b, h, _, d = query.shape
    first = functional.scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True, scale=scaling
    )
    count, length = blocks.ids.shape[1:]
    q, k, v = (t[:, :, prefix:].reshape(b, h, count, length, d) for t in (query, key, value))
    kp, vp = key[:, :, :prefix], value[:, :, :prefix]
    far = (q.reshape(b, h, -1, d) @ kp.mT).view(b, h, count, length, prefix)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    near = (q @ k.mT).masked_fill(later, float("-inf"))
    weights = (torch.cat([far, near], -1) * scaling).softmax(-1)
    seen = weights[..., :prefix].reshape(b, h, -1, prefix) @ vp
    rest = seen + (weights[..., prefix:] @ v).reshape(b, h, -1, d)
    rows = blocks.last[:, None, :, None, None].expand(b, h, count, 1, prefix + length)
    looking = weights.gather(3, rows)[:, :, :, 0, 1:prefix].mean(1)
    return torch.cat([first, rest], 2).transpose(1, 2), looking


AttentionInterface.register("packed", _packed_attention)


def image_features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Projected patch features [B, 196, width]."""
    hidden = model.model.vision_tower(pixels).last_hidden_state[:, 1:]
    return model.model.multi_modal_projector(hidden)


def answer_logits(
    model: LlavaForConditionalGeneration, features: torch.Tensor, blocks: Blocks, user: int
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Logits at the answer positions and their targets, both flat; and where each layer looks, [B, blocks, 196]."""
    text = model.model.language_model
    text.config._attn_implementation = "packed"
    b, count, length = blocks.ids.shape
    prefix = 1 + features.shape[1]
    start = text.embed_tokens(torch.full((b, 1), user))
    hidden = torch.cat([start, features, text.embed_tokens(blocks.ids.view(b, -1))], 1)
    positions = torch.cat([torch.arange(prefix), torch.arange(prefix, prefix + length).repeat(count)])[None]
    rotary = text.rotary_emb(hidden, position_ids=positions)
    looking: list[torch.Tensor] = []
    hooks = [layer.self_attn.register_forward_hook(lambda m, i, out: looking.append(out[1])) for layer in text.layers]
    for layer in text.layers:
        hidden = layer(hidden, position_embeddings=rotary, attention_mask=None, prefix=prefix, blocks=blocks)
    for hook in hooks:
        hook.remove()
    targets = blocks.targets.view(b, -1)
    answering = targets >= 0
    return model.lm_head(text.norm(hidden[:, prefix:][answering])), targets[answering], looking
