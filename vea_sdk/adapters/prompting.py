"""Prompts of architectures without a chat template: their processors put the picture in its place themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vea_sdk.errors import InvalidInputError

if TYPE_CHECKING:
    from PIL import Image

Pictures = Sequence[Sequence["Image.Image"]]


def picture_before_text(
    name: str, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any], **options: Any
) -> Any:
    """Model inputs of one picture and one text per row, which the processor puts together."""
    return processor(images=only_pictures(name, pictures), text=list(texts), return_tensors="pt", **padding, **options)


def only_pictures(name: str, pictures: Pictures) -> list[Image.Image]:
    """The picture of each row. Raises InvalidInputError where a row has several."""
    most = max(len(row) for row in pictures)
    if most > 1:
        raise InvalidInputError(f"{name}: {most} pictures were given; this architecture takes one per prompt.")
    return [picture for row in pictures for picture in row]
