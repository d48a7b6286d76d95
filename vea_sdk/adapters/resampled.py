"""Architectures whose image tokens are learned queries: each gathers from the whole picture, none has a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.prompting import Pictures, only_pictures, picture_before_text
from vea_sdk.errors import GeometryError, ImageTokenError


class ResampledAdapter(Adapter):
    """Scores are captured as everywhere; there is no grid to lay them on."""

    model_types: ClassVar[tuple[str, ...]] = ("aria", "deepseek_ocr2", "idefics2")

    def layouts(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        raise GeometryError(
            f"{self.name}: its image tokens are learned queries that each gather from the whole picture, so none has a "
            "place on it and there is no map. The scores of the tokens are captured all the same (vea.capture)."
        )


class QFormerAdapter(ResampledAdapter):
    """BLIP-2 and InstructBLIP generate from embeddings; the ids are seen where they are embedded."""

    model_types: ClassVar[tuple[str, ...]] = ("instructblip", "instructblipvideo")

    @property
    def encoder_embedding(self) -> nn.Module:
        model: Any = self.model
        embedding: nn.Module = model.get_input_embeddings()
        return embedding

    @property
    def image_token_id(self) -> int:
        token_id = getattr(self.config, "image_token_id", None)
        return super().image_token_id if token_id is not None else int(self.config.video_token_id)

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """The processor puts the queries' places before the text. The one that takes videos is shown a picture as four
        equal frames, for which its model is made."""
        if hasattr(processor, "video_processor"):
            frames = [4 * [picture] for picture in only_pictures(self.name, pictures)]
            inputs = processor(images=frames, text=list(texts), return_tensors="pt", **padding)
        else:
            inputs = picture_before_text(self.name, processor, pictures, texts, padding)
        if padding:  # the Q-Former reads the texts, too: an encoder, which counts places from the first token
            options = {**padding, "padding_side": "right"}
            read = processor.qformer_tokenizer(list(texts), return_tensors="pt", **options)
            inputs["qformer_input_ids"], inputs["qformer_attention_mask"] = read["input_ids"], read["attention_mask"]
        return inputs

    def prompt_positions(self, fed: Mapping[str, Any]) -> Tensor:
        ids = fed.get("input_ids")
        return super().prompt_positions({"input_ids": fed.get("encoder_input_ids") if ids is None else ids})


class Blip2Adapter(QFormerAdapter):
    """Its Q-Former reads no text."""

    model_types = ("blip-2",)

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """A question as its checkpoints were asked."""
        asked = [f"Question: {text} Answer:" for text in texts]
        return picture_before_text(self.name, processor, pictures, asked, padding)


class KosmosAdapter(ResampledAdapter):
    """The ids at the image's places are arbitrary; the processor returns a mask of them."""

    model_types = ("kosmos-2", "kosmos-2.5")

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """The processor writes the picture's places before the text. Kosmos-2 is asked as it was trained; a text for
        Kosmos-2.5 is one of its tasks, "<ocr>" or "<md>"."""
        asked = [f"Question: {text} Answer:" if self.config.model_type == "kosmos-2" else text for text in texts]
        return picture_before_text(self.name, processor, pictures, asked, padding)

    def prompt_positions(self, fed: Mapping[str, Any]) -> Tensor:
        mask = fed.get("image_embeds_position_mask")
        if mask is None or not (mask == 1).any():
            raise ImageTokenError(
                f"{self.name}: no image_embeds_position_mask came with the prompt, so where the image tokens are is "
                "not known. Pass what the processor returned."
            )
        rows = [(row == 1).nonzero().flatten() for row in mask]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
