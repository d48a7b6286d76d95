"""Where profiles are kept, and which one is a model's.

One's own come first: ``vea_sdk/profiles/*.json`` in the folder of the user's data (platformdirs; on Linux
``$XDG_DATA_HOME``, by default ``~/.local/share``: a profile is data that a program made, not a setting). Then the one
beside the checkpoint, then those built in. What cannot be read is left out with a warning, for a model runs without it.
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
    """Where :func:`install` puts profiles. A relative ``$XDG_DATA_HOME`` is not valid and ignored, as the specification
    says.

    Raises InvalidInputError where the user has no home folder.
    """
    try:
        folder = platformdirs.user_data_path("vea_sdk", appauthor=False) / "profiles"
    except RuntimeError as error:
        raise InvalidInputError(f"profiles of your own need a folder: {error}.") from error
    if not folder.is_absolute():  # what some versions give instead
        raise InvalidInputError("profiles of your own need a folder: set HOME or XDG_DATA_HOME to an absolute path.")
    return folder


def install(profile: Profile) -> Path:
    """Keep a profile among the user's own, in place of an earlier one of the same model; returns its file.

    Raises InvalidInputError when there is no folder to write to.
    """
    folder = user_folder()
    earlier = [path for path, kept in _user_profiles() if kept.model == profile.model]
    path = earlier[0] if earlier else folder / f"{file_stem(profile.model)}.json"
    try:
        profile.save(path)
    except OSError as error:
        raise InvalidInputError(
            f"the profile cannot be kept in {path}: {error}. Save it elsewhere and pass layers=profile."
        ) from error
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
    folder = [str(Path(given).resolve())] if is_folder(given) else []
    return [*([beside.model] if beside else []), *folder, given]


def _beside(model: Any) -> Profile | None:
    given = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    path = Path(given) / PROFILE_FILE
    try:
        return Profile.load(path) if given and path.exists() else None
    except OSError as error:
        warnings.warn(f"whether there is a profile beside the model cannot be seen: {error}", stacklevel=2)
    except InvalidInputError as error:
        if not isinstance(error.__cause__, OSError):  # it can be read, and it is broken
            raise
        warnings.warn(f"the profile beside the model is left out: {error}", stacklevel=2)
    return None


def is_folder(name: str | Path) -> bool:
    """Whether this is a folder; one that may not be looked at is none."""
    try:
        return Path(name).is_dir()
    except OSError:
        return False


def _user_files() -> list[Path]:
    """The files among which the user's own profiles are; none where there is no home, or the folder is not there."""
    try:
        return sorted(path for path in user_folder().iterdir() if path.suffix == ".json")
    except (InvalidInputError, FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        warnings.warn(f"profiles of your own are left out: {error}", stacklevel=2)
        return []


def _user_profiles() -> list[tuple[Path, Profile]]:
    found = []
    for path in _user_files():
        try:
            found.append((path, Profile.load(path)))
        except InvalidInputError as error:  # it may be of any model: no reason to stop
            warnings.warn(f"a profile is left out: {error}", stacklevel=2)
    return found
