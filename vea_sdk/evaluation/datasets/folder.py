"""A folder of samples: ``samples.jsonl``, one object per line, and pictures beside it.

    {"image": "images/7.png", "question": "What is the total?", "answers": ["4.10"], "boxes": [[12, 40, 88, 61]],
     "id": "7", "kind": "receipt"}

``image`` is a path in the folder. ``boxes`` are [x0, y0, x1, y1] in pixels of that picture, upright. ``id`` and
``kind`` may be left out, the id is then the sample's place from 0 on, and so may ``answers`` or ``boxes``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation.datasets import fields
from vea_sdk.evaluation.datasets.dataset import Dataset, Record
from vea_sdk.evidence.images import MAX_PIXELS
from vea_sdk.grounding.samples import BoxUnit, Sample, prepare
from vea_sdk.whole_file import write_whole

SAMPLES_FILE = "samples.jsonl"


def read_folder(
    folder: str | Path, max_pixels: int = MAX_PIXELS, boxes: BoxUnit = "pixels", outside: bool = False
) -> Dataset:
    """Read a folder, or a ``.jsonl`` file in it; see the module for its fields.

    Args:
        folder: the folder, or the file.
        max_pixels: pictures above this are refused, see :func:`vea_sdk.evidence.load_image`.
        boxes: "relative" where they count from 0 to 1, in shares of width and height.
        outside: whether pictures may lie outside of the folder: by .., an absolute path or a link.

    Raises:
        InvalidInputError: the file is absent or holds no sample, a line is no JSON or lacks a field (its number is
            named), or an id comes twice. Pictures and boxes are checked when a sample is opened.
    """
    fields.check_options(boxes)
    given = Path(folder)
    path = given / SAMPLES_FILE if given.is_dir() else given
    if not path.is_file():
        raise InvalidInputError(f"{given} is no data set: there is no {SAMPLES_FILE} in it. See vea_sdk.evaluation.")
    records = []
    for number, (where, row) in enumerate(fields.json_lines(path)):
        source = fields.picture(row, "image", where, path.parent, outside)
        records.append(
            Record(
                open=partial(fields.open_below, source, None if outside else path.parent, max_pixels),
                question=fields.text(row, "question", where),
                answers=fields.texts(row, "answers", where),
                boxes=fields.boxes(row, "boxes", where, boxes),
                id=fields.text(row, "id", where, default=str(number)),
                kind=fields.text(row, "kind", where, default=""),
                where=where,
                unit=boxes,
            )
        )
    return Dataset(records, fields.named(given.resolve().name, boxes))


def write_folder(folder: str | Path, samples: Iterable[Sample]) -> Path:
    """Write samples as :func:`read_folder` reads them, their pictures as PNG, RGB and upright, equal ones once.

    Returns:
        The path of ``samples.jsonl``, which is written last and in one step.

    Raises:
        InvalidInputError: there is one already, no sample is given, or a picture or box of one cannot be used.
    """
    path = Path(folder) / SAMPLES_FILE
    if path.exists():
        raise InvalidInputError(f"{path} is there already. Choose another folder, or delete it.")
    (path.parent / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, given in enumerate(samples):
        sample = prepare(given, f"sample {given.id or str(number)!r}")
        image = sample.image
        digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:16]
        name = f"images/{digest}.png"
        if not (path.parent / name).exists():
            image.save(path.parent / name)
        row = {"image": name, "question": sample.question, "answers": sample.answers, "boxes": sample.boxes}
        row |= {name: value for name, value in (("id", sample.id), ("kind", sample.kind)) if value}
        lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
    if not lines:
        raise InvalidInputError(f"no sample was given to write to {folder}.")
    write_whole(path, "\n".join(lines) + "\n")
    return path
