"""Pictures and prompts → what a model is fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.fused import highlight_tensor
from vea_sdk.evidence.images import ImageSource, load_image

Images = ImageSource | Sequence[ImageSource]


def is_single(image: object) -> bool:
    """Whether this is one picture, not a sequence of them."""
    return not isinstance(image, Sequence) or isinstance(image, str)


def load_pictures(image: Images, max_pixels: int) -> list[Image.Image]:
    """The pictures of one question, RGB and upright."""
    sources: Sequence[ImageSource] = [image] if is_single(image) else image  # type: ignore[assignment, list-item]
    if not sources:
        raise InvalidInputError("no picture was given; pass at least one.")
    return [load_image(source, max_pixels=max_pixels) for source in sources]


def one_each(
    images: Sequence[ImageSource], texts: Sequence[str], what: str, max_pixels: int
) -> list[list[Image.Image]]:
    """The pictures of a batch, one to each of ``texts``, which errors call ``what``."""
    if len(images) != len(texts):
        raise InvalidInputError(f"{len(images)} pictures and {len(texts)} {what}: give one to each picture.")
    return [load_pictures(image, max_pixels) for image in images]


def model_inputs(
    model: nn.Module,
    processor: Any,
    pictures: Sequence[Sequence[Image.Image]],
    prompts: Sequence[str],
    gains: Sequence[Sequence[Tensor]] | None = None,
) -> Any:
    """Model inputs of one user turn per row, on the model's device and in its dtype.

    Args:
        model: whose device and dtype they get.
        processor: its processor.
        pictures: of each row.
        prompts: of each row; several are padded on the left.
        gains: what to multiply ``pixel_values`` by, see :func:`vea_sdk.evidence.fused.highlight_tensor`.

    Raises:
        Inexact: when multiplying them is not the same as highlighting the pictures.
    """
    padding: dict[str, Any] = {"padding": True, "padding_side": "left"} if len(prompts) > 1 else {}
    prepare = _from_chat_template if _has_chat_template(processor) else _from_plain_text
    inputs = prepare(processor, pictures, prompts, padding)
    device = entry_device(model)
    if gains is not None:  # before the model's dtype rounds the pixels
        inputs["pixel_values"] = highlight_tensor(inputs["pixel_values"].to(device), gains, processor)
    return inputs.to(device, dtype=next(model.parameters()).dtype)


def entry_device(model: nn.Module) -> torch.device:
    """Where inputs go: beside the first weights. Offloaded ones rest on meta; their hooks know where they compute."""
    for parameter in model.parameters():
        if parameter.device.type != "meta":
            return parameter.device
    hooks = (getattr(getattr(module, "_hf_hook", None), "execution_device", None) for module in model.modules())
    return torch.device(next((device for device in hooks if device is not None), "cpu"))


def _from_chat_template(
    processor: Any, pictures: Sequence[Sequence[Image.Image]], prompts: Sequence[str], padding: dict[str, Any]
) -> Any:
    turns = []
    for row, prompt in zip(pictures, prompts, strict=True):
        shown = [{"type": "image", "image": picture} for picture in row]
        turns.append([{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}])
    return processor.apply_chat_template(
        turns if padding else turns[0],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **({"processor_kwargs": padding} if padding else {}),
    )


def _from_plain_text(
    processor: Any, pictures: Sequence[Sequence[Image.Image]], prompts: Sequence[str], padding: dict[str, Any]
) -> Any:
    rows = zip(pictures, prompts, strict=True)
    texts = [processor.image_token * len(row) + "\n" + prompt for row, prompt in rows]
    return processor(
        images=[list(row) for row in pictures] if padding else list(pictures[0]),
        text=texts if padding else texts[0],
        return_tensors="pt",
        **padding,
    )


def _has_chat_template(processor: Any) -> bool:
    tokenizer = getattr(processor, "tokenizer", None)
    return bool(getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None))
