"""One way in for every kind of data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation.datasets import fields
from vea_sdk.evaluation.datasets.dataset import Dataset
from vea_sdk.evaluation.datasets.folder import SAMPLES_FILE, read_folder
from vea_sdk.evaluation.datasets.hub import read_hub
from vea_sdk.evaluation.datasets.visualcot import read_visualcot
from vea_sdk.evidence.images import MAX_PIXELS
from vea_sdk.grounding.samples import BoxUnit


def read(
    source: str | Path,
    images: str | Path | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    max_pixels: int = MAX_PIXELS,
    boxes: BoxUnit = "pixels",
    outside: bool = False,
) -> Dataset:
    """Read a data set, whatever it is.

    Args:
        source: a folder with ``samples.jsonl`` or that file (:func:`read_folder`); a file of VisualCoT
            (:func:`read_visualcot`); a folder of ``datasets``, or ``"hf:name"`` to fetch one (:func:`read_hub`).
        images: for VisualCoT: where its pictures lie, by default beside the file.
        split, columns: see :func:`read_hub`.
        max_pixels, boxes, outside: see :func:`read_folder`. VisualCoT's boxes are in pixels.

    Raises:
        InvalidInputError: there is nothing of these kinds, or it cannot be used.
    """
    fields.check_options(boxes)
    name = str(source)
    if name.startswith("hf:"):
        return read_hub(name.removeprefix("hf:"), split, columns, "xyxy", max_pixels, boxes, outside)
    path = Path(source)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return read_hub(path, split, columns, "xyxy", max_pixels, boxes, outside)
    if path.suffix == ".json" or (path.suffix == ".jsonl" and _is_metadata(path)):
        if boxes != "pixels":
            raise InvalidInputError(f"boxes={boxes!r}: {name} is of VisualCoT, whose boxes are in pixels.")
        return read_visualcot(path, images or path.parent, max_pixels, outside)
    if path.is_dir() or path.suffix == ".jsonl":
        return read_folder(path, max_pixels, boxes, outside)
    raise InvalidInputError(
        f"{name} is no data set: give a folder with {SAMPLES_FILE}, a .json or .jsonl of VisualCoT, a folder of the "
        "library datasets, or hf:NAME to fetch one."
    )


def _is_metadata(path: Path) -> bool:
    return "bboxs" in next(fields.json_lines(path), ("", {}))[1]
