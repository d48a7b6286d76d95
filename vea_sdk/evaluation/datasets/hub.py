"""Data sets of the Hugging Face library ``datasets``, by the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from vea_sdk.errors import ImageError, InvalidInputError, VeaError
from vea_sdk.evaluation.datasets import fields
from vea_sdk.evaluation.datasets.dataset import Dataset, Record
from vea_sdk.evaluation.datasets.fields import BoxFormat
from vea_sdk.evidence.images import MAX_PIXELS, load_image
from vea_sdk.evidence.sources import reason
from vea_sdk.grounding.samples import BoxUnit

COLUMNS = ("image", "question", "answers", "boxes", "id", "kind")


def read_hub(
    source: Any,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    box_format: BoxFormat = "xyxy",
    max_pixels: int = MAX_PIXELS,
    boxes: BoxUnit = "pixels",
    outside: bool = False,
) -> Dataset:
    """Read a data set of ``datasets``; only the columns named are touched, and pictures are decoded when asked for.

    Args:
        source: a ``datasets.Dataset``, a folder written by ``save_to_disk``, or a name on the hub, which is fetched.
        split: such as "validation"; needed when there are several.
        columns: from our names (image, question, answers, boxes, id, kind) to theirs, where they differ. A dot reaches
            into lists and structs, such as ``"answers.answer"`` for VQAv2. Boxes are in pixels of the original picture.
        box_format: (x0, y0, x1, y1) or (x0, y0, width, height).
        max_pixels, boxes: see :func:`read_folder`.
        outside: whether rows that name a file may name one that lies neither in the folder read nor among what the
            library has fetched. Those of a ``datasets.Dataset`` handed over may name any.

    Raises:
        InvalidInputError: nothing can be read there, a column is absent, or a row does not hold what it should.
        VeaError: ``datasets`` is not installed.
    """
    fields.check_options(boxes, box_format)
    roots = _roots(source) if isinstance(source, str | Path) and not outside else ()
    table, name = _table(source, split)
    names = {ours: ours for ours in COLUMNS if ours in table.column_names} | dict(columns or {})
    _check_columns(names, table.column_names, name)
    plain = table.select_columns(sorted({path.partition(".")[0] for ours, path in names.items() if ours != "image"}))
    pictures = _undecoded(table, names["image"])
    records = []
    for number, found in enumerate(plain):
        where = f"{name}, row {number}"
        row = {ours: _reach(found, path, where) for ours, path in names.items() if ours != "image"}
        records.append(
            Record(
                open=partial(_open, pictures, number, names["image"], roots, max_pixels),
                question=fields.text(row, "question", where),
                answers=fields.texts(row, "answers", where),
                boxes=fields.boxes(row, "boxes", where, boxes, box_format),
                id=fields.text(row, "id", where, default=str(number)),
                kind=fields.text(row, "kind", where, default=""),
                where=where,
                unit=boxes,
            )
        )
    return Dataset(records, fields.named(name, boxes))


def _table(source: Any, split: str | None) -> tuple[Any, str]:
    try:
        import datasets
    except ImportError as error:
        raise VeaError("Hugging Face data sets need the package: pip install 'vea-sdk[eval]'") from error
    name = str(source) if isinstance(source, str | Path) else f"a data set of {len(source)} rows"
    if isinstance(source, str | Path):
        _check_files(Path(source))
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


def _check_files(folder: Path) -> None:
    """Refuse a folder with a pipe or a device in it, which the library would wait for."""
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InvalidInputError(f"{folder} is no data set to be read: {path} is no file.")


def _check_columns(names: Mapping[str, str], present: list[str], name: str) -> None:
    unknown = set(names) - set(COLUMNS)
    if unknown:
        raise InvalidInputError(f"columns={sorted(unknown)}: choose among {', '.join(COLUMNS)}.")
    for ours in ("image", "question"):
        if ours not in names:
            raise InvalidInputError(f"{name} has no column {ours!r}; say which one serves: {', '.join(present)}.")
    absent = [path for path in names.values() if path.partition(".")[0] not in present]
    if names["image"] not in present:  # pictures are read one by one, as the column holds them
        absent = [names["image"], *(path for path in absent if path != names["image"])]
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


def _roots(source: str | Path) -> tuple[Path, ...]:
    """Where files of a data set may lie: in its folder, or where the library keeps what it fetches."""
    try:
        from datasets import config
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:  # reading ends in the error that names the package
        return (Path(source),)
    return (Path(source), Path(config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE))


def _open(pictures: Any, number: int, column: str, roots: tuple[Path, ...], max_pixels: int) -> Image.Image:
    try:
        value = pictures[number][column]
    except Exception as error:  # the library decodes what stands in other columns than those of pictures
        raise ImageError(f"it cannot be read as a picture: {reason(error)}") from error
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and roots and not value.lower().startswith(("data:", "http:", "https:")):
        value = Path(value.removeprefix("file://"))
        below = [root for root in roots if value.resolve().is_relative_to(root.resolve())]
        return fields.open_below(value, (below or roots)[0], max_pixels)
    return load_image(value, max_pixels)
