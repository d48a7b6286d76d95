"""Where profiles are kept, and which one is a model's.

One's own come first, in the folder for data of this user (a profile is data that a program made, not a setting): on
Linux ``$XDG_DATA_HOME/vea_sdk/profiles/*.json``, by default ``~/.local/share/vea_sdk/profiles``. Then the one beside
the checkpoint, then those built in.
"""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

from vea_sdk.errors import InvalidInputError
from vea_sdk.profiles.profile import PROFILE_FILE, Profile


def find(model: Any) -> Profile | None:
    """The user's profile of this model, else the one beside its checkpoint, else the built-in one, else None.

    Raises:
        InvalidInputError: the user has two profiles of this model, or the one beside the checkpoint is broken.
    """
    names = _names(model)
    own = [(path, profile) for path, profile in _user_profiles() if profile.model in names]
    if len(own) > 1:
        both = " and ".join(str(path) for path, _ in own)
        raise InvalidInputError(f"there is more than one profile of {own[0][1].model}: {both}. Keep one of them.")
    if own:
        return own[0][1]
    return _beside(model) or next((builtin()[name] for name in names if name in builtin()), None)


def model_name(model: Any) -> str:
    """What profiles call a model: the name its checkpoint's own profile gives it, its name on the hub, or its folder's
    full path; the name of its class where it was not loaded."""
    return next(iter(_names(model)), type(model).__name__)


def belongs(profile: Profile, model: Any) -> bool:
    """Whether a profile is of this model. A model that was not loaded from anywhere has no name to differ in."""
    names = _names(model)
    return not names or profile.model in names


def user_folder() -> Path:
    """Where :func:`install` puts profiles.

    Raises InvalidInputError where this user has no home folder.
    """
    try:
        folder = platformdirs.user_data_path("vea_sdk", appauthor=False) / "profiles"
    except RuntimeError:  # so newer releases of platformdirs say it; others give a path of "~"
        folder = Path("~")
    if not folder.is_absolute():
        raise InvalidInputError(
            "this user has no home folder, in which profiles are kept. Set XDG_DATA_HOME to an absolute path, or name "
            "the profile's file: layers=vea.Profile.load(path)."
        )
    return folder


def install(profile: Profile) -> Path:
    """Keep a profile among the user's own, in place of an earlier one of the same model; returns its file."""
    earlier = [path for path, kept in _user_profiles() if kept.model == profile.model]
    path = earlier[0] if earlier else user_folder() / f"{file_stem(profile.model)}.json"
    profile.save(path)
    return path


def file_stem(model: str) -> str:
    """A model's name as part of a file's name, such as owner--name."""
    return re.sub(r"[^\w.-]+", "--", model).strip("-.") or "model"


@cache
def builtin() -> dict[str, Profile]:
    """The published profiles, by checkpoint name."""
    text = Path(__file__).with_name("builtin.json").read_text(encoding="utf-8")
    return {fields["model"]: Profile.from_dict(fields, "builtin.json") for fields in json.loads(text)}


def _names(model: Any) -> list[str]:
    """All that the model goes by, best first; nothing for one that was not loaded."""
    given = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    if not given:
        return []
    beside = _beside(model)
    folder = [str(Path(given).resolve())] if Path(given).is_dir() else []
    return [*([beside.model] if beside else []), *folder, given]


def _beside(model: Any) -> Profile | None:
    given = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    path = Path(given) / PROFILE_FILE
    return Profile.load(path) if given and path.is_file() else None


def _user_profiles() -> list[tuple[Path, Profile]]:
    try:
        paths = sorted(user_folder().glob("*.json"))
    except (InvalidInputError, OSError):  # no home, or one that must not be read: then there are none
        return []
    found = []
    for path in paths:
        try:
            found.append((path, Profile.load(path)))
        except (InvalidInputError, OSError) as error:  # it may be of any model: no reason to stop
            warnings.warn(f"a profile is left out: {error}", stacklevel=2)
    return found
