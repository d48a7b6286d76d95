"""GOT-OCR 2.0 and PP-Chart2Table: a SAM tower whose map two strided convolutions shrink to a square of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers as hf
from PIL import Image

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

SIDE, PATCH = 128, 4  # 32 x 32 patches, 8 x 8 tokens
N_TOKENS = (SIDE // PATCH // 4) ** 2
SIZE = {"height": SIDE, "width": SIDE}
MARK = "<img><imgpad></img>"


def got(config_class: Any, processor: Any, tokenizer: Any, mark: str = MARK, **options: Any) -> Tiny:
    config = config_class(
        vision_config={
            "hidden_size": 32,
            "output_channels": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "window_size": 8,
            "global_attn_indexes": [],  # over 1024 patches it would be slow, and geometry runs without attention
            "mlp_dim": 48,
        },
        text_config={key: value for key, value in TEXT.items() if key != "head_dim"}
        | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        image_seq_length=N_TOKENS,
    )
    model = tiny_model(hf.GotOcr2ForConditionalGeneration, config)
    # Two 3 x 3 convolutions of stride 2 and padding 1: the window of a token lies 3/8 of a token up and left.
    return Tiny(model, processor, tokenizer.image_token_id, mark, largest_bias=0.6, **options)


def got_tokenizer() -> Any:
    return byte_tokenizer(
        image_token="<imgpad>", start="<img>", end="</img>", im_start="<|im_start|>", im_end="<|im_end|>"
    )


@case("got_ocr2")
def got_ocr2() -> Tiny:
    tokenizer = got_tokenizer()
    processor = hf.GotOcr2Processor(hf.GotOcr2ImageProcessorPil(size=SIZE), tokenizer)
    return got(hf.GotOcr2Config, processor, tokenizer, make_inputs=got_inputs, chat=False)


def got_inputs(tiny: Tiny, pictures: Sequence[Sequence[Image.Image]], texts: Sequence[str]) -> Any:
    """Nested pictures mean pages to this processor, which stand behind one mark."""
    return tiny.processor(
        images=[list(row) for row in pictures],
        text=[MARK + text for text in texts],
        multi_page=True,
        num_image_tokens=N_TOKENS,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )


@case("pp_chart2table")
def pp_chart2table() -> Tiny:
    """Its processor expands nothing: the prompt holds a placeholder per token, as its chat template writes them."""
    tokenizer = got_tokenizer()
    processor = hf.PPChart2TableProcessor(hf.PPChart2TableImageProcessorPil(size=SIZE), tokenizer)
    return got(hf.PPChart2TableConfig, processor, tokenizer, "<img>" + "<imgpad>" * N_TOKENS + "</img>")
