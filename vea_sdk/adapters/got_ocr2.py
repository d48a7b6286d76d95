"""GOT-OCR 2: a square picture, its tokens between two marks before the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.prompting import Pictures, picture_before_text

_PICTURE = "<img><imgpad></img>\n"  # one placeholder, which the processor repeats


class GotOcr2Adapter(GenericAdapter):
    """One raster of tokens; nested pictures would be pages of one document to its processor."""

    model_types = ("got_ocr2",)

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        prompts = [_PICTURE + text for text in texts]
        tokens = int(self.config.image_seq_length)
        return picture_before_text(self.name, processor, pictures, prompts, padding, num_image_tokens=tokens)
