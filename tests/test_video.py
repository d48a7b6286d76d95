"""From frames to evidence: a video's rows are eager attention's, its steps lie where they are, shares and scales are
what they say."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vea_sdk as vea
from tests.conformance import suite
from tests.conformance.tiny import Tiny
from vea_sdk import adapters
from vea_sdk.adapters import ImageLayout, PatchGrid, VideoLayout
from vea_sdk.capture.evidence import Rows
from vea_sdk.capture.video import video_evidence_of
from vea_sdk.errors import GeometryError, ImageTokenError, InvalidInputError, UnsupportedModelError
from vea_sdk.evidence import Evidence, Video, VideoEvidence, load_video, look_map
from vea_sdk.pipeline.conversation import from_messages

pytest.importorskip("torchvision", reason="Transformers' video processors need torchvision")

SIZE = (60, 100)
SECONDS = (0.0, 0.4, 1.0, 2.5, 4.0)
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl")

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def video(n_frames: int = 5) -> Video:
    return load_video([picture(seed) for seed in range(n_frames)], seconds=SECONDS[:n_frames])


def family(name: str) -> Tiny:
    """The tiny model of a family, its processor with a video processor and a chat template."""
    from tests.conformance.video import video_case

    suite.architectures()
    tiny = video_case(name)
    processor = copy.copy(tiny.processor)
    mark = suite.CASES[name]().image_mark
    processor.chat_template = TEMPLATE.replace("IMAGE", mark).replace("VIDEO", tiny.image_mark)
    return replace(tiny, processor=processor)


def asked(*parts: Any, text: str = "what happens?") -> list[dict[str, Any]]:
    content = [{"type": "video" if isinstance(part, Video) else "image", _key(part): part} for part in parts]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def _key(part: Any) -> str:
    return "video" if isinstance(part, Video) else "image"


def video_inputs(model: Any, processor: Any, conversations: list[list[dict[str, Any]]]) -> Any:
    """What a wrapped model is fed; pictures and videos are loaded already."""
    loaded = [from_messages(messages, lambda kind, source: source) for messages in conversations]
    return vea.wrap(model, processor, layers="all").inputs(loaded)


def eager(model: Any, inputs: Any) -> torch.Tensor:
    """[layers, batch, keys] of the last token, the mean over heads, from Transformers' own eager attention."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            weights = model(**inputs, use_cache=False, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    return torch.stack([layer[:, :, -1].float().mean(1) for layer in weights])


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_a_video_are_eager_attention(name: str) -> None:
    tiny, shown = family(name), video()
    inputs = video_inputs(tiny.model, tiny.processor, [asked(shown)])
    with torch.no_grad(), vea.capture(tiny.model, layers="all") as session:
        tiny.model(**inputs, use_cache=False)
    adapter = adapters.find(tiny.model)
    (layout,) = adapter.video_layouts(inputs, [shown.size], tiny.processor)
    evidence = video_evidence_of(session, layout, shown, "what happens?")

    row = eager(tiny.model, inputs)[:, 0]
    config = tiny.model.config
    own = getattr(config, "video_token_id", None)
    marked = inputs["input_ids"][0] == (config.image_token_id if own is None else own)
    truth = row[:, marked].mean(0).numpy()
    scores = np.concatenate([step.scores for step in evidence])
    assert len(truth) == layout.n_tokens
    np.testing.assert_allclose(scores, truth[: len(scores)], atol=2e-6)

    together = 2 if name.startswith("qwen") else 1
    assert [frames[0] for frames in layout.frames] == list(range(0, 5, together))
    assert evidence.seconds == SECONDS[::together]
    shares = [share for _, share in evidence.frames]
    spans = zip(layout.first_tokens, layout.steps, strict=True)
    sums = [float(truth[first : first + step.n_tokens].sum()) for first, step in spans]
    np.testing.assert_allclose(shares, np.array(sums) / sum(sums), atol=1e-5)
    assert sum(shares) == pytest.approx(1)
    assert [step.image for step in evidence] == [shown.frames[frames[0]] for frames in layout.frames]


@pytest.mark.parametrize("name", ["qwen3_vl"])
def test_times_are_told_to_the_model(name: str) -> None:
    """Qwen3-VL writes the mean time of the frames of a step, to a tenth of a second."""
    tiny, shown = family(name), video()
    inputs = video_inputs(tiny.model, tiny.processor, [asked(shown)])
    prompt = tiny.processor.tokenizer.decode(inputs["input_ids"][0])
    steps = [(SECONDS[0] + SECONDS[1]) / 2, (SECONDS[2] + SECONDS[3]) / 2, SECONDS[4]]
    for second in steps:
        assert f"<{second:.1f} seconds>" in prompt
    assert "video_metadata" not in inputs


@pytest.mark.parametrize(
    ("name", "field"), [("qwen2_5_vl", "second_per_grid_ts"), ("qwen2_5_omni_thinker", "video_second_per_grid")]
)
def test_the_length_of_a_step_is_told_to_the_model(name: str, field: str) -> None:
    tiny = family(name)
    clip = load_video([picture(seed) for seed in range(4)], fps=5)
    inputs = video_inputs(tiny.model, tiny.processor, [asked(clip)])
    assert inputs[field].tolist() == pytest.approx([2 / 5])


def test_pictures_and_videos_in_one_prompt() -> None:
    tiny, shown = family("qwen2_5_vl"), video(3)
    before, after = picture(7, (70, 110)), picture(8)
    inputs = video_inputs(tiny.model, tiny.processor, [asked(before, shown, after)])
    adapter, ids = adapters.find(tiny.model), inputs["input_ids"]
    with torch.no_grad(), vea.capture(tiny.model, layers="all") as session:
        tiny.model(**inputs, use_cache=False)
    layouts = adapter.layouts(inputs, [(70, 110), SIZE], tiny.processor)
    (of_video,) = adapter.video_layouts(inputs, [shown.size], tiny.processor)
    first, second = (layout.n_tokens for layout in layouts)
    assert adapter.first_tokens(ids, layouts) == [0, first + of_video.n_tokens]
    assert adapter.first_tokens(ids, [of_video]) == [first]
    assert session.attention.shape[-1] == first + second + of_video.n_tokens

    evidence = video_evidence_of(Rows.of(session), of_video, shown, None, first_token=first)
    truth = eager(tiny.model, inputs)[:, 0, ids[0] == tiny.model.config.video_token_id].mean(0).numpy()
    np.testing.assert_allclose(np.concatenate([step.scores for step in evidence]), truth, atol=2e-6)
    weights = eager(tiny.model, inputs)[:, 0, ids[0] == tiny.model.config.image_token_id].mean(0).numpy()
    pictures = session.evidence([before, after], tiny.processor)
    assert isinstance(pictures, list)
    np.testing.assert_allclose(np.concatenate([one.scores for one in pictures]), weights, atol=2e-6)
    with pytest.raises(GeometryError, match="tokens from 999 on"):
        video_evidence_of(session, of_video, shown, None, first_token=999)
    with pytest.raises(GeometryError, match="is not the video of this layout"):
        video_evidence_of(session, of_video, video(5), None)


def test_a_batch_of_videos() -> None:
    """Of different length, padded on the left: each row as alone."""
    tiny = family("qwen2_5_vl")
    adapter, clips, texts = adapters.find(tiny.model), (video(5), video(2)), ("a", "a longer question?")
    turns = [asked(clip, text=text) for clip, text in zip(clips, texts, strict=True)]

    def looked(conversations: list[list[dict[str, Any]]], shown: tuple[Video, ...]) -> list[VideoEvidence]:
        inputs = video_inputs(tiny.model, tiny.processor, conversations)
        with torch.no_grad(), vea.capture(tiny.model, layers="all") as session:
            tiny.model(**inputs, use_cache=False)
        layouts = adapter.video_layouts(inputs, [clip.size for clip in shown], tiny.processor)
        assert adapter.first_tokens(inputs["input_ids"], layouts) == [0] * len(shown)
        pairs = zip(layouts, shown, strict=True)
        return [video_evidence_of(session, layout, clip, None, row=row) for row, (layout, clip) in enumerate(pairs)]

    for found, turn, clip in zip(looked(turns, clips), turns, clips, strict=True):
        (alone,) = looked([turn], (clip,))
        assert len(found) == len(alone)
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=2e-6)


def test_a_video_that_was_sampled_again_is_no_video_of_this_layout() -> None:
    tiny, shown = family("qwen2_5_vl"), video()
    inputs = video_inputs(tiny.model, tiny.processor, [asked(shown)])
    adapter = adapters.find(tiny.model)
    for size in ((9, SIZE), (1, SIZE)):
        with pytest.raises(GeometryError):
            adapter.video_layouts(inputs, [size], tiny.processor)
    with pytest.raises(GeometryError, match="0 frames"):
        adapter.video_layouts(inputs, [(0, SIZE)], tiny.processor)
    with pytest.raises(ImageTokenError, match="no token of a video"):
        adapter.video_layouts({"input_ids": torch.zeros(1, 4, dtype=torch.int64)}, [shown.size], tiny.processor)
    pictures = suite.CASES["llava"]()
    with pytest.raises(GeometryError, match="has no video processor"):
        adapters.find(pictures.model).video_layouts(
            pictures.inputs([[picture(0)]], ["?"]), [shown.size], pictures.processor
        )
    processor = copy.copy(pictures.processor)
    processor.chat_template = TEMPLATE
    with pytest.raises(UnsupportedModelError, match="takes no videos"):
        video_inputs(pictures.model, processor, [asked(shown)])


@pytest.mark.parametrize("wrong", ["upside down", "a token late"])
def test_the_check_of_the_geometry_can_fail(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conformance.capture import Mismatch
    from tests.conformance.video import check_video

    kind = type(adapters.find(family("llava_onevision").model))
    true = kind.lay_out_videos

    def lay_out(self: Any, *arguments: Any) -> list[VideoLayout]:
        (layout,) = true(self, *arguments)
        if wrong == "a token late":
            return [replace(layout, first_tokens=tuple(first + 1 for first in layout.first_tokens))]
        step = layout.steps[0]
        grid = replace(step.grids[0], token_index=step.grids[0].token_index[::-1])
        return [replace(layout, steps=(replace(step, grids=(grid,)),) * len(layout.steps))]

    check_video("llava_onevision")
    monkeypatch.setattr(kind, "lay_out_videos", lay_out)
    with pytest.raises(Mismatch):
        check_video("llava_onevision")


# -- the evidence alone

FRAME = (48, 64)


def layout() -> ImageLayout:
    grid = PatchGrid((0.0, 0.0, 64.0, 48.0), 1 + np.arange(48).reshape(6, 8))
    return ImageLayout(FRAME, FRAME, grid.region, 49, (grid,))  # a class token comes first


def evidence(scale: tuple[float, ...] = (1.0, 0.01, 0.4)) -> VideoEvidence:
    rng = np.random.default_rng(0)
    steps = []
    for number, factor in enumerate(scale):
        scores = (factor * rng.random(49)).astype(np.float32)
        scores[0] = 5.0  # a class token that draws attention is no share of any time
        steps.append(Evidence(picture(number, FRAME), "what?", scores, layout(), (1, 3), np.stack([scores, scores])))
    return VideoEvidence(tuple(steps), (0.0, 61.25, 3725.0), ((0, 1), (2, 3), (4,)))


def test_shares_are_of_the_tokens_that_show_pixels() -> None:
    found = evidence()
    sums = [step.scores[1:].astype(np.float64).sum() for step in found]
    np.testing.assert_allclose([share for _, share in found.frames], np.array(sums) / np.sum(sums), rtol=1e-6)
    assert [when for when, _ in found.frames] == [0.0, 61.25, 3725.0]
    assert len(found) == 3
    assert found[1] is found.steps[1]
    assert list(found) == list(found.steps)
    assert found[:2] == found.steps[:2]
    assert found.layers == (1, 3)
    assert repr(found) == "VideoEvidence(3 steps of 6x8 patches, 0 to 3725 s, layers [1, 3] of 'what?')"
    assert all(share == 0 for _, share in evidence((0.0, 0.0, 0.0)).frames)


def test_one_scale_holds_for_all_steps() -> None:
    """Against each step's own map, which spans 0 to 1: between two steps only the scale differs, by the scores'."""
    found = evidence()
    maps = np.stack([found.look(number) for number in range(3)])
    assert maps.min() == 0
    assert maps.max() == 1
    assert maps[1].max() < 0.03
    for number in range(3):
        own = look_map(found[number].scores, layout())
        rescaled = (maps[number] - maps[number].min()) / np.ptp(maps[number])
        np.testing.assert_allclose(rescaled, own, atol=2e-4)
    untouched = np.abs(np.asarray(found.overlay(1), float) - np.asarray(found[1].image)).mean()
    coloured = np.abs(np.asarray(found.overlay(0), float) - np.asarray(found[0].image)).mean()
    assert untouched < 0.1 * coloured
    assert found.overlay(-1).size == (64, 48)


def test_the_sheet_shows_every_step() -> None:
    found = evidence()
    sheet = found.contact_sheet()
    assert found.contact_sheet(columns=1).height > 2 * sheet.height
    pixels = np.asarray(found.contact_sheet(columns=3))
    first = np.asarray(found.overlay(0))
    assert any(
        np.array_equal(pixels[top : top + 48, left : left + 64], first) for top in range(20) for left in range(20)
    )
    assert found._repr_png_().startswith(b"\x89PNG")


def test_dictionaries_come_back() -> None:
    found = evidence()
    frames = [picture(number // 2, FRAME) for number in range(5)]
    again = VideoEvidence.from_dict(found.to_dict(), frames)
    assert again.to_dict() == found.to_dict()
    assert again.frames == found.frames
    with pytest.raises(InvalidInputError, match="every frame of the video"):
        VideoEvidence.from_dict(found.to_dict(), frames[:3])
    with pytest.raises(InvalidInputError, match="no evidence of a video"):
        VideoEvidence.from_dict({}, frames)


def test_bad_steps() -> None:
    found = evidence()
    for step in (3, -4, 1.0, True):
        with pytest.raises(InvalidInputError, match="of the 3 steps"):
            found.overlay(step)  # type: ignore[arg-type]
    for columns in (0, 1.5, True):
        with pytest.raises(InvalidInputError, match="columns="):
            found.contact_sheet(columns)  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="give one"):
        VideoEvidence(found.steps, (0.0,), found.shown)


@pytest.mark.parametrize(
    ("frames", "first_tokens", "n_tokens"),
    [
        (((0,),), (0, 49), 98),
        (((0,), ()), (0, 49), 98),
        (((0,), (2,)), (0, 49), 98),
        (((0,), (1,)), (0, 40), 98),
        (((0,), (1,)), (0, 49), 97),
    ],
)
def test_layouts_that_contradict_themselves(frames: Any, first_tokens: tuple[int, ...], n_tokens: int) -> None:
    with pytest.raises(GeometryError):
        VideoLayout((layout(), layout()), frames, first_tokens, n_tokens)
