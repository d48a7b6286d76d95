"""Readers of data sets: boxes in original pixels, pictures opened late, bad input named."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vea_sdk import tiny
from vea_sdk.errors import ImageError, InvalidInputError
from vea_sdk.evaluation.datasets import Dataset, read, read_folder, read_hub, read_visualcot, write_folder
from vea_sdk.evaluation.datasets.visualcot import padded_square_to_pixels
from vea_sdk.grounding.samples import Sample, check_boxes

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

    def test_pictures_of_every_kind_are_written_as_a_model_sees_them(self, tmp_path: Path) -> None:
        """Against values worked out by hand: on white, divided by 257, times 255, turned as Pillow turns."""
        half = Image.new("RGBA", (8, 4), (255, 0, 0, 128))
        palette = Image.new("P", (8, 4), 0)
        palette.putpalette([9, 9, 9])
        palette.info["transparency"] = 0
        tag, turned = Image.Exif(), io.BytesIO()
        tag[0x112] = 8
        picture(3, (8, 4)).save(turned, "PNG", exif=tag)
        given: dict[str, tuple[Image.Image, Any]] = {
            "alpha": (half, (255, 127, 127)),
            "palette": (palette, 255),
            "16 bits": (Image.fromarray(np.full((4, 8), 25700, np.uint16)), 100),
            "floats": (Image.fromarray(np.full((4, 8), 0.2, np.float32)), 51),
            "turned": (Image.open(turned), np.asarray(picture(3, (8, 4)).transpose(Image.Transpose.ROTATE_90))),
        }
        write_folder(tmp_path / "data", [Sample(image, "?", (), (), id=name) for name, (image, _) in given.items()])
        for sample in read_folder(tmp_path / "data"):
            expected = np.broadcast_to(given[sample.id][1], np.asarray(sample.image).shape)
            assert np.abs(np.asarray(sample.image, int) - expected).max() <= 1, sample.id
            assert sample.image.size == ((4, 8) if sample.id == "turned" else (8, 4))
        with pytest.raises(InvalidInputError, match=r"'turned'.*leaves its picture of 4x8"):
            write_folder(tmp_path / "lying", [Sample(given["turned"][0], "?", (), ((0, 0, 8, 4),), "turned")])
        bright = Image.fromarray(np.array([[0, 70000]], np.int32))
        with pytest.raises(ImageError, match=r"sample '1': .*span 0 to 70000"):
            write_folder(tmp_path / "bright", [Sample(half, "?", (), ()), Sample(bright, "?", (), ())])

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


SHARES = [[[0.4, 0.5, 0.6, 0.9]], [[0, 0, 1, 1]], [[0.0, 0.0, 1.004, 0.3]], [[5, 5, 9, 9], [0.1, 0.1, 0.2, 0.2]]]
NO_NUMBERS = [[[True, False, True, True]], [["1", "2", "3", "4"]], [[1, 2, 10**400, 4]], [[False, 0, 30, 40]]]


class TestImpossibleBoxes:
    @pytest.mark.parametrize("boxes", SHARES)
    def test_shares_are_no_pixels(self, tmp_path: Path, boxes: list[Any]) -> None:
        """Refused with the remedy, by every reader and of open samples, before a picture is opened."""
        remedy = r"first pixel.*boxes=\"relative\""
        with pytest.raises(InvalidInputError, match=f"line 2: .*{remedy}"):
            read(folder(tmp_path, {}, {"boxes": boxes}))
        with pytest.raises(InvalidInputError, match=f"sample '0': .*{remedy}"):
            Dataset.of([Sample(picture(), "?", (), boxes)], "one")[0]  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=remedy):
            write_folder(tmp_path / "other", [Sample(picture(), "?", (), boxes)])  # type: ignore[arg-type]
        entry = {"question": "?", "answer": "a", "image": "card.png", "bboxs": boxes}
        (tmp_path / "cot.jsonl").write_text(json.dumps(entry))
        with pytest.raises(InvalidInputError, match=f"line 1: .*{remedy}"):
            read(tmp_path / "cot.jsonl")

    @pytest.mark.parametrize("boxes", NO_NUMBERS)
    def test_what_is_no_number(self, tmp_path: Path, boxes: list[Any]) -> None:
        with pytest.raises(InvalidInputError, match="line 1: 'boxes' must be a list of boxes") as raised:
            read(folder(tmp_path, {"boxes": boxes}))
        assert len(str(raised.value)) < 600
        with pytest.raises(InvalidInputError, match=r"here: .* is no box"):
            check_boxes(boxes, (WIDTH, HEIGHT), "here")

    @pytest.mark.parametrize(
        ("shares", "pixels"),
        [
            ([0.25, 0.5, 0.75, 1.0], (30, 40, 90, 80)),
            ([0, 0, 1, 1], (0, 0, 120, 80)),
            ([-0.004, 0.1, 1.004, 0.2], (0, 8, 120, 16)),
        ],
    )
    def test_relative(self, tmp_path: Path, shares: list[float], pixels: Sequence[float]) -> None:
        found = read(folder(tmp_path, {"boxes": shares}), boxes="relative")
        assert found[0].boxes == (pytest.approx(pixels),)
        assert found.name.endswith("boxes relative")
        with pytest.raises(InvalidInputError, match=r"line 1: .*not within 0 to 1.*pixels"):
            read(folder(tmp_path, {"boxes": [1, 2, 30, 40]}), boxes="relative")
        with pytest.raises(InvalidInputError, match='"pixels" or "relative"'):
            read(tmp_path, boxes="percent")  # type: ignore[arg-type]

    def test_relative_on_an_upright_picture(self, tmp_path: Path) -> None:
        folder(tmp_path, {"boxes": [0.5, 0, 1, 0.5]})
        tag = Image.Exif()
        tag[0x112] = 6
        picture().save(tmp_path / "card.png", exif=tag)
        assert read_folder(tmp_path, boxes="relative")[0].boxes == ((40, 0, 80, 60),)

    def test_relative_with_width_and_height(self) -> None:
        datasets = pytest.importorskip("datasets")
        buffer = io.BytesIO()
        picture().save(buffer, "PNG")
        rows = {"image": [buffer.getvalue()], "question": ["?"], "boxes": [[[0.25, 0.25, 0.5, 0.25]]]}
        table = datasets.Dataset.from_dict(rows)
        assert read_hub(table, box_format="xywh", boxes="relative")[0].boxes == ((30, 20, 90, 40),)
        with pytest.raises(InvalidInputError, match=r"row 0: .*first pixel"):
            read_hub(table, box_format="xywh")

    def test_visualcot_is_in_pixels(self, tmp_path: Path) -> None:
        (tmp_path / "cot.json").write_text("[]")
        with pytest.raises(InvalidInputError, match=r"VisualCoT, whose boxes are in pixels"):
            read(tmp_path / "cot.json", boxes="relative")


class TestHostile:
    """Data sets that somebody else made."""

    @pytest.fixture
    def outside(self, tmp_path: Path) -> dict[str, str]:
        """Ways to a picture outside of the folder ``data``."""
        picture(7).save(tmp_path / "secret.png")
        data = tmp_path / "data"
        data.mkdir()
        (data / "link.png").symlink_to(tmp_path / "secret.png")
        (data / "up").symlink_to(tmp_path)
        return {
            "..": "../secret.png",
            "deep": "a/../../secret.png",
            "absolute": str(tmp_path / "secret.png"),
            "link": "link.png",
            "folder": "up/secret.png",
        }

    @pytest.mark.parametrize("way", ["..", "deep", "absolute", "link", "folder"])
    @pytest.mark.parametrize("kind", ["samples.jsonl", "cot.jsonl", "cot.json"])
    def test_pictures_outside(self, outside: dict[str, str], tmp_path: Path, kind: str, way: str) -> None:
        image, data = outside[way], tmp_path / "data"
        (data / "a").mkdir()
        said = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]
        row = {"image": image, "question": "?", "answer": "a", "conversations": said}
        row |= {"bboxs": []} if kind == "cot.jsonl" else {}
        (data / kind).write_text(json.dumps([row] if kind == "cot.json" else row))
        with pytest.raises(InvalidInputError, match=r"(line 1|entry 0): .*lies outside of .*outside=True"):
            read(data / kind)[0]
        assert np.array_equal(read(data / kind, outside=True)[0].image, picture(7))

    def test_relative_folders_and_links_within(
        self, outside: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = folder(tmp_path / "data", {}, {"image": "again.png"}, {"image": "up/data/./card.png"})
        (data / "again.png").symlink_to("card.png")
        monkeypatch.chdir(data)
        for given in (".", data, "../data"):
            assert all(np.array_equal(sample.image, picture()) for sample in read(given))
        (data / "samples.jsonl").write_text(json.dumps({"image": "../secret.png", "question": "?"}))
        with pytest.raises(InvalidInputError, match=r"line 1: .*lies outside"):
            read(".")

    @pytest.mark.parametrize("way", ["..", "absolute", "link"])
    def test_files_named_in_a_stored_table(self, outside: dict[str, str], tmp_path: Path, way: str) -> None:
        datasets = pytest.importorskip("datasets")
        data = tmp_path / "data"
        path = str(data / outside[way])
        for name, column in (("text", [path]), ("dict", [{"bytes": None, "path": path}])):
            table = datasets.Dataset.from_dict({"image": column, "question": ["?"]})
            table.save_to_disk(data / name)
            with pytest.raises(ImageError, match=r"row 0: .*lies outside.*outside=True"):
                read(data / name)[0]
            assert np.array_equal(read(data / name, outside=True)[0].image, picture(7))
            assert np.array_equal(read_hub(table)[0].image, picture(7))

    @pytest.mark.parametrize("name", ["samples.jsonl", "cot.json", "other.jsonl", "card.png", "state.json"])
    def test_pipes_are_not_waited_for(self, tmp_path: Path, name: str) -> None:
        folder(tmp_path, {})
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
        source = tmp_path if name in ("samples.jsonl", "card.png", "state.json") else tmp_path / name
        if name == "state.json":
            (tmp_path / "samples.jsonl").unlink()
        with pytest.raises(InvalidInputError, match=r"no data set|is no file"):
            read(source)[0]

    def test_a_pipe_in_a_stored_table(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        datasets.Dataset.from_dict({"image": [b""], "question": ["?"]}).save_to_disk(tmp_path / "data")
        (tmp_path / "data" / "dataset_info.json").unlink()
        os.mkfifo(tmp_path / "data" / "dataset_info.json")
        with pytest.raises(InvalidInputError, match=r"dataset_info\.json is no file"):
            read(tmp_path / "data")

    @pytest.mark.parametrize(
        "line",
        [
            "[" * 200_000,
            '{"image": ' * 200_000,
            '{"image": "card.png", "question": "?", "boxes": ' + "[" * 200_000 + "]" * 200_000 + "}",
            '{"image": "card.png", "question": "?", "boxes": ' + "[" * 500 + "]" * 500 + "}",
            '{"image": "card.png", "question": "?", "boxes": [1, 2, 3, ' + "9" * 400 + "]}",
            '{"image": "card.png", "question": "?", "boxes": [1, 2, 3, ' + "9" * 5000 + "]}",
            '{"image": "card.png", "question": ' + "[" * 500 + "]" * 500 + "}",
            '{"image": "card.png", "question": "\\ud800"}',
            '{"image": "card.png", "question": "?", "answers": ["\\udfff"]}',
            '{"image": "../' + "a" * 100_000 + '", "question": "?"}',
        ],
    )
    def test_a_hostile_line_is_named_and_not_repeated(self, tmp_path: Path, line: str) -> None:
        with pytest.raises(InvalidInputError, match="line 2") as raised:
            read_folder(folder(tmp_path, {}, line))
        assert len(str(raised.value)) < 1000 + 2 * len(str(tmp_path))

    @pytest.mark.parametrize("image", ["a\0b.png", "a" * 300 + ".png", "loop.png"])
    def test_names_that_no_file_can_have(self, tmp_path: Path, image: str) -> None:
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
        with pytest.raises(ImageError, match="line 1"):
            read_folder(folder(tmp_path, {"image": image}))[0]

    @pytest.mark.parametrize("text", ["[" * 200_000, '[{"image": "a", "conversations": [' + "1" * 5000 + "]}]"])
    def test_a_hostile_file_of_visualcot(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "cot.json").write_text(text)
        with pytest.raises(InvalidInputError, match=r"cot\.json is no JSON"):
            read(tmp_path / "cot.json")


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

    def test_pictures_that_cannot_be_had_name_their_row(self) -> None:
        datasets = pytest.importorskip("datasets")
        postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
        for broken in ({"bytes": postscript, "path": "a.png"}, {"bytes": None, "path": None}, {"path": "absent.png"}):
            table = datasets.Dataset.from_dict({"image": [broken], "question": ["?"]})
            with pytest.raises(ImageError, match="row 0: "):
                read_hub(table)[0]
        several = datasets.Features({"image": [datasets.Image()], "question": datasets.Value("string")})
        rows = {"image": [[{"bytes": b"broken", "path": None}]], "question": ["?"]}
        with pytest.raises(ImageError, match=r"row 0: .*cannot be read as a picture"):
            read_hub(datasets.Dataset.from_dict(rows, features=several))[0]
        with pytest.raises(InvalidInputError, match=r"no column 'image\.bytes'"):
            read_hub(table, columns={"image": "image.bytes"})

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

    def test_open_samples_are_upright_before_they_are_changed(self) -> None:
        tag, turned = Image.Exif(), io.BytesIO()
        tag[0x112] = 6
        picture().save(turned, "PNG", exif=tag)
        box = (10.0, 100.0, 70.0, 118.0)  # of the upright picture
        found = Dataset.of([Sample(Image.open(turned), "?", ("a",), (box,))], "one").change(lambda image, _: image, "")
        assert np.array_equal(found[0].image, picture().transpose(Image.Transpose.ROTATE_270))
        assert found[0].boxes == (box,)

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
