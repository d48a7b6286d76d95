"""Geometry of video by perturbation: repaint one region of one frame, run the real video processor and the vision path,
and see which tokens move. They must be those of the step that shows the frame, and lie where the region is; no other
step's token may move.

The rest is as with pictures, see geometry.py: attention in the vision tower is silenced, all else is the real thing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers as hf
from PIL import Image

from tests.conformance.capture import CaptureResult, Mismatch, compare
from tests.conformance.geometry import (
    SILENT,
    GeometryResult,
    backdrop,
    check_grid,
    decoder_arguments,
    random_regions,
    repainted,
    silenced,
)
from tests.conformance.tiny import CASES, Tiny
from vea_sdk import adapters
from vea_sdk.adapters import VideoLayout

FRAMES = 5  # an odd number: where two frames share a token, the last one stands alone
SIZES = ((60, 100), (101, 67))
CLOCK = 1000  # frames are told to lie at milliseconds

CLIP = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
SQUARE = {"size": {"height": 48, "width": 48}}
PATCHES = {"patch_size": 4, "merge_size": 2}
AREA = {"size": {"shortest_edge": 32**2, "longest_edge": 6 * 96**2}}
AREA_OF_PATCHES = PATCHES | AREA | {"temporal_patch_size": 2}
POOLED = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
NEMOTRON = {"patch_size": 4, "video_target_num_patches": 144, "norm_mean": [0.5] * 3, "norm_std": [0.5] * 3}
UNWRITTEN = AREA_OF_PATCHES | {"draw_on_frames": False}  # the time is written on a frame with a checkpoint's font
LONGEST = {"size": {"longest_edge": 144}, "max_image_size": {"longest_edge": 48}}
QWEN2 = ("Qwen2VLVideoProcessor", AREA_OF_PATCHES)
QWEN3 = ("Qwen3VLVideoProcessor", AREA_OF_PATCHES)


@dataclass(frozen=True)
class VideoCase:
    """What a tiny model needs to be shown a video: its video processor, and what stands for a video in a prompt."""

    mark: str
    part: tuple[str, dict[str, Any]] | None  # class of the video processor and its settings; None where it has one
    frames: int = FRAMES
    call: dict[str, Any] = field(default_factory=dict)  # further options of the call: some processors have their own


VISION = "<|vision_start|><|video_pad|><|vision_end|>"
GLM = "<|begin_of_video|><|video|><|end_of_video|>"

VIDEO_CASES: dict[str, VideoCase] = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "exaone4_5", "hyperclovax_vision_v2"), VideoCase(VISION, QWEN2)),
    **dict.fromkeys(("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"), VideoCase(VISION, QWEN2, call=AREA)),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen4_exp"), VideoCase(VISION, QWEN3)),
    **dict.fromkeys(("cosmos3_omni", "lfm3_vl"), VideoCase(VISION, QWEN3)),
    "dots3_note": VideoCase(VISION, ("Qwen3VLVideoProcessor", AREA_OF_PATCHES | {"temporal_patch_size": 1})),
    **dict.fromkeys(("glm4v", "glm4v_moe"), VideoCase(GLM, ("Glm4vVideoProcessor", AREA_OF_PATCHES))),
    **dict.fromkeys(("glm46v", "glm_ocr"), VideoCase(GLM, ("Glm46VVideoProcessor", AREA_OF_PATCHES))),
    "glmga": VideoCase(GLM, ("GlmgaVideoProcessor", AREA_OF_PATCHES)),
    "glm5_next": VideoCase(GLM, ("Glm5NextVideoProcessor", PATCHES | {"temporal_patch_size": 2})),
    "cohere_compass": VideoCase(VISION.upper(), ("CohereCompassVideoProcessor", AREA_OF_PATCHES)),
    "cosmos3_edge": VideoCase(VISION, ("Cosmos3EdgeVideoProcessor", AREA_OF_PATCHES | {"temporal_patch_size": 1})),
    "ernie4_5_vl_moe": VideoCase(
        "<|video_start|><|video|><|video_end|>", ("Ernie4_5_VLMoeVideoProcessor", UNWRITTEN), frames=4
    ),
    "gemma4": VideoCase("<|video|>", ("Gemma4VideoProcessor", POOLED)),
    "gemma4_unified": VideoCase("<|video|>", ("Gemma4UnifiedVideoProcessor", POOLED)),
    "hy_v4_vl": VideoCase("<|video_pad|>", ("HYV4VLVideoProcessor", AREA_OF_PATCHES | {"temporal_patch_size": 1})),
    "internvl": VideoCase("<video>\n", ("InternVLVideoProcessor", SQUARE)),
    "kimi_k25": VideoCase("<|video_pad|>", ("Kimi_K25VideoProcessor", PATCHES | {"temporal_patch_size": 4})),
    "llava_next_video": VideoCase("<video>", ("LlavaNextVideoVideoProcessor", CLIP)),
    "llava_onevision": VideoCase("<video>", ("LlavaOnevisionVideoProcessor", SQUARE)),
    "minicpm_ocr": VideoCase("<|video_pad|>", None),
    "minicpmv4_6": VideoCase("<|video_pad|>", None),
    "minicpmv4_7": VideoCase("<|video_pad|>", None),
    "minimax_m3_vl": VideoCase(
        "]<]video[>[", ("MiniMaxM3VLVideoProcessor", PATCHES | {"temporal_patch_size": 2}), call={"do_resize": True}
    ),
    "molmo2": VideoCase("<|video|>", ("Molmo2VideoProcessor", {"size": {"height": 52, "width": 52}, "patch_size": 4})),
    "muse_glimmer": VideoCase("<|video|>", ("MuseGlimmerVideoProcessor", PATCHES | {"temporal_patch_size": 2})),
    "muse_spark": VideoCase("<|video|>", ("MuseGlimmerVideoProcessor", PATCHES | {"temporal_patch_size": 2})),
    "nemotron_h_omni": VideoCase("<video>", ("NemotronH_Omni_Reasoning_V3VideoProcessor", NEMOTRON)),
    "perception_lm": VideoCase("<|video|>", ("PerceptionLMVideoProcessor", SQUARE)),
    "smolvlm": VideoCase("<video>", ("SmolVLMVideoProcessor", LONGEST)),
    "video_llama_3": VideoCase(VISION, ("VideoLlama3VideoProcessor", AREA_OF_PATCHES | {"temporal_patch_size": 1})),
    "video_llava": VideoCase("<video>", ("VideoLlavaVideoProcessor", CLIP)),
}


NO_GEOMETRY = {
    "instructblipvideo": "none: resampled",
}
"""Why tokens of frames have no place in architectures whose processors take videos."""


def video_case(model_type: str) -> Tiny:
    """The tiny model with a processor that takes videos; its mark stands for one."""
    case = VIDEO_CASES[model_type]
    tiny = CASES[model_type]()
    processor = copy.copy(tiny.processor)  # tiny models are shared
    if case.part is not None:
        name, options = case.part
        processor.video_processor = getattr(hf, name)(**options)
    ids = [tiny.image_token_id, processor.tokenizer.convert_tokens_to_ids(processor.video_token)]

    def keys(inputs: Any) -> torch.Tensor:
        """Where the tokens of frames are, by the tokenizer: some bear the image's id."""
        (row,) = inputs["input_ids"]
        return torch.isin(row, torch.tensor(ids)).nonzero().T

    return replace(tiny, processor=processor, image_mark=case.mark, image_keys=keys)


def metadata(n_frames: int) -> dict[str, Any]:
    """A frame every half second, on a clock of milliseconds."""
    step = CLOCK // 2
    return {
        "total_num_frames": n_frames * step,
        "fps": float(CLOCK),
        "frames_indices": [step * i for i in range(n_frames)],
        "duration": n_frames * step / CLOCK,
    }


def video_inputs(tiny: Tiny, frames: Sequence[Image.Image], **options: Any) -> Any:
    inputs = tiny.processor(
        text=[tiny.image_mark + "?"],
        videos=[[*frames]],
        video_metadata=[metadata(len(frames))],
        do_sample_frames=False,
        return_metadata=True,  # some write the time of a frame only where they are asked to return it
        return_tensors="pt",
        **options,
    )
    inputs.pop("video_metadata", None)
    return inputs


def check_video(model_type: str) -> GeometryResult:
    """Raises Mismatch where rows over a video's tokens differ from an oracle (prompt and decode steps, as with
    pictures), or where the tokens do not move as its layout claims."""
    case, tiny, result = VIDEO_CASES[model_type], video_case(model_type), GeometryResult()
    with mock.patch("transformers.models.smolvlm.processing_smolvlm.num2words", str):  # a package of its own
        clip = [backdrop(SIZES[0], seed) for seed in range(case.frames)]
        compare("a video", tiny, video_inputs(tiny, clip, **case.call), CaptureResult())
        for size in SIZES:
            check_frames(case, tiny, size, result)
    return result


def check_frames(case: VideoCase, tiny: Tiny, size: tuple[int, int], result: GeometryResult) -> None:
    n_frames = case.frames
    video = [backdrop(size, seed) for seed in range(n_frames)]
    regions = random_regions(size)
    painted = [
        [repainted(frame, region) if i == n % n_frames else frame for i, frame in enumerate(video)]
        for n, region in enumerate(regions)
    ]
    inputs = [video_inputs(tiny, frames, **case.call) for frames in (video, *painted)]
    adapter = adapters.find(tiny.model)
    (layout,) = adapter.video_layouts(inputs[0], [(n_frames, size)], tiny.processor)
    tokens = torch.cat([video_tokens(tiny, one) for one in inputs]).double().numpy()
    moved = np.linalg.norm(tokens[1:] - tokens[:1], axis=-1)
    check_steps(f"{n_frames} frames of {size[0]}x{size[1]}", tiny, layout, moved, regions, result)


def check_steps(
    where: str, tiny: Tiny, layout: VideoLayout, moved: np.ndarray, regions: np.ndarray, result: GeometryResult
) -> None:
    """The moved tokens lie in the step of the repainted frame; within it, as with pictures."""
    n_frames = layout.frames[-1][-1] + 1
    rows = np.zeros((len(regions), layout.steps[0].n_tokens))
    for step, first, frames in zip(layout.steps, layout.first_tokens, layout.frames, strict=True):
        own = np.isin(np.arange(len(regions)) % n_frames, frames)
        inside = np.zeros(moved.shape[1], dtype=bool)
        inside[first : first + step.n_tokens] = True
        largest = moved[own][:, inside].max(axis=1)
        if largest.min() < 1e-4:
            raise Mismatch(f"{where}: no token moves in the step of frames {frames}")
        if (moved[own][:, ~inside].max(axis=1, initial=0) > SILENT * largest).any():
            raise Mismatch(f"{where}: a token outside the step of frames {frames} moves")
        rows[own] = moved[own][:, inside]
    shown = layout.steps[0]
    separators = np.isnan(shown.token_boxes()).any(axis=1)
    if rows[:, separators].max(initial=0) > SILENT * rows.max():
        raise Mismatch(f"{where}: a separator moves")
    for grid in shown.grids:
        check_grid(where, grid, rows, regions, tiny.largest_bias, result)
    result.grids.append(str(layout))


def video_tokens(tiny: Tiny, inputs: Any) -> torch.Tensor:
    """What the decoder receives for the video's tokens, [1, M, hidden], with the tower's attention silenced."""
    with silenced(tiny), torch.no_grad():
        embeddings = decoder_arguments(tiny.model, inputs)["inputs_embeds"]
    keys = adapters.find(tiny.model).video_positions(inputs["input_ids"])
    return embeddings[torch.arange(len(keys))[:, None], keys]
