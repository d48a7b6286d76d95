"""Data sets of the Hugging Face library ``datasets``, by the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from vea_sdk.errors import InvalidInputError, VeaError
from vea_sdk.evaluation.datasets import fields
from vea_sdk.evaluation.datasets.dataset import Dataset, Record
from vea_sdk.evidence.images import MAX_PIXELS, load_image
from vea_sdk.grounding.samples import BoxUnit, check_box_unit

BoxFormat = Literal["xyxy", "xywh"]
COLUMNS = ("image", "question", "answers", "boxes", "id", "kind")


def read_hub(
    source: Any,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    box_format: BoxFormat = "xyxy",
    max_pixels: int = MAX_PIXELS,
    boxes: BoxUnit = "pixels",
) -> Dataset:
    """Read a data set of ``datasets``; only the columns named are touched, and pictures are decoded when asked for.

    Args:
        source: a ``datasets.Dataset``, a folder written by ``save_to_disk``, or a name on the hub, which is fetched.
        split: such as "validation"; needed when there are several.
        columns: from our names (image, question, answers, boxes, id, kind) to theirs, where they differ. A dot reaches
            into lists and structs, such as ``"answers.answer"`` for VQAv2. Boxes are in pixels of the original picture.
        box_format: (x0, y0, x1, y1) or (x0, y0, width, height).
        max_pixels, boxes: see :func:`read_folder`.

    Raises:
        InvalidInputError: nothing can be read there, a column is absent, or a row does not hold what it should.
        VeaError: ``datasets`` is not installed.
    """
    if box_format not in get_args(BoxFormat):
        raise InvalidInputError(f'box_format={box_format!r} is unknown. Choose "xyxy" or "xywh".')
    check_box_unit(boxes)
    table, name = _table(source, split)
    names = {ours: ours for ours in COLUMNS if ours in table.column_names} | dict(columns or {})
    _check_columns(names, table.column_names, name)
    plain = table.select_columns(sorted({path.partition(".")[0] for ours, path in names.items() if ours != "image"}))
    pictures = _undecoded(table, names["image"])
    records = []
    for number, found in enumerate(plain):
        where = f"{name}, row {number}"
        row = {ours: _reach(found, path, where) for ours, path in names.items() if ours != "image"}
        found_boxes = fields.boxes(row, "boxes", where)
        if box_format == "xywh":
            found_boxes = tuple((x, y, x + width, y + height) for x, y, width, height in found_boxes)
        records.append(
            Record(
                open=partial(_open, pictures, number, names["image"], max_pixels),
                question=fields.text(row, "question", where),
                answers=fields.texts(row, "answers", where),
                boxes=found_boxes,
                id=fields.text(row, "id", where, default=str(number)),
                kind=fields.text(row, "kind", where, default=""),
                where=where,
                unit=boxes,
            )
        )
    return Dataset(records, name)


def _table(source: Any, split: str | None) -> tuple[Any, str]:
    try:
        import datasets
    except ImportError as error:
        raise VeaError("Hugging Face data sets need the package: pip install 'vea-sdk[eval]'") from error
    name = str(source) if isinstance(source, str | Path) else f"a data set of {len(source)} rows"
    if isinstance(source, str | Path):
        try:
            local = any((Path(source) / file).is_file() for file in ("state.json", "dataset_dict.json"))
            source = datasets.load_from_disk(name) if local else datasets.load_dataset(name, split=split)
        except Exception as error:  # whatever loading scripts, servers and files can raise
            raise InvalidInputError(f"no data set can be read from {name}: {error}") from error
    if isinstance(source, datasets.DatasetDict):
        chosen = split or (next(iter(source)) if len(source) == 1 else None)
        if chosen not in source:
            raise InvalidInputError(f"{name} has the splits {', '.join(source)}; split={split!r} is none of them.")
        source = source[chosen]
    return source, f"{name}, {split}" if split else name


def _check_columns(names: Mapping[str, str], present: list[str], name: str) -> None:
    unknown = set(names) - set(COLUMNS)
    if unknown:
        raise InvalidInputError(f"columns={sorted(unknown)}: choose among {', '.join(COLUMNS)}.")
    for ours in ("image", "question"):
        if ours not in names:
            raise InvalidInputError(f"{name} has no column {ours!r}; say which one serves: {', '.join(present)}.")
    absent = [path for path in names.values() if path.partition(".")[0] not in present]
    if absent:
        raise InvalidInputError(f"{name} has no column {', '.join(map(repr, absent))}; it has {', '.join(present)}.")


def _undecoded(table: Any, column: str) -> Any:
    """The column of pictures, as bytes or paths where it can be had so: their size is then checked before decoding."""
    import datasets

    pictures = table.select_columns([column])
    if isinstance(table.features[column], datasets.Image):
        return pictures.cast_column(column, datasets.Image(decode=False))
    return pictures


def _reach(row: Mapping[str, Any], path: str, where: str) -> Any:
    value: Any = row
    for part in path.split("."):
        try:
            value = [item[part] for item in value] if isinstance(value, list) else value[part]
        except (KeyError, TypeError) as error:
            raise InvalidInputError(f"{where} has nothing at {path!r}.") from error
    return value


def _open(pictures: Any, number: int, column: str, max_pixels: int) -> Image.Image:
    value = pictures[number][column]
    if isinstance(value, dict):
        value = value["bytes"] or Path(value["path"])
    return load_image(value, max_pixels)
