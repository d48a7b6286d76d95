"""Evidence as a file, a dictionary, and a W3C Web Annotation."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vea_sdk._version import __version__
from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.errors import InvalidInputError, VeaError
from vea_sdk.whole_file import write_whole

if TYPE_CHECKING:
    from vea_sdk.evidence.result import Evidence

VERSION = 1
"""Of the file's form; raised whenever an older release could not read it."""

_ARRAYS = ("scores", "layer_scores", "head_scores")


def to_dict(evidence: Evidence) -> dict[str, Any]:
    """Everything but the pixels, ready for JSON. float32 becomes the shortest decimals that give it back."""
    arrays = {name: getattr(evidence, name) for name in _ARRAYS}
    return {
        "version": VERSION,
        "grid": list(evidence.grid),
        **_header(evidence),
        **{name: None if values is None else values.tolist() for name, values in arrays.items()},
        "stats": plain(evidence.stats),
    }


def fields_of(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of Evidence from :func:`to_dict`, but for the picture.

    Raises InvalidInputError for what is no such dictionary.
    """
    check_version(values.get("version") if isinstance(values, dict) else None, "the dictionary")
    try:
        fields = _fields(values)
        arrays = {name: values.get(name) for name in _ARRAYS}
        fields |= {name: None if rows is None else np.array(rows, np.float32) for name, rows in arrays.items()}
        stats = {name: np.array(part, np.float32) for name, part in values["stats"].items()}
    except VeaError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"the dictionary holds no evidence ({type(error).__name__}: {error}). Give what to_dict() returned."
        ) from error
    return fields | {"stats": stats}


def save(evidence: Evidence, path: str | Path, image: bool) -> None:
    """See :meth:`Evidence.save`."""
    arrays = {name: getattr(evidence, name) for name in _ARRAYS if getattr(evidence, name) is not None}
    others = {name: part for name, part in evidence.stats.items() if not isinstance(part, np.ndarray)}
    arrays |= {f"stats.{name}": part for name, part in evidence.stats.items() if name not in others}
    header = _header(evidence) | {"version": VERSION, "vea_sdk": __version__, "stats": plain(others)}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    if image:
        png = io.BytesIO()
        evidence.image.save(png, format="PNG")
        arrays["image"] = np.frombuffer(png.getvalue(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_whole(path, buffer.getvalue())


def load(path: str | Path) -> tuple[dict[str, Any], Image.Image | None]:
    """The fields of Evidence but for the picture, and that, where the file holds it; see :meth:`Evidence.load`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop("header").tobytes())
        check_version(header["version"], repr(str(path)))
        fields = _fields(header)
        png = arrays.pop("image", None)
        fields |= {name: arrays.get(name) for name in _ARRAYS}
        stats = {name.removeprefix("stats."): part for name, part in arrays.items() if name.startswith("stats.")}
        picture = None if png is None else Image.open(io.BytesIO(png.tobytes()), formats=["PNG"]).convert("RGB")
    except FileNotFoundError as error:
        raise InvalidInputError(f"there is no file {str(path)!r}.") from error
    except VeaError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"{str(path)!r} holds no evidence ({type(error).__name__}). Load what Evidence.save() wrote."
        ) from error
    return fields | {"stats": header["stats"] | stats}, picture


def to_annotation(evidence: Evidence, source: str) -> dict[str, Any]:
    """The boxes of a look as a Web Annotation (W3C Recommendation, Web Annotation Data Model), ready for JSON.

    One target per box: ``source`` with a fragment selector of Media Fragments, ``xywh=pixel:x,y,w,h`` in whole original
    pixels that cover the box. The body says what was asked, as text. A constant map has the whole picture as target.
    """
    if not isinstance(source, str) or not source.strip():
        raise InvalidInputError(f"source={source!r} must be the picture's IRI, such as file:///receipt.png.")
    targets: list[Any] = [
        {
            "source": source,
            "selector": {
                "type": "FragmentSelector",
                "conformsTo": "http://www.w3.org/TR/media-frags/",
                "value": _fragment(region.box),
            },
        }
        for region in evidence.boxes()
    ]
    said = evidence.question or "where the model looked"
    return {
        "@context": "http://www.w3.org/ns/anno.jsonld",
        "type": "Annotation",
        "motivation": "highlighting",
        "generator": {"type": "Software", "name": f"vea-sdk {__version__}"},
        "body": {"type": "TextualBody", "value": said, "format": "text/plain", "purpose": "describing"},
        "target": targets if len(targets) > 1 else targets[0] if targets else source,
    }


def check_version(version: object, where: str) -> None:
    """Raises InvalidInputError for a form that this release does not know."""
    if not isinstance(version, int) or version < 1:
        raise InvalidInputError(f"{where} says version {version!r}, which is none. Give what this package wrote.")
    if version > VERSION:
        raise InvalidInputError(
            f"{where} is of version {version}, written by a newer vea-sdk; this one ({__version__}) reads up to "
            f"{VERSION}. Upgrade: pip install -U vea-sdk."
        )


def plain(value: Any) -> Any:
    """Arrays and tensors → lists and numbers."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _header(evidence: Evidence) -> dict[str, Any]:
    layout = evidence.layout
    return {
        "question": evidence.question,
        "layers": list(evidence.layers),
        "lam": evidence.lam,
        "sigma": evidence.sigma,
        "alpha": evidence.alpha,
        "layout": {
            "original_size": list(layout.original_size),
            "input_size": list(layout.input_size),
            "input_region": list(layout.input_region),
            "n_tokens": layout.n_tokens,
            "grids": [{"region": list(grid.region), "token_index": grid.token_index.tolist()} for grid in layout.grids],
        },
    }


def _fields(header: dict[str, Any]) -> dict[str, Any]:
    layout = header["layout"]
    grids = [PatchGrid(tuple(grid["region"]), np.array(grid["token_index"])) for grid in layout["grids"]]
    return {
        "question": header["question"],
        "layers": tuple(int(layer) for layer in header["layers"]),
        "lam": header["lam"],
        "sigma": header["sigma"],
        "alpha": header["alpha"],
        "layout": ImageLayout(
            tuple(layout["original_size"]),
            tuple(layout["input_size"]),
            tuple(layout["input_region"]),
            int(layout["n_tokens"]),
            tuple(grids),
        ),
    }


def _fragment(box: tuple[float, float, float, float]) -> str:
    x0, y0 = (int(np.floor(edge + 1e-9)) for edge in box[:2])
    x1, y1 = (int(np.ceil(edge - 1e-9)) for edge in box[2:])
    return f"xywh=pixel:{x0},{y0},{x1 - x0},{y1 - y0}"
