"""Two 7B vision-language models, shaped by their published configurations, with random weights made on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor


@dataclass(frozen=True)
class Family:
    """A configuration, a prompt for it, and the layers its published profile names (arXiv 2510.17771)."""

    name: str
    config: Callable[[], Any]
    model_class: Any
    prompt: Callable[[Any, int], dict[str, Tensor]]  # (configuration, tokens) -> inputs, mostly image tokens
    profiled: tuple[int, ...]

    def build(self, config: Any, device: str, dtype: torch.dtype = torch.bfloat16) -> Any:
        with torch.device(device):
            model = self.model_class._from_config(config, dtype=dtype)
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model.eval().requires_grad_(False)


def qwen_config() -> Any:
    """Qwen2.5-VL-7B-Instruct."""
    text = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": False,
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": 3584,
    }
    return hf.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        tie_word_embeddings=False,
    )


def qwen_prompt(config: Any, tokens: int) -> dict[str, Tensor]:
    """One picture of as many merged patches as leave 40 to 100 tokens of text."""
    vision = config.vision_config
    merge = vision.spatial_merge_size
    columns = int((tokens - 40) ** 0.5)
    rows = (tokens - 40) // columns
    ids = _text(config, tokens)
    ids[:, 1] = config.vision_start_token_id
    ids[:, 2 : 2 + rows * columns] = config.image_token_id
    ids[:, 2 + rows * columns] = config.vision_end_token_id
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(rows * columns * merge**2, width),
        "image_grid_thw": torch.tensor([[1, rows * merge, columns * merge]]),
        "mm_token_type_ids": (ids == config.image_token_id).int(),
    }


def llava_config() -> Any:
    """LLaVA-1.5-7B."""
    text = hf.LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32064,
        max_position_embeddings=8192,  # 4096 in the checkpoint; the prompts here grow to that and are answered
        rms_norm_eps=1e-5,
    )
    vision = hf.CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    return hf.LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=32000, image_seq_length=576, tie_word_embeddings=False
    )


def llava_prompt(config: Any, tokens: int) -> dict[str, Tensor]:
    """As many whole pictures (576 tokens each) as fit and leave 20 tokens of text."""
    vision = config.vision_config
    each = (vision.image_size // vision.patch_size) ** 2
    pictures = (tokens - 20) // each
    ids = _text(config, tokens)
    ids[:, 1 : 1 + pictures * each] = config.image_token_id
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(pictures, 3, vision.image_size, vision.image_size),
    }


def _text(config: Any, tokens: int) -> Tensor:
    """Random words below every special token."""
    return torch.randint(10, min(config.text_config.vocab_size, 30000), (1, tokens))


FAMILIES = {
    "Qwen2.5-VL-7B": Family(
        "Qwen2.5-VL-7B", qwen_config, hf.Qwen2_5_VLForConditionalGeneration, qwen_prompt, (18, 22, 24)
    ),
    "LLaVA-1.5-7B": Family(
        "LLaVA-1.5-7B", llava_config, hf.LlavaForConditionalGeneration, llava_prompt, (14, 15, 17, 19)
    ),
}
