"""Readers of data sets: boxes in original pixels, pictures opened late, bad input named."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vea_sdk as vea
from vea_sdk import tiny
from vea_sdk.errors import ImageError, InvalidInputError
from vea_sdk.evaluation.datasets import Dataset, read, read_folder, read_hub, read_visualcot, write_folder
from vea_sdk.evaluation.datasets.visualcot import padded_square_to_pixels
from vea_sdk.grounding.profiling import measure
from vea_sdk.grounding.samples import Sample, check_boxes, opened

WIDTH, HEIGHT = 120, 80


def picture(seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def folder(path: Path, *rows: dict[str, Any] | str) -> Path:
    picture().save(path / "card.png")
    lines = [row if isinstance(row, str) else json.dumps({"image": "card.png", "question": "?"} | row) for row in rows]
    (path / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class TestFolder:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        shared = picture(1)
        samples = [
            Sample(shared, "What is it?", ("a", "ü"), ((1.5, 2.0, 30.0, 40.0), (0.0, 0.0, 120.0, 80.0)), "x", "card"),
            Sample(shared, "Which?", ("b",), ()),
            Sample(picture(2), "None?", (), ((1.0, 1.0, 2.0, 2.0),), "z"),
        ]
        write_folder(tmp_path / "data", samples)
        found = read_folder(tmp_path / "data")
        assert len(list((tmp_path / "data" / "images").iterdir())) == 2  # equal pictures once
        assert [record.id for record in found.records] == ["x", "1", "z"]
        for before, after in zip(samples, found, strict=True):
            assert np.array_equal(before.image, after.image)
            for name in ("question", "answers", "boxes", "kind"):
                assert getattr(before, name) == getattr(after, name)
        with pytest.raises(InvalidInputError, match="there already"):
            write_folder(tmp_path / "data", samples)
        with pytest.raises(InvalidInputError, match="no sample"):
            write_folder(tmp_path / "other", [])

    def test_defaults_and_single_values(self, tmp_path: Path) -> None:
        rows = [{"answers": "red", "boxes": [1, 2, 3, 4]}, "", {"answers": [7], "boxes": [[1, 2, 3, 4]], "id": 12}]
        first, second = read(folder(tmp_path, *rows))
        assert (first.answers, first.boxes, first.id) == (("red",), ((1, 2, 3, 4),), "0")
        assert (second.answers, second.boxes, second.id) == (("7",), ((1, 2, 3, 4),), "12")
        assert len(read(tmp_path / "samples.jsonl")) == 2

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{}, "{broken"], "line 2 is no JSON"),
            ([{}, "", "[1]"], "line 3 holds a JSON list"),
            ([{"question": None}], "line 1: 'question' must be text; got None"),
            ([{"question": "  "}], "line 1: 'question' must be text"),
            ([{}, {"image": 3.5}], "line 2: 'image' must be text; got 3.5"),
            ([{"answers": [True]}], "line 1: 'answers' must be text; got True"),
            ([{"boxes": [[1, 2, 3]]}], r"line 1: 'boxes' must be a list of boxes"),
            ([{"boxes": "1 2 3 4"}], r"line 1: 'boxes' must be a list of boxes"),
            ([{"boxes": [[1, 2, 3, "x"]]}], r"line 1: 'boxes' must be a list of boxes"),
            ([{"id": "a"}, {"id": "b"}, {"id": "a"}], "line 3: the id 'a' is already that of .*line 1"),
            ([""], "is empty"),
        ],
    )
    def test_bad_lines(self, tmp_path: Path, rows: list[Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            read_folder(folder(tmp_path, *rows))

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"image": "absent.png"}, "line 2: There is no file"),
            ({"image": "samples.jsonl"}, "line 2: .*cannot be read as a picture"),
            ({"boxes": [[1, 2, 130, 40]]}, r"line 2: the box .*leaves its picture of 120x80"),
            ({"boxes": [[-5, 2, 30, 40]]}, r"line 2: the box .*leaves"),
            ({"boxes": [[30, 2, 10, 40]]}, r"line 2: the box .*inverted"),
            ({"boxes": [[30, 2, 30, 40]]}, r"line 2: the box .*empty"),
            ({"boxes": [[1, 2, 3, float("nan")]]}, "line 2: .*is no box"),
        ],
    )
    def test_bad_samples_are_named_when_opened(self, tmp_path: Path, row: dict[str, Any], message: str) -> None:
        found = read_folder(folder(tmp_path, {}, row))
        assert found[0].question == "?"
        with pytest.raises(InvalidInputError, match=message):
            found[1]

    def test_pixel_cap(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"line 1: .*cap of 100"):
            read(folder(tmp_path, {}), max_pixels=100)[0]

    @pytest.mark.parametrize("name", ["absent", "absent.jsonl", "card.png", "empty"])
    def test_no_data_set(self, tmp_path: Path, name: str) -> None:
        picture().save(tmp_path / "card.png")
        (tmp_path / "empty").mkdir()
        with pytest.raises(InvalidInputError, match=r"no data set|cannot be read"):
            read(tmp_path / name)


def test_rounding_over_an_edge_is_cut_off() -> None:
    assert check_boxes([(-0.5, 3, 120.8, 80.0)], (WIDTH, HEIGHT), "here") == ((0.0, 3.0, 120.0, 80.0),)


class TestVisualCoT:
    """A 120 x 80 picture: padded to 120 x 120, it starts 20 pixels down."""

    BOX = (30, 10, 60, 40)
    SQUARED = "[0.250, 0.250, 0.500, 0.500]"  # x / 120, (y + 20) / 120

    def entry(self, box: Sequence[int] = BOX, squared: str = SQUARED, **fields: Any) -> dict[str, Any]:
        ask = "<image>\nWhat is it? Please provide the bounding box coordinate of the region that can help you."
        said = [("human", ask), ("gpt", squared), ("human", "<image>"), ("gpt", "a cat")]
        return {
            "dataset": "docvqa",
            "question_id": 5,
            "image": ["cot/card.png", f"cot/card.png###{list(box)}"],
            "conversations": [{"from": who, "value": text} for who, text in said],
        } | fields

    def write(self, path: Path, *entries: Any, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
        (path / "cot").mkdir(exist_ok=True)
        picture(size=size).save(path / "cot" / "card.png")
        (path / "benchmark.json").write_text(json.dumps(entries), encoding="utf-8")
        return path / "benchmark.json"

    def test_the_box_in_pixels_is_taken(self, tmp_path: Path) -> None:
        (sample,) = read(self.write(tmp_path, self.entry()))
        assert sample.boxes == (self.BOX,)
        assert (sample.question, sample.answers) == ("What is it?", ("a cat",))
        assert (sample.id, sample.kind) == ("docvqa-5", "docvqa")

    def test_the_two_spaces_by_drawing(self) -> None:
        """Mark the box on the picture, pad it to a square as Pillow does, and find the mark there."""
        for size in ((120, 80), (80, 120), (81, 40)):
            image = Image.new("L", size)
            image.paste(255, (30, 10, 60, 40))
            square = Image.new("L", (max(size), max(size)))
            square.paste(image, ((max(size) - size[0]) // 2, (max(size) - size[1]) // 2))
            marked = square.getbbox()
            assert marked is not None
            squared = [edge / max(size) for edge in marked]
            assert padded_square_to_pixels(squared, *size) == pytest.approx((30, 10, 60, 40))

    def test_a_picture_of_another_size_is_refused(self, tmp_path: Path) -> None:
        """The box from 0 to 1 still fits a picture of twice the size, the one in pixels does not."""
        found = read(self.write(tmp_path, self.entry(), size=(2 * WIDTH, 2 * HEIGHT)))
        with pytest.raises(InvalidInputError, match=r"entry 0.*240x160.*not of the size that was annotated"):
            found[0]

    def test_without_boxes(self, tmp_path: Path) -> None:
        (sample,) = read(self.write(tmp_path, self.entry(image="cot/card.png")))
        assert sample.boxes == ()

    def test_metadata(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        row = {"question": "What?", "answer": "7", "possible_answers": ["7", "seven"], "image": "cot/card.png"}
        row |= {"width": WIDTH, "height": HEIGHT, "bboxs": [[1, 2, 30, 40], [50, 2, 60, 40]], "dataset": "sroie"}
        file = tmp_path / "sroie_cot_train.jsonl"
        file.write_text(json.dumps(row) + "\n" + json.dumps(row | {"width": 60}) + "\n")
        found = read(file)
        assert found[0].boxes == ((1, 2, 30, 40), (50, 2, 60, 40))
        assert (found[0].answers, found[0].id, found[0].kind) == (("7", "seven"), "sroie-0", "sroie")
        with pytest.raises(InvalidInputError, match=r"line 2: .*60x80.*120x80"):
            found[1]

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ([{"image": ["cot/card.png", "cot/card.png"]}], "entry 0: .*does not end in a box"),
            ([{}, {"conversations": []}], "entry 1 needs 'image' and 'conversations'"),
            ([{"image": None}], "entry 0 needs"),
            ([{"image": ["cot/card.png", "cot/card.png###[1, 2, 3]"]}], "entry 0: .*does not end in a box"),
            ([{}, {}], "entry 1: the id 'docvqa-5' is already that of .*entry 0"),
        ],
    )
    def test_bad_entries(self, tmp_path: Path, entries: list[dict[str, Any]], message: str) -> None:
        file = self.write(tmp_path, *[self.entry(**fields) for fields in entries])
        with pytest.raises(InvalidInputError, match=message):
            read_visualcot(file, tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [("{}", "got a JSON dict"), ("[", "no JSON"), ("[1]", "entry 0 is a JSON int"), ("[]", "is empty")],
    )
    def test_bad_files(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InvalidInputError, match=message):
            read(tmp_path / "x.json")


class TestHub:
    @pytest.fixture
    def table(self) -> Any:
        datasets = pytest.importorskip("datasets")
        buffer = io.BytesIO()
        picture().save(buffer, "PNG")
        rows = {
            "picture": [{"bytes": buffer.getvalue(), "path": None}, {"bytes": b"broken", "path": None}],
            "question": ["What?", "Which?"],
            "answers": [[{"answer": "red"}, {"answer": "blue"}], [{"answer": "4"}]],
            "bbox": [[[10, 20, 30, 40]], []],
            "number": [11, 12],
        }
        return datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())

    COLUMNS = {"image": "picture", "answers": "answers.answer", "boxes": "bbox", "id": "number"}  # noqa: RUF012

    def test_columns(self, table: Any, tmp_path: Path) -> None:
        table.save_to_disk(tmp_path / "stored")
        for found in (read_hub(table, columns=self.COLUMNS), read(tmp_path / "stored", columns=self.COLUMNS)):
            sample = found[0]
            assert np.array_equal(sample.image, picture())
            assert (sample.answers, sample.boxes, sample.id) == (("red", "blue"), ((10, 20, 30, 40),), "11")
            with pytest.raises(ImageError, match=r"row 1: .*cannot be read as a picture"):
                found[1]

    def test_width_and_height(self, table: Any) -> None:
        found = read_hub(table, columns=self.COLUMNS, box_format="xywh")
        assert found[0].boxes == ((10, 20, 40, 60),)
        with pytest.raises(InvalidInputError, match="cxcywh"):
            read_hub(table, columns=self.COLUMNS, box_format="cxcywh")  # type: ignore[arg-type]

    def test_splits(self, table: Any, tmp_path: Path) -> None:
        import datasets

        datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "stored")
        assert len(read(tmp_path / "stored", split="test", columns=self.COLUMNS)) == 2
        with pytest.raises(InvalidInputError, match="train, test"):
            read(tmp_path / "stored", columns=self.COLUMNS)

    def test_errors(self, table: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"no column 'image'.*picture, question"):
            read_hub(table)
        with pytest.raises(InvalidInputError, match="no column 'photo'"):
            read_hub(table, columns={"image": "photo"})
        with pytest.raises(InvalidInputError, match=r"'answer'.*choose among"):
            read_hub(table, columns=self.COLUMNS | {"answer": "answers"})
        with pytest.raises(InvalidInputError, match=r"row 0 has nothing at 'answers\.text'"):
            read_hub(table, columns=self.COLUMNS | {"answers": "answers.text"})
        with pytest.raises(InvalidInputError, match="no data set can be read"):
            read_hub("/absent/of/all")


class TestDataset:
    def test_pictures_are_opened_late_and_not_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = []
        plain = Image.open
        monkeypatch.setattr(Image, "open", lambda source, **options: opened.append(source) or plain(source, **options))
        found = read_folder(folder(tmp_path, {}, {}, {}))[1:].shuffle(3)
        assert len(found) == 2
        assert opened == []
        for count, _ in enumerate(found, 1):
            assert len(opened) == count
        found[0]
        assert len(opened) == 3

    def test_order(self, tmp_path: Path) -> None:
        found = read_folder(folder(tmp_path, *[{"id": str(i)} for i in range(20)]))

        def ids(one: Dataset) -> list[str]:
            return [record.id for record in one.records]

        assert ids(found.shuffle(1)) == ids(found.shuffle(1)) != ids(found.shuffle(2))
        assert sorted(ids(found.shuffle(1)), key=int) == ids(found) == [sample.id for sample in found]
        assert ids(found[2:4]) == ["2", "3"]
        with pytest.raises(InvalidInputError, match="is empty"):
            found[20:]

    def test_open_samples(self) -> None:
        image = picture()
        found = Dataset.of(
            [Sample(image, "?", ("a",), (), "x", "card"), Sample(image, "!", (), ((1, 2, 3, 200),))], "two"
        )
        assert found[0] == Sample(image, "?", ("a",), (), "x", "card")
        assert found.records[1].id == "1"
        with pytest.raises(InvalidInputError, match=r"sample '1': the box .*leaves"):
            found[1]

    def test_change(self, tmp_path: Path) -> None:
        found = read_folder(folder(tmp_path, {"id": "a"}, {"id": "b"}))
        how = tiny.degradation("noise:0.2")
        noisy = found.change(lambda image, name: how(image, ord(name)), "noise")
        assert noisy.name == f"{found.name}, noise"
        assert np.array_equal(noisy[1].image, tiny.noise(picture(), ord("b"), 0.2))
        smaller = found.change(lambda image, name: image.resize((9, 9)), "smaller")
        with pytest.raises(InvalidInputError, match=r"sample.*from 120x80 to 9x9"):
            smaller[0]


@pytest.mark.parametrize(("text", "changes"), [("noise:0.3", 1), ("resolution:0.3", 1), ("mask:0.5", 1), ("mask:0", 0)])
def test_degradations_by_name(text: str, changes: int) -> None:
    image = picture()
    how = tiny.degradation(text)
    assert how(image, 1).size == image.size
    assert how(image, 1).tobytes() == how(image, 1).tobytes()
    assert (how(image, 1).tobytes() != image.tobytes()) == changes


def test_resolution_keeps_what_its_share_can_hold() -> None:
    """A wave of 60 pixels survives a quarter of the resolution, one of 4 pixels does not."""
    for period, left in ((60, 0.9), (4, 0.2)):
        wave = 128 + 100 * np.sin(2 * np.pi * np.arange(240) / period)
        image = Image.fromarray(np.repeat(wave[None], 40, 0).round().astype(np.uint8)).convert("RGB")
        spread = np.asarray(tiny.resolution(image, 0.25), float)[20, 40:-40, 0].std() / wave.std()
        assert (spread > left) if period == 60 else (spread < left)
    assert tiny.resolution(picture(), 1.0).tobytes() == picture().tobytes()


@pytest.mark.parametrize("text", ["blur:0.3", "noise", "noise:", "noise:x", "noise:1.5", "mask:-1", ""])
def test_unknown_degradations(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"noise|0 to 1"):
        tiny.degradation(text)


def test_held_out_pictures() -> None:
    found = tiny.held_out(5, first=3)
    for sample in found:
        drawn = tiny.draw(int(sample.id))
        assert any((sample.question, sample.answers, sample.boxes) == (s.question, s.answers, s.boxes) for s in drawn)
        assert sample.image.tobytes() == drawn[0].image.tobytes()
        assert sample.kind in tiny.KINDS
    for count, first in ((0, 0), (5001, 0), (10, 4995), (3, -1)):
        with pytest.raises(InvalidInputError, match="5000 held-out"):
            tiny.held_out(count, first)


# --- one door for pictures, boxes that cannot be, data from elsewhere -------------------------------------------------


def turned() -> Image.Image:
    """40 x 20 pixels as stored, 20 x 40 as they stand."""
    image = picture(3, (40, 20))
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    return Image.open(file)


UNUSUAL = {  # as stored, and as they stand: RGB pixels by hand
    "transparent": (Image.new("RGBA", (30, 20), (255, 0, 0, 0)), np.full((20, 30, 3), 255)),
    "half transparent": (Image.new("RGBA", (30, 20), (0, 0, 0, 51)), np.full((20, 30, 3), 204)),
    "16 bits": (Image.fromarray(np.full((20, 30), 40000, np.uint16)), np.full((20, 30, 3), 156)),
    "floats": (Image.fromarray(np.full((20, 30), 0.5, np.float32)), np.full((20, 30, 3), 128)),
    "turned": (turned(), np.rot90(np.asarray(picture(3, (40, 20))), -1)),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_every_use_of_a_picture_sees_it_as_it_stands(kind: str, tmp_path: Path) -> None:
    stored, stands = UNUSUAL[kind]
    height, width = stands.shape[:2]
    sample = Sample(stored, "what?", ("x",), ((1.0, 1.0, float(width), float(height)),), "s")
    write_folder(tmp_path, [sample])
    (read_back,) = read_folder(tmp_path)
    (held,) = Dataset.of([sample], "one")
    for found in (read_back, held, opened(sample, "here")):
        assert np.abs(np.asarray(found.image, int) - stands).max() <= 1
        assert found.boxes == sample.boxes
    with pytest.raises(InvalidInputError, match="leaves its picture"):
        opened(Sample(stored, "?", (), ((0, 0, width + 9, 5),)), "here")


def test_profiles_and_evaluations_see_pictures_as_they_stand(family: Any) -> None:
    """Figures of a turned picture, and of the same pixels turned beforehand, are the same."""
    vlm = vea.wrap(family.model, family.processor, layers=[1])
    box = ((2.0, 12.0, 8.0, 20.0),)
    upright = Image.fromarray(np.ascontiguousarray(UNUSUAL["turned"][1].astype(np.uint8)))
    samples = [Sample(image, "what?", ("x",), box, "s") for image in (turned(), upright)]
    one, other = (measure(vlm, [sample]).samples[0] for sample in samples)
    assert one == other
    one, other = (vea.evaluate(vlm, [sample], ["base"]).rows[0] for sample in samples)
    assert one == other


@pytest.mark.parametrize(
    "box", [(0.4, 0.5, 0.6, 0.9), (0, 0, 1, 1), (0.0, 0.0, 1.0, 0.5), (True, False, 50, 60), (0, 0, True, True)]
)
def test_boxes_that_cannot_be(box: Any, family: Any) -> None:
    vlm = vea.wrap(family.model, family.processor, layers=[1])
    sample = Sample(picture(), "what?", ("x",), (box,), "s")
    for use in (
        lambda: measure(vlm, [sample]),
        lambda: vea.evaluate(vlm, [sample], ["base"]),
        lambda: Dataset.of([sample], "one")[0],
    ):
        with pytest.raises(InvalidInputError, match=r"'s'.*(relative|is no box)"):
            use()


def test_relative_boxes(tmp_path: Path) -> None:
    data = folder(tmp_path, {"boxes": [[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]]})
    (sample,) = read(data, boxes="relative")
    assert sample.boxes == ((30, 40, 90, 80), (0, 0, 120, 80))
    with pytest.raises(InvalidInputError, match='boxes="relative"'):
        _ = read(data)[0]
    with pytest.raises(InvalidInputError, match=r"line 1: the box .* is not relative"):
        _ = read(folder(tmp_path, {"boxes": [[1, 2, 30, 40]]}), boxes="relative")[0]
    with pytest.raises(InvalidInputError, match="'percent' is unknown"):
        read(data, boxes="percent")  # type: ignore[arg-type]
    assert check_boxes([(0, 0, 1, 1)], (1, 1), "a picture of one pixel") == ((0, 0, 1, 1),)


@pytest.mark.parametrize("way", ["..", "absolute", "link", "linked folder"])
def test_pictures_outside_of_the_folder(way: str, tmp_path: Path) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    picture(5).save(tmp_path / "secret.png")
    names = {"..": "../secret.png", "absolute": str(tmp_path / "secret.png"), "link": "a.png"}
    name = names.get(way, "up/secret.png")
    if way == "link":
        (inside / "a.png").symlink_to(tmp_path / "secret.png")
    if way == "linked folder":
        (inside / "up").symlink_to(tmp_path, target_is_directory=True)
    folder(inside, {}, {"image": name})
    with pytest.raises(InvalidInputError, match=r"line 2: the picture .* lies outside.*--outside"):
        read(inside)
    assert read(inside, outside=True)[1].image.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 200_000,
        '{"boxes": ' + "[" * 100_000,
        '{"image": "a", "question": "?", "boxes": [[' + "9" * 400 + ", 1, 2, 3]]}",
        '{"image": "a", "question": "?", "boxes": [[true, 1, 2, 3]]}',
    ],
)
def test_hostile_lines_are_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="line 2") as caught:
        read(folder(tmp_path, {}, line))
    assert len(str(caught.value)) < 600
