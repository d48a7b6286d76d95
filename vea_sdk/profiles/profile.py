"""A profile names the visual-grounding layers of one model.

L_VG are the ceil(0.1 * L) layers whose attention best separates evidence from other patches (mean AUROC; "Seeing but
Not Believing", arXiv 2510.17771). A checkpoint may carry its own in ``vea_profile.json``; those published for larger
models are built in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vea_sdk.errors import InvalidInputError
from vea_sdk.whole_file import write_whole

PROFILE_FILE = "vea_profile.json"

PerLayer = tuple[float | None, ...]
"""One figure per decoder layer, by layer number; None where a layer was not read, such as one without softmax."""

_PER_LAYER = ("auroc", "average_precision", "ndcg", "auroc_low", "auroc_high", "chosen_share")


@dataclass(frozen=True)
class Profile:
    """The visual-grounding layers of ``model``, and where they come from.

    ``layers`` ascend. All figures per layer are empty where only the layers were published. ``min_certainty``: the
    least certainty, from 0 to 1, at which an answer of this model is to be relied on; None where none was found.
    """

    model: str
    layers: tuple[int, ...]
    source: str
    n_layers: int | None = None
    auroc: PerLayer = ()  # mean over the samples
    n_samples: int | None = None  # those that could be ranked
    fraction: float = 0.1
    reprofile_recommended: bool = False
    average_precision: PerLayer = ()
    ndcg: PerLayer = ()
    auroc_low: PerLayer = ()  # the 95% interval of the mean, from resampled samples
    auroc_high: PerLayer = ()
    chosen_share: PerLayer = ()  # in what share of the resamples the layer is chosen
    rule: str | None = None  # which patches counted as evidence
    skipped: dict[str, int] = field(default_factory=dict, hash=False)  # why samples could not be ranked, and how many
    version: str | None = None  # of this package, that made the profile
    min_certainty: float | None = None

    def __post_init__(self) -> None:
        least = self.min_certainty
        if least is not None and (isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1):
            raise InvalidInputError(f"min_certainty={least!r} must be a number from 0 to 1, or None for no threshold.")

    @classmethod
    def from_dict(cls, fields: dict[str, Any], origin: str = "profile") -> Profile:
        """Build a profile from its JSON fields; ``origin`` names the file in errors."""
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        try:
            known["layers"] = tuple(_number(layer) for layer in known["layers"])
            known |= {name: _per_layer(known[name]) for name in _PER_LAYER if name in known}
            profile = cls(**known)
        except InvalidInputError as error:
            raise InvalidInputError(f"{origin} is not a profile: {error}") from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(f"{origin} is not a profile: {error!r}. Needed: model, layers, source.") from error
        if not profile.layers or not isinstance(profile.model, str):
            raise InvalidInputError(f"{origin} is not a profile: it needs a model's name and at least one layer.")
        return profile

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile from JSON."""
        try:
            if Path(path).exists() and not Path(path).is_file():
                raise OSError("it is no file")  # a pipe would be waited for
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"no profile can be read from {path}: {error}") from error
        if not isinstance(fields, dict):
            raise InvalidInputError(f"{path} holds no profile: expected a JSON object, got {type(fields).__name__}.")
        return cls.from_dict(fields, str(path))

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON; no ``min_certainty`` where there is none."""
        fields = asdict(self)
        if self.min_certainty is None:
            del fields["min_certainty"]
        return fields

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON, in one step: whoever reads the file finds the old profile or the new one."""
        write_whole(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _number(layer: Any) -> int:
    if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
        raise ValueError(f"{layer!r} is no layer number")
    return layer


def _per_layer(values: Iterable[Any]) -> PerLayer:
    figures = tuple(None if value is None else float(value) for value in values)
    if not all(value is None or math.isfinite(value) for value in figures):
        raise ValueError("a figure of a layer is not finite")
    return figures
