"""VisualCoT's files (arXiv 2403.16999), in which one box stands in two coordinate spaces.

A list (``.json``): ``image`` is ``[path, "path###[x0, y0, x1, y1]"]``, and that box counts in pixels of the original
picture. The box in the second turn of ``conversations`` counts in the picture padded to a square, from 0 to 1; it is
never used as a place, only held against the first to see whether the picture is the one that was annotated.

Lines (``.jsonl``, the metadata): ``bboxs`` in pixels of a picture of ``width`` x ``height``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation.datasets import fields
from vea_sdk.evaluation.datasets.dataset import Dataset, Record
from vea_sdk.evidence.images import MAX_PIXELS
from vea_sdk.grounding.samples import Box, check_unit

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"\[{','.join([_NUMBER] * 4)}\]")
_INSTRUCTION = re.compile(r"\s*Please (think step by step and )?provide the bounding box coordinate.*", re.DOTALL)


def read_visualcot(
    file: str | Path, images: str | Path, max_pixels: int = MAX_PIXELS, outside: bool = False
) -> Dataset:
    """Read one of VisualCoT's annotation files.

    Args:
        file: a ``.json`` list of conversations, or a ``.jsonl`` of metadata.
        images: the folder that the paths of pictures start from.
        max_pixels: see :func:`read_folder`.
        outside: whether pictures may lie outside of ``images``, see :func:`read_folder`.

    Returns:
        Samples with boxes in original pixels; ``kind`` is the source data set, the id is ``source-number``.

    Raises:
        InvalidInputError: an entry lacks a field or a box, its number named. When a sample is opened: its picture is
            absent, or of another size than the annotated one.
    """
    path, root = Path(file), Path(images)
    entries = fields.json_lines(path) if path.suffix == ".jsonl" else _listed(path)
    read = _metadata if path.suffix == ".jsonl" else _conversation
    records = (read(number, row, where, root, max_pixels, outside) for number, (where, row) in enumerate(entries))
    return Dataset(records, path.name)


def padded_square_to_pixels(box: Sequence[float], width: int, height: int) -> Box:
    """(x0, y0, x1, y1) from 0 to 1 in a picture centred on a square of its longer side → pixels of the picture."""
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    x0, y0, x1, y1 = (edge * side for edge in box)
    return x0 - left, y0 - top, x1 - left, y1 - top


def _listed(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = fields.parsed(fields.text_of(path), str(path))
    if not isinstance(entries, list):
        raise InvalidInputError(
            f"{path} is no file of VisualCoT: expected a list, got a JSON {type(entries).__name__}."
        )
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise InvalidInputError(f"{where} is a JSON {type(entry).__name__}, not an object.")
        yield where, entry


def _conversation(number: int, entry: dict[str, Any], where: str, root: Path, max_pixels: int, outside: bool) -> Record:
    paths = fields.texts(entry, "image", where)
    turns = entry.get("conversations")
    if not paths or not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns):
        raise InvalidInputError(f"{where} needs 'image' and 'conversations' of two turns or more.")
    picture, below = fields.picture({"image": paths[0]}, "image", where, root, outside), None if outside else root
    pixel_boxes = tuple(_pixel_box(path, where) for path in paths[1:])
    said = _BOX.search(fields.text(turns[1], "value", where)) if pixel_boxes else None
    squared = [float(edge) for edge in said.groups()] if said else None
    question = _INSTRUCTION.sub("", fields.text(turns[0], "value", where).replace("<image>", "")).strip()
    kind = fields.text(entry, "dataset", where, default="")
    return Record(
        open=partial(_open, picture, below, max_pixels, partial(_check_turn, pixel_boxes, squared, where)),
        question=question,
        answers=(fields.text(turns[-1], "value", where),),
        boxes=pixel_boxes,
        id=f"{kind or 'visualcot'}-{fields.text(entry, 'question_id', where, default=str(number))}",
        kind=kind,
        where=where,
    )


def _metadata(number: int, row: dict[str, Any], where: str, root: Path, max_pixels: int, outside: bool) -> Record:
    kind = fields.text(row, "dataset", where, default="")
    size = row.get("width"), row.get("height")
    picture, below = fields.picture(row, "image", where, root, outside), None if outside else root
    return Record(
        open=partial(_open, picture, below, max_pixels, partial(_check_size, size, where)),
        question=fields.text(row, "question", where),
        answers=tuple(dict.fromkeys(fields.texts(row, "answer", where) + fields.texts(row, "possible_answers", where))),
        boxes=fields.boxes(row, "bboxs", where),
        id=f"{kind or 'visualcot'}-{number}",
        kind=kind,
        where=where,
    )


def _pixel_box(path: str, where: str) -> Box:
    found = _BOX.fullmatch(path.rpartition("###")[2].strip()) if "###" in path else None
    if found is None:
        raise InvalidInputError(f"{where}: {path!r} does not end in a box in pixels, ###[x0, y0, x1, y1].")
    x0, y0, x1, y1 = map(float, found.groups())
    return check_unit((x0, y0, x1, y1), "pixels", where)


def _open(path: Path, root: Path | None, max_pixels: int, check: Callable[[tuple[int, int]], None]) -> Image.Image:
    image = fields.open_below(path, root, max_pixels)
    check(image.size)
    return image


def _check_turn(pixel_boxes: tuple[Box, ...], squared: list[float] | None, where: str, size: tuple[int, int]) -> None:
    """The two spaces agree only on a picture of the annotated size."""
    if squared is None:
        return
    told = padded_square_to_pixels(squared, *size)
    union = [min(box[i] for box in pixel_boxes) for i in (0, 1)] + [max(box[i] for box in pixel_boxes) for i in (2, 3)]
    allowed = 1.5 + 0.001 * max(size)  # whole pixels here, three decimals there
    if any(abs(one - other) > allowed for one, other in zip(union, told, strict=True)):
        raise InvalidInputError(
            f"{where}: the box {_rounded(union)} and that of the conversation, {squared}, which is "
            f"{_rounded(told)} on this picture of {size[0]}x{size[1]} (width x height), differ. The "
            "picture is not of the size that was annotated."
        )


def _rounded(box: Sequence[float]) -> str:
    return f"[{', '.join(f'{edge:.0f}' for edge in box)}]"


def _check_size(annotated: tuple[Any, Any], where: str, size: tuple[int, int]) -> None:
    if None not in annotated and annotated != size:
        raise InvalidInputError(
            f"{where}: the boxes were made for a picture of {annotated[0]}x{annotated[1]} (width x height), this one "
            f"has {size[0]}x{size[1]}."
        )
