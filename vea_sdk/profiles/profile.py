"""A profile names the visual-grounding layers of one model.

L_VG are the ceil(0.1 * L) layers whose attention best separates evidence from other patches (mean AUROC; "Seeing but
Not Believing", arXiv 2510.17771). A checkpoint may carry its own in ``vea_profile.json``; those published for larger
models are built in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vea_sdk.errors import InvalidInputError

PROFILE_FILE = "vea_profile.json"


@dataclass(frozen=True)
class Profile:
    """The visual-grounding layers of ``model``, and where they come from."""

    model: str
    layers: tuple[int, ...]
    source: str
    n_layers: int | None = None
    auroc: tuple[float, ...] = ()  # mean per layer, empty when only the layers were published
    n_samples: int | None = None
    fraction: float = 0.1
    reprofile_recommended: bool = False

    @classmethod
    def from_dict(cls, fields: dict[str, Any], origin: str = "profile") -> Profile:
        """Build a profile from its JSON fields; ``origin`` names the file in errors."""
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        try:
            layers = tuple(int(layer) for layer in known.pop("layers"))
            auroc = tuple(float(value) for value in known.pop("auroc", ()))
            return cls(layers=layers, auroc=auroc, **known)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{origin} is not a profile: {error!r}. Needed: model, layers, source.") from error

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile from JSON."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise InvalidInputError(f"no profile can be read from {path}: {error}") from error
        if not isinstance(fields, dict):
            raise InvalidInputError(f"{path} holds no profile: expected a JSON object, got {type(fields).__name__}.")
        return cls.from_dict(fields, str(path))

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@cache
def builtin() -> dict[str, Profile]:
    """The published profiles, by checkpoint name."""
    text = Path(__file__).with_name("builtin.json").read_text(encoding="utf-8")
    return {fields["model"]: Profile.from_dict(fields, "builtin.json") for fields in json.loads(text)}


def find(model: Any) -> Profile | None:
    """The profile beside the model's checkpoint, else the built-in one of that name, else None."""
    name = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    beside = Path(name) / PROFILE_FILE
    if name and beside.is_file():
        return Profile.load(beside)
    return builtin().get(name)
