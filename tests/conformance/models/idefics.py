"""Idefics3 and SmolVLM: tiles with row and column tokens, the whole picture last."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without


def idefics3_parts(image_processor: Any, processor_class: Any) -> Any:
    tiles = {f"tile_{r}_{c}": f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)}
    tokenizer = byte_tokenizer(
        image_token="<image>", fake_image_token="<fake_token_around_image>", global_image_token="<global-img>", **tiles
    )
    return processor_class(image_processor, tokenizer, image_seq_len=36)


def idefics3_model(processor: Any, model_class: Any, config_class: Any) -> Tiny:
    config = config_class(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 48,
            "patch_size": 4,
        },
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(processor.tokenizer)},
        scale_factor=2,
        image_token_id=processor.image_token_id,
    )
    return Tiny(tiny_model(model_class, config), processor, processor.image_token_id, "<image>")


@case("idefics3")
def idefics3() -> Tiny:
    image_processor = hf.Idefics3ImageProcessorPil(size={"longest_edge": 144}, max_image_size={"longest_edge": 48})
    processor = idefics3_parts(image_processor, hf.Idefics3Processor)
    return idefics3_model(processor, hf.Idefics3ForConditionalGeneration, hf.Idefics3Config)


@case("smolvlm")
def smolvlm() -> Tiny:
    image_processor = hf.SmolVLMImageProcessorPil(size={"longest_edge": 144}, max_image_size={"longest_edge": 48})
    # The processor wants num2words, with which it writes the number of video frames.
    with mock.patch("transformers.models.smolvlm.processing_smolvlm.num2words", str):
        processor = idefics3_parts(image_processor, partial(without(hf.SmolVLMProcessor), video_processor=None))
    processor.video_processor = SimpleNamespace(num_frames=64, fps=1)  # whose settings its chat template's call reads
    return idefics3_model(processor, hf.SmolVLMForConditionalGeneration, hf.SmolVLMConfig)
