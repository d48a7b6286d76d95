"""GOT-OCR 2: a square picture, its tokens between two marks before the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.prompting import Pictures, picture_before_text

# The conversation that its processor writes for its own tasks, of which a text is "OCR: ".
_PROMPT = (
    "{0.message_start_token}{0.system_query}{0.message_end_token}"
    "{0.message_start_token}user\n{0.img_start_token}{0.image_token}{0.img_end_token}\n{1}{0.message_end_token}"
    "{0.message_start_token}assistant\n"
)


class GotOcr2Adapter(GenericAdapter):
    """One raster of tokens; nested pictures would be pages of one document to its processor."""

    model_types = ("got_ocr2",)

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        prompts = [_PROMPT.format(processor, text) for text in texts]
        tokens = int(self.config.image_seq_length)
        return picture_before_text(self.name, processor, pictures, prompts, padding, num_image_tokens=tokens)
