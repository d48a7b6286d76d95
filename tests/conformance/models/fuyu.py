"""Fuyu: pixels of a patch go straight into the decoder, each row ends with a token that is no placeholder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers as hf
from PIL import Image
from tokenizers import models, normalizers, pre_tokenizers

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

PATCH = 8


@case("fuyu")
def fuyu() -> Tiny:
    tokenizer = fuyu_tokenizer()
    patch = {"height": PATCH, "width": PATCH}
    # Its processor on Pillow hands out tensors and then expects arrays, in Transformers 5.23.
    image_processor = hf.FuyuImageProcessor(size={"height": 96, "width": 112}, patch_size=patch)
    processor = hf.FuyuProcessor(image_processor, tokenizer)
    config = hf.FuyuConfig(
        text_config={key: value for key, value in TEXT.items() if key not in ("head_dim", "num_key_value_heads")}
        | {"model_type": "persimmon", "vocab_size": len(tokenizer)},
        patch_size=PATCH,
        image_token_id=processor.image_token_id,
    )
    model = tiny_model(hf.FuyuForCausalLM, config)
    # Its processor takes one picture per prompt and places it before the text.
    return Tiny(model, processor, processor.image_token_id, several=False, make_inputs=fuyu_inputs)


def fuyu_inputs(tiny: Tiny, pictures: Sequence[Sequence[Image.Image]], texts: Sequence[str]) -> Any:
    """The processor pads on the left by itself."""
    return tiny.processor(images=[list(row) for row in pictures], text=list(texts), return_legacy_image_output=False)


def fuyu_tokenizer() -> Any:
    """The processor cuts off the first token of a prompt: the mark that sentencepiece puts before a text. It comes
    before words only, so the image tokens have to be words too."""
    tokenizer = byte_tokenizer()
    words = ("|SPEAKER|", "|NEWLINE|")
    vocabulary = tokenizer.get_vocab() | {word: len(tokenizer) + i for i, word in enumerate(words)}
    backend = tokenizer.backend_tokenizer
    backend.model = models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", ignore_merges=True)
    backend.normalizer = normalizers.Prepend("_")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*(pre_tokenizers.Split(word, "isolated") for word in words), backend.pre_tokenizer]
    )
    return tokenizer
