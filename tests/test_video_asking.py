"""Videos through attend and ask: rows of eager attention, frames highlighted by their steps, words, conversations."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision", reason="Transformers' video processors need torchvision")
from test_video import FAMILIES, SECONDS, SIZE, asked, eager, family, picture, video, video_inputs

import vea_sdk as vea
from vea_sdk.errors import ImageError, InvalidInputError, UnsupportedModelError
from vea_sdk.evidence import Video, VideoEvidence, highlight
from vea_sdk.evidence.maps import density

QUESTION = "what happens?"
families = pytest.mark.parametrize("name", FAMILIES)


def wrapped(name: str, **options: Any) -> vea.VLM:
    tiny = family(name)
    return vea.wrap(tiny.model, tiny.processor, **({"layers": "all", "plain_prompt": "{question}"} | options))


def truth(vlm: vea.VLM, *parts: Any) -> np.ndarray:
    """Eager attention at the video's tokens, the mean over the layers."""
    inputs = video_inputs(vlm.model, vlm.processor, [asked(*parts)])
    config = vlm.model.config
    own = getattr(config, "video_token_id", None)
    marked = inputs["input_ids"][0] == (config.image_token_id if own is None else own)
    return eager(vlm.model, inputs)[:, 0, marked].mean(0).numpy()


@families
def test_attend_to_a_video(name: str) -> None:
    vlm, shown = wrapped(name), video()
    frames = list(shown.frames)
    for source in (shown, frames, np.stack([np.asarray(frame) for frame in frames])):
        seconds = None if isinstance(source, Video) else SECONDS
        found = vlm.attend(video=source, question=QUESTION, seconds=seconds)
        assert isinstance(found, VideoEvidence)
        scores = np.concatenate([step.scores for step in found])
        np.testing.assert_allclose(scores, truth(vlm, shown)[: len(scores)], atol=2e-6)
        assert sum(share for _, share in found.frames) == pytest.approx(1)
        assert found[0].image.size == SIZE[::-1]
    assert vlm.attend(video=shown, question=QUESTION, heads=True)[0].head_scores is not None


@families
def test_ask_about_a_video(name: str) -> None:
    vlm, shown = wrapped(name, alpha=0.2), video()
    answer = vlm.ask(video=shown, question=QUESTION, max_new_tokens=3, min_new_tokens=3, prompt="raw")
    scores = np.concatenate([step.scores for step in answer.evidence])
    np.testing.assert_allclose(scores, truth(vlm, shown)[: len(scores)], atol=2e-6)
    # Every frame is multiplied by the map of its step, all steps on one scale.
    maps = np.stack([density(step.scores, step.layout, step.lam, step.sigma) for step in answer.evidence])
    maps = (maps - maps.min()) / np.ptp(maps)
    assert isinstance(answer.highlighted, Video)
    assert answer.highlighted.seconds == shown.seconds
    for step, numbers in enumerate(answer.evidence.shown):
        for number in numbers:
            expected = np.asarray(highlight(shown.frames[number], maps[step].astype(np.float32), 0.2)).astype(int)
            assert np.abs(np.asarray(answer.highlighted.frames[number]) - expected).max() <= 1
    again = video_inputs(vlm.model, vlm.processor, [asked(answer.highlighted)])
    out = vlm.model.generate(**again, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    text = vlm.processor.decode(out[0, again["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert answer.text == text
    for word in answer.words:
        assert isinstance(word.evidence, VideoEvidence)
        assert len(word.evidence) == len(answer.evidence)
        assert word.evidence[0].image == shown.frames[0]  # on the frames as they were given
    kept = vea.Answer.from_dict(json.loads(json.dumps(answer.to_dict())), [shown])
    for one, other in zip(kept.evidence, answer.evidence, strict=True):
        assert one.scores.tobytes() == other.scores.tobytes()
    for word, other in zip(kept.words, answer.words, strict=True):
        assert word.evidence[-1].scores.tobytes() == other.evidence[-1].scores.tobytes()


def test_pictures_and_videos_of_a_conversation() -> None:
    vlm, shown = wrapped("qwen2_5_vl"), video(4)
    before, after = picture(7, (70, 110)), picture(8)
    said = {"role": "assistant", "content": [{"type": "text", "text": "a thing"}]}
    messages = [*asked(before, shown), said, *asked(after)]
    found = vlm.attend(messages=messages)
    assert [type(one).__name__ for one in found] == ["Evidence", "VideoEvidence", "Evidence"]
    inputs = video_inputs(vlm.model, vlm.processor, [messages])
    ids, row = inputs["input_ids"][0], eager(vlm.model, inputs)[:, 0]
    config = vlm.model.config
    of_pictures = row[:, ids == config.image_token_id].mean(0).numpy()
    of_video = row[:, ids == config.video_token_id].mean(0).numpy()
    one, steps, two = found
    np.testing.assert_allclose(np.concatenate([one.scores, two.scores]), of_pictures, atol=2e-6)  # type: ignore[union-attr]
    np.testing.assert_allclose(np.concatenate([step.scores for step in steps]), of_video, atol=2e-6)  # type: ignore[union-attr]
    answer = vlm.ask(messages=messages, max_new_tokens=2, highlight_images=[1, 2])
    first, second = answer.highlighted
    assert isinstance(first, Video)
    assert isinstance(second, Image.Image)


def test_a_batch_of_a_picture_and_a_video_is_not_mixed_up() -> None:
    vlm = wrapped("qwen2_5_vl")
    alone = vlm.attend(video=video(4), question=QUESTION)
    with torch.no_grad():
        one, other = (vlm.attend(messages=asked(part, text=QUESTION))[0] for part in (picture(3), video(4)))
    assert isinstance(one, vea.Evidence)
    np.testing.assert_allclose(other[0].scores, alone[0].scores, atol=1e-7)  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"video": []}, ImageError, "without frames"),
        ({"video": [picture(0), picture(1, (20, 20))]}, ImageError, "one size"),
        ({"video": [picture(0)], "seconds": [0, 1]}, InvalidInputError, "2 seconds for 1 frames"),
        ({"video": [picture(0)], "image": picture(0)}, InvalidInputError, "exclude each other"),
        ({"video": "absent.mp4"}, ImageError, "absent.mp4"),
    ],
)
def test_a_video_that_cannot_be(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    vlm = wrapped("qwen2_5_vl")
    passes: list[int] = []
    handle = vlm.model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        for call in (vlm.attend, vlm.ask):
            with pytest.raises(error, match=message):
                call(question=QUESTION, **arguments)
    finally:
        handle.remove()
    assert not passes


def test_what_a_video_is_not_for() -> None:
    vlm = wrapped("qwen2_5_vl")
    with pytest.raises(InvalidInputError, match="frame by frame"):
        vlm.ask(video=video(), question=QUESTION, highlight_on="tensor")
    from families import FAMILIES as PICTURES

    llava = PICTURES["llava"]()
    with pytest.raises(UnsupportedModelError, match="takes no videos"):
        vea.wrap(llava.model, llava.processor, layers="all").attend(video=video(), question=QUESTION)
