"""Pictures and conversations → what a model is fed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vea_sdk.adapters import Adapter
from vea_sdk.errors import InvalidInputError, UnsupportedModelError
from vea_sdk.evidence.fused import highlight_tensor
from vea_sdk.evidence.images import ImageSource, is_single, load_image
from vea_sdk.pipeline.conversation import Conversation
from vea_sdk.pipeline.videos import finish, video_options, with_frames
from vea_sdk.prompts import shortened

Images = ImageSource | Sequence[ImageSource]

_AS_TEXT = "sanitize_control_tokens"


def load_pictures(image: Images, max_pixels: int, fetch: bool = False) -> list[Image.Image]:
    """The pictures of one question, RGB and upright."""
    sources: Sequence[ImageSource] = [image] if is_single(image) else image  # type: ignore[assignment, list-item]
    if not sources:
        raise InvalidInputError("no picture was given; pass at least one.")
    return [load_image(source, max_pixels=max_pixels, fetch=fetch) for source in sources]


def one_each(
    images: Sequence[Images], texts: Sequence[str], what: str, max_pixels: int, fetch: bool = False
) -> list[list[Image.Image]]:
    """The pictures of a batch, one item to each of ``texts``, which errors call ``what``."""
    if isinstance(texts, str) or len(images) != len(texts):
        given = 1 if isinstance(texts, str) else len(texts)
        raise InvalidInputError(f"{len(images)} pictures and {given} {what}: give a list with one to each picture.")
    return [load_pictures(image, max_pixels, fetch) for image in images]


def model_inputs(
    model: nn.Module,
    processor: Any,
    adapter: Adapter | None,
    conversations: Sequence[Conversation],
    gains: Sequence[Sequence[Tensor]] | None = None,
) -> Any:
    """Model inputs of a conversation per row, on the model's device and in its dtype.

    Args:
        model: whose device and dtype they get.
        processor: its processor.
        adapter: what is known of the model; without a chat template, it knows how the model is prompted.
        conversations: of each row; several are padded on the left.
        gains: what to multiply ``pixel_values`` by, see :func:`vea_sdk.evidence.fused.highlight_tensor`.

    Raises:
        InvalidInputError: a text holds a placeholder of pictures, and this tokenizer cannot take it for text.
        UnsupportedModelError: several turns without a chat template.
        Inexact: when multiplying them is not the same as highlighting the pictures.
    """
    if adapter is not None and adapter.no_question:
        raise UnsupportedModelError(
            f"{adapter.name} cannot be asked a question: {adapter.no_question}. Prepare the picture with its processor "
            "and run model.generate() inside vea.capture(); session.evidence() then shows where it looked."
        )
    template = chat_template(processor)
    padding: dict[str, Any] = {"padding": True, "padding_side": "left"} if len(conversations) > 1 else {}
    found = check_placeholders(processor, adapter, [text for one in conversations for text in one.texts])
    if template is None:
        inputs = _from_plain_text(processor, adapter, conversations, padding)
    else:
        inputs = _from_chat_template(processor, template, conversations, padding, found)
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


def chat_template(processor: Any) -> str | None:
    """The processor's chat template, else its tokenizer's; of several the one called "default".

    Raises InvalidInputError where there are several and none is called so.
    """
    for owner in (processor, getattr(processor, "tokenizer", None)):
        template = getattr(owner, "chat_template", None)
        if isinstance(template, Mapping) and template:
            if len(template) > 1 and "default" not in template:
                raise InvalidInputError(
                    f'the {type(owner).__name__} has {len(template)} chat templates and none called "default": '
                    f"{', '.join(template)}. Set its chat_template to one of them."
                )
            return str(template.get("default", next(iter(template.values()))))
        if template:
            return str(template)
    return None


def _from_chat_template(
    processor: Any,
    template: str,
    conversations: Sequence[Conversation],
    padding: dict[str, Any],
    placeholders: Sequence[str],
) -> Any:
    # The template's rendering may take parts out of the turns it is given.
    videos = [video for conversation in conversations for video in conversation.videos]
    turns = [with_frames(conversation.messages) for conversation in conversations]
    told = padding | (video_options(processor, videos) if videos else {})
    options: dict[str, Any] = {"processor_kwargs": told} if told else {}
    if placeholders:
        options[_AS_TEXT] = True
    try:
        inputs = processor.apply_chat_template(
            turns if padding else turns[0],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **options,
        )
    except (ValueError, IndexError, NotImplementedError, RuntimeError) as error:
        if not placeholders:
            raise
        raise _placeholder_error(placeholders) from error
    if videos:
        finish(inputs, processor, videos)
    return inputs


def _from_plain_text(
    processor: Any, adapter: Adapter | None, conversations: Sequence[Conversation], padding: dict[str, Any]
) -> Any:
    longest = max(len(conversation.messages) for conversation in conversations)
    if longest > 1:
        raise UnsupportedModelError(
            f"{longest} messages need a chat template, and neither this {type(processor).__name__} nor its tokenizer "
            "has one. Set processor.chat_template, or ask in a single turn."
        )
    if any(conversation.videos for conversation in conversations):
        raise UnsupportedModelError(
            f"a video needs a chat template, which says where it stands in a prompt, and neither this "
            f"{type(processor).__name__} nor its tokenizer has one. Set processor.chat_template."
        )
    pictures = [conversation.pictures for conversation in conversations]
    texts = [conversation.text for conversation in conversations]
    if adapter is None:
        raise UnsupportedModelError(
            f"this {type(processor).__name__} has no chat template, and no adapter knows how its model is prompted. "
            "Set processor.chat_template, or pass adapter=."
        )
    return adapter.prepare(processor, pictures, texts, padding)


def check_placeholders(processor: Any, adapter: Adapter | None, texts: Sequence[str]) -> list[str]:
    """The placeholders of pictures and videos in the texts, by which a processor would take a text for a picture.

    Raises InvalidInputError where there is one, and this tokenizer cannot take it for text.
    """
    names = {getattr(processor, f"{kind}_token", None) for kind in ("image", "video", "boi", "eoi")}
    tokenizer = getattr(processor, "tokenizer", processor)
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        config = getattr(adapter, "config", None)
        ids = [getattr(config, f"{kind}_token_id", None) for kind in ("image", "video")]
        names |= {tokenizer.convert_ids_to_tokens(number) for number in ids if isinstance(number, int)}
    found = [name for name in sorted(map(str, filter(None, names))) if any(name in text for text in texts)]
    if found and (chat_template(processor) is None or not _takes_text(processor)):
        raise _placeholder_error(found)
    return found


def _takes_text(processor: Any) -> bool:
    """Whether this Transformers can keep a user's text from being read as control tokens."""
    return _AS_TEXT in inspect.signature(processor.apply_chat_template).parameters


def _placeholder_error(found: Sequence[str]) -> InvalidInputError:
    return InvalidInputError(
        f"the text holds {shortened(found[0])}, by which this model's prompts mark the place of a picture or video, "
        "and its tokenizer cannot take it for text. Leave it out of the question: pictures are given as image= or as "
        "parts of messages=."
    )
