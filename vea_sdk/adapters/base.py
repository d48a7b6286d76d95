"""What differs between architectures, behind one class: attention modules, image token positions,
geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vea_sdk.adapters.call import AttentionCall
from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.geometry import ImageLayout, check_size
from vea_sdk.adapters.modules import attention_of, decoder_layers, decoder_of, unwrap
from vea_sdk.adapters.prompting import Pictures
from vea_sdk.errors import GeometryError, ImageTokenError, InvalidInputError, UnsupportedModelError


class Adapter:
    """One architecture's facts. The base class serves any decoder whose blocks hold one attention module.

    For a model of your own, override what differs: ``attention_modules`` and ``image_positions`` for capture,
    ``returned_weights`` or ``attention_call`` where attention is hidden, ``lay_out`` for maps on the picture; name
    the ``config.model_type`` values in ``model_types`` and call ``vea_sdk.adapters.register``.
    """

    model_types: ClassVar[tuple[str, ...]] = ()

    cross_attention: ClassVar[bool] = False
    """Whether the image tokens are keys of cross-attention (see ``CrossAttentionAdapter``), not of the prompt."""

    merged_attention: ClassVar[bool] = False
    """Whether one softmax runs over the decoder's own keys and, after them, the encoder's, which hold the image."""

    decoder_prefix: ClassVar[str] = ""
    """What the model's own forward puts before the names of the decoder's arguments: "decoder_" where it also feeds an
    encoder."""

    prompt_stays: ClassVar[bool] = False
    """Whether sliding layers forget generated tokens only, and the keys of the prompt keep their places."""

    no_question: ClassVar[str] = ""
    """Why the architecture cannot be asked a question, where it cannot."""

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrap(model)
        self.config: Any = getattr(self.model, "config", None)

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return model_type(model) in cls.model_types

    @property
    def name(self) -> str:
        """How error messages call the model."""
        return model_type(self.model) or type(self.model).__name__

    @property
    def decoder(self) -> nn.Module:
        """The module whose forward pass runs the decoder layers: the language model without its head."""
        return decoder_of(self.model)

    @property
    def n_layers(self) -> int:
        """Decoder layers, those without softmax attention included."""
        return len(decoder_layers(self.model))

    def attention_modules(self) -> dict[int, nn.Module]:
        """Layer number → the module that computes softmax attention in that layer of the language model.

        Layers without softmax attention are absent. A module that runs several times in a pass stands there once for
        every run, each a layer of its own, in their order. Raises UnsupportedModelError when no layer has any.
        """
        found = {i: attention_of(block) for i, block in enumerate(decoder_layers(self.model))}
        modules = {i: module for i, module in found.items() if module is not None}
        if not modules:
            raise UnsupportedModelError(
                f"{self.name}: none of its {len(found)} decoder layers holds softmax attention. If they do "
                "under another name, subclass vea_sdk.adapters.Adapter and return them from "
                "attention_modules()."
            )
        return modules

    def returned_weights(self, output: Any) -> Tensor | None:
        """The weights [B, heads, queries, keys] in what an attention module returned, where it computes them itself
        instead of calling an attention function; None where it does not."""
        return None

    def attention_call(self, module: nn.Module, inputs: Mapping[str, Any], output: Any) -> AttentionCall | None:
        """Query and keys of an attention module whose kernel hides them; None where nothing is hidden.

        Asked after the module's forward, and only where no attention function was called. ``inputs``: the named
        arguments of that forward; ``output``: what it returned. The query holds every token of the pass, the keys
        those of the cache, too. ``causal=True`` is for a pass without earlier keys: it lets row i see keys 0 to i.
        """
        return None

    @property
    def image_token_id(self) -> int:
        """The id of the placeholder that image embeddings replace."""
        token_id = getattr(self.config, "image_token_id", None)
        if token_id is None:
            raise ImageTokenError(
                f"{self.name}: the configuration names no image_token_id. Set config.image_token_id, "
                "override image_token_id in an adapter, or pass image_positions=."
            )
        return int(token_id)

    def image_positions(self, input_ids: Tensor) -> Tensor:
        """Key positions of the image tokens, in prompt order.

        ``input_ids``: [B, N]. Returns [B, M] int64 with M the most image tokens in a row; rows with fewer end
        in −1. Raises ImageTokenError when no row holds an image token.
        """
        is_image = self._is_image(input_ids)
        counts = is_image.sum(dim=1, keepdim=True)
        most = int(counts.max())
        if most == 0:
            raise ImageTokenError(
                f"{self.name}: no image token (id {self.image_token_id}) among the {input_ids.shape[1]} "
                "tokens of the prompt. Give the processor a picture, put the image placeholder into the "
                "prompt (a chat template does), or pass image_positions= with inputs_embeds."
            )
        return marked_positions(is_image, most)

    def prompt_positions(self, fed: Mapping[str, Any]) -> Tensor:
        """``image_positions`` of one pass of the decoder, from its named arguments and those of the model."""
        ids = fed.get("input_ids")
        if ids is None:
            raise ImageTokenError(
                "the model was called with embeddings, which do not show where the image tokens are. Give "
                "image_positions=, the key positions [batch, image tokens]."
            )
        return self.image_positions(ids)

    @property
    def encoder_embedding(self) -> nn.Module | None:
        """The module that embeds the prompt's ids, where the decoder does not get them: in an encoder-decoder, and
        where generation feeds embeddings. The ids then are in ``fed["encoder_input_ids"]``."""
        return None

    def vision_positions(self, fed: Mapping[str, Any]) -> Tensor:
        """Key positions of the image tokens where ``cross_attention`` is set; see ``CrossAttentionAdapter``."""
        raise UnsupportedModelError(f"{self.name} does not look at pictures through cross-attention.")

    def layouts(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        """How each picture of the prompt became tokens, in prompt order (row after row in a batch).

        ``inputs``: what the processor returned; ``image_sizes``: (height, width) of the original pictures;
        ``processor``: the processor that made the inputs. Raises GeometryError when the layouts do not
        account for exactly the image tokens that the prompt holds.
        """
        for size in image_sizes:
            check_size("Each of image_sizes", size)
        self.image_positions(inputs["input_ids"])  # raises when there is no image token at all
        layouts = self.lay_out(inputs, [(int(h), int(w)) for h, w in image_sizes], processor)
        self.check_layouts(inputs["input_ids"], layouts)
        return layouts

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        """``layouts`` before the check: the one method of a lineage that knows its image processor."""
        raise GeometryError(
            f"{self.name}: no image geometry is known for this architecture, so attention cannot be laid on "
            "the picture. Subclass vea_sdk.adapters.Adapter and override lay_out()."
        )

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """Model inputs of one turn per row, where there is no chat template: this architecture's own prompt protocol.

        ``pictures``, ``texts``: of each row; ``padding``: what the processor is told where there are several rows.
        Raises UnsupportedModelError where no protocol is known.
        """
        token = getattr(processor, "image_token", None)
        if not isinstance(token, str):
            raise UnsupportedModelError(
                f"{self.name}: how a prompt shows a picture is not known, for this {type(processor).__name__} has "
                "neither a chat template nor an image_token. Set processor.chat_template, override prepare() in an "
                "adapter, or prepare the inputs yourself and use vea.capture()."
            )
        prompts = [token * len(row) + "\n" + text for row, text in zip(pictures, texts, strict=True)]
        try:
            return processor(
                images=[list(row) for row in pictures] if padding else list(pictures[0]),
                text=prompts if padding else prompts[0],
                return_tensors="pt",
                **padding,
            )
        except (ValueError, IndexError, KeyError) as error:
            raise UnsupportedModelError(
                f"{self.name}: its processor has no chat template, and does not take {token!r} before the text for a "
                f"picture ({error}). Set processor.chat_template, or override prepare() in an adapter."
            ) from error

    def prompt_length(self, inputs: Mapping[str, Any]) -> int:
        """How many of the tokens that ``generate()`` returns belong to the prompt; 0 in an encoder-decoder."""
        ids = inputs.get("input_ids")
        return 0 if ids is None or getattr(self.config, "is_encoder_decoder", False) else int(ids.shape[1])

    def canvases(self, layout: ImageLayout, processor: Any) -> list[Canvas]:
        """What ``pixel_values`` hold of a picture, in their order: regions of the original at the processed size.

        Needed by ``highlight_on="tensor"`` only. Right for processors that resize and crop, and then rescale and
        normalise; what is padded must be black and padded after the resize.
        """
        raise UnsupportedModelError(
            f"{self.name}: this adapter does not say which part of the picture each value of pixel_values shows, so "
            'they cannot be highlighted. Use highlight_on="picture", or override canvases() in an adapter.'
        )

    def check_layouts(self, input_ids: Tensor, layouts: Sequence[ImageLayout]) -> None:
        """Raises GeometryError unless the layouts account for the image tokens of every row of
        ``input_ids``."""
        if self.fits(input_ids, layouts):
            return
        found = self._is_image(input_ids).sum(dim=1).tolist()
        raise GeometryError(
            f"{self.name}: the prompt holds {sum(found)} image tokens (by row: {found}), the pictures "
            f"account for {sum(layout.n_tokens for layout in layouts)}: {'; '.join(map(str, layouts))}. Give "
            "the (height, width) of the original pictures in prompt order, and the very processor that made "
            "the inputs; options passed in the call to it (sizes, crops) are unknown here, so set them on "
            "the processor."
        )

    def check_pictures(self, given: int, seen: int) -> None:
        """Raises GeometryError unless sizes were ``given`` for as many pictures as the processor has ``seen``."""
        if given != seen:
            raise GeometryError(
                f"{self.name}: {given} image_sizes were given, but the processor saw {seen} pictures. Give the "
                "(height, width) of every picture, in prompt order."
            )

    def fits(self, input_ids: Tensor, layouts: Sequence[ImageLayout]) -> bool:
        """Whether the pictures' tokens fill the image tokens of every row, no picture crossing into
        another row."""
        found = list(accumulate(self._is_image(input_ids).sum(dim=1).tolist()))
        described = [0, *accumulate(layout.n_tokens for layout in layouts)]
        return found[-1] == described[-1] and set(found) <= set(described)

    def _is_image(self, input_ids: Tensor) -> Tensor:
        if input_ids.ndim != 2:
            raise InvalidInputError(f"input_ids must be [batch, tokens]; got shape {tuple(input_ids.shape)}.")
        return input_ids == self.image_token_id


def marked_positions(marked: Tensor, width: int) -> Tensor:
    """Where the marks [B, N] are, in order: [B, width] int64, −1 where a row has fewer than ``width``."""
    # A stable sort by "is not marked" puts the marked positions first and keeps their order.
    positions = torch.argsort((~marked).to(torch.uint8), dim=1, stable=True)[:, :width]
    rank = torch.arange(width, device=positions.device)
    return torch.where(rank < marked.sum(dim=1, keepdim=True), positions, -1)


def model_type(model: nn.Module) -> str | None:
    """``config.model_type`` of a Transformers model, also inside a wrapper; None for any other model."""
    name = getattr(getattr(unwrap(model), "config", None), "model_type", None)
    return name if isinstance(name, str) else None
