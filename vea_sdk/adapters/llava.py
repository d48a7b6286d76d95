"""LLaVA-1.5: one square picture, one token per patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import check_canvas, image_option, size_option
from vea_sdk.errors import GeometryError


class LlavaAdapter(Adapter):
    """The shorter side is resized and the middle cut out (CLIP's processor), or the picture is padded to a
    square first (LLaVA's own processor with ``do_pad``). With the feature strategy "full" the vision
    tower's class token comes first; it stands for no pixel."""

    model_types = ("llava",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        extra_tokens = processor.num_additional_image_tokens
        if processor.vision_feature_select_strategy == "default":
            extra_tokens -= 1  # "default" drops the vision tower's first token, which is the class token
        layouts = []
        for size in image_sizes:
            canvas = llava_canvas(size, processor)
            check_canvas(self.name, canvas, inputs)
            patches = canvas.patches(processor.patch_size, processor.patch_size, first_token=extra_tokens)
            n_tokens = patches.token_index.size + extra_tokens
            layouts.append(ImageLayout(size, canvas.size, canvas.region, n_tokens, (patches,)))
        return layouts

    def canvases(self, layout: ImageLayout, processor: Any) -> list[Canvas]:
        if _pads_first(processor):
            raise GeometryError(
                f"{self.name}: its processor pads the picture before it resizes, which mixes both at the edge. Use "
                'highlight_on="picture".'
            )
        return [Canvas(layout.input_region, layout.input_size)]


def _pads_first(processor: Any) -> bool:
    """Only LLaVA's own image processor does."""
    return bool(image_option(processor, "do_pad")) and hasattr(processor.image_processor, "pad_to_square")


def llava_canvas(original_size: tuple[int, int], processor: Any) -> Canvas:
    canvas = Canvas.of(original_size)
    if _pads_first(processor):
        canvas = canvas.padded_to_square()
    if image_option(processor, "do_resize"):
        canvas = canvas.resized_to(size_option(processor, "size"))
    if image_option(processor, "do_center_crop"):
        crop = size_option(processor, "crop_size")
        canvas = canvas.center_cropped(crop["height"], crop["width"])
    return canvas
