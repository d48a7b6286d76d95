"""Evidence as a file, a dictionary, and a Web Annotation: what was written is what is read."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

import vea_sdk as vea
from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import files


def made(heads: bool = True, question: str | None = "wie viel? \u200f<b>") -> vea.Evidence:
    """Fractional regions, a separator, statistics of several kinds, scores that decimals do not hold exactly."""
    random = np.random.default_rng(5)
    grids = (
        PatchGrid((-1 / 3, 0.0, 60.1, 40.7), np.arange(12).reshape(3, 4)),
        PatchGrid((0.0, 0.0, 60.0, 40.0), np.arange(13, 17).reshape(2, 2)),
    )
    layout = ImageLayout((40, 60), (42, 56), grids[0].region, 18, grids)
    image = Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    rows = random.random((2, 3, 18), dtype=np.float32) / 3
    stats = {"image_mass": np.array([0.1, 0.7], np.float32), "note": "drawn", "peak": np.array([1e-30, 1], np.float32)}
    layers = rows.mean(1)
    return vea.Evidence(
        image, question, layers.mean(0), layout, (2, 7), layers, lam=3.3, sigma=0.1, alpha=0.25, stats=stats,
        head_scores=rows if heads else None,
    )  # fmt: skip


def assert_same(one: vea.Evidence, other: vea.Evidence) -> None:
    """Every field, to the bit."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("image", "layout", "stats", "_maps"):
            continue
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()
        else:
            assert a == b
            assert type(a) is type(b)
    assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    for name in ("original_size", "input_size", "input_region", "n_tokens"):
        assert getattr(one.layout, name) == getattr(other.layout, name)
    for a, b in zip(one.layout.grids, other.layout.grids, strict=True):
        assert a.region == b.region
        assert np.array_equal(a.token_index, b.token_index)
    assert set(one.stats) == set(other.stats)
    for name, value in one.stats.items():
        assert np.asarray(value).tobytes() == np.asarray(other.stats[name]).tobytes()


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("question", ["what?", None, "\ud83d\ude00 und mehr"])
def test_what_is_saved_is_loaded(tmp_path: Path, heads: bool, question: str | None) -> None:
    if question is not None:
        question = question.encode("utf-16", "surrogatepass").decode("utf-16")
    one = made(heads, question)
    one.save(tmp_path / "sub" / "look.npz")
    assert_same(one, vea.Evidence.load(tmp_path / "sub" / "look.npz"))
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["look.npz"]


def test_a_file_without_its_picture(tmp_path: Path) -> None:
    one = made()
    one.save(tmp_path / "look.npz", image=False)
    with pytest.raises(InvalidInputError, match=r"without its picture.*image="):
        vea.Evidence.load(tmp_path / "look.npz")
    assert_same(one, vea.Evidence.load(tmp_path / "look.npz", image=one.image))


def test_a_dictionary_goes_through_json() -> None:
    one = dataclasses.replace(made(), stats={"image_mass": np.array([0.1, 0.7], np.float32)})
    assert_same(one, vea.Evidence.from_dict(json.loads(json.dumps(one.to_dict())), one.image))


def test_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made()
    newer = one.to_dict() | {"version": files.VERSION + 1}
    with pytest.raises(InvalidInputError, match=rf"version {files.VERSION + 1}.*newer.*Upgrade"):
        vea.Evidence.from_dict(newer, one.image)
    monkeypatch.setattr(files, "VERSION", files.VERSION + 1)
    one.save(tmp_path / "look.npz")
    monkeypatch.undo()
    with pytest.raises(InvalidInputError, match=r"look\.npz.*newer"):
        vea.Evidence.load(tmp_path / "look.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"\x80\x04pickle", b"{}"])
def test_a_file_that_holds_no_evidence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "look.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"look\.npz.*no evidence"):
        vea.Evidence.load(path)
    with pytest.raises(InvalidInputError, match="no file"):
        vea.Evidence.load(tmp_path / "absent.npz")


def test_half_a_file_and_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "look.npz"
    made().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match="no evidence"):
        vea.Evidence.load(path)
    np.savez(path, header=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInputError, match="no evidence"):
        vea.Evidence.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", b"nothing")
    with pytest.raises(InvalidInputError, match="no evidence"):
        vea.Evidence.load(path)


@pytest.mark.parametrize("values", [{}, {"version": 1}, {"version": True, "layout": 3}, [], None, {"version": "1"}])
def test_a_dictionary_that_holds_no_evidence(values: Any) -> None:
    with pytest.raises(InvalidInputError, match="dictionary"):
        vea.Evidence.from_dict(values, made().image)


SCHEMA = json.loads(Path(__file__).with_name("web_annotation.json").read_text(encoding="utf-8"))


def test_an_annotation_is_what_the_recommendation_says() -> None:
    one = made()
    annotation = json.loads(json.dumps(one.to_annotation("file:///receipt.png")))
    jsonschema.validate(annotation, SCHEMA)
    targets = annotation["target"] if isinstance(annotation["target"], list) else [annotation["target"]]
    assert len(targets) == len(one.boxes())
    for target, region in zip(targets, one.boxes(), strict=True):
        assert target["source"] == "file:///receipt.png"
        x, y, w, h = (int(n) for n in target["selector"]["value"].removeprefix("xywh=pixel:").split(","))
        x0, y0, x1, y1 = region.box
        assert x <= x0 < x + 1  # the whole pixels that cover the box
        assert y <= y0 < y + 1
        assert x + w - 1 < x1 <= x + w
        assert y + h - 1 < y1 <= y + h
        assert x + w <= one.image.width
        assert y + h <= one.image.height
    assert annotation["body"]["value"] == one.question


def test_an_annotation_without_a_place_is_about_the_picture() -> None:
    flat = dataclasses.replace(made(heads=False), scores=np.full(18, 0.5), layer_scores=np.full((2, 18), 0.5))
    annotation = flat.to_annotation("https://example.org/a.png")
    jsonschema.validate(annotation, SCHEMA)
    assert annotation["target"] == "https://example.org/a.png"
    for source in ("", None, 3):
        with pytest.raises(InvalidInputError, match="source="):
            flat.to_annotation(source)  # type: ignore[arg-type]


def test_the_schema_can_fail() -> None:
    annotation = made().to_annotation("file:///receipt.png")
    for change in ({"type": "Note"}, {"target": []}, {"@context": "anno"}, {"target": {"source": "a b"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(annotation | change, SCHEMA)
