"""Profiles on disk: written whole, found in the right order, refused where they belong to another model."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from families import FAMILIES

import vea_sdk as vea
from vea_sdk import profiles, tiny
from vea_sdk.errors import InvalidInputError, LayerError
from vea_sdk.profiles import PROFILE_FILE

MADE = vea.Profile(
    model="lab/own",
    layers=(1, 3),
    source="a test",
    n_layers=4,
    auroc=(0.5, 0.9, None, 0.8),
    n_samples=7,
    auroc_low=(0.4, 0.8, None, 0.7),
    skipped={"one class": 2},
    rule="half",
)


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "vea_sdk" / "profiles"


def named(name: str) -> Any:
    return SimpleNamespace(config=SimpleNamespace(_name_or_path=name))


@pytest.fixture
def model() -> Iterator[Any]:
    """The tiny LLaVA, under a name that the test gives it."""
    config = FAMILIES["llava"]().model.config
    before = config._name_or_path
    config._name_or_path = "lab/own"
    yield FAMILIES["llava"]().model
    config._name_or_path = before


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    MADE.save(tmp_path / "p.json")
    assert vea.Profile.load(tmp_path / "p.json") == MADE
    assert hash(vea.Profile.load(tmp_path / "p.json")) == hash(MADE)
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]
    assert json.loads((tmp_path / "p.json").read_text())["auroc"][2] is None


def test_a_threshold_of_certainty(tmp_path: Path, data_home: Path) -> None:
    """Kept in the file and found again; no word of it in a profile that has none."""
    MADE.save(tmp_path / "p.json")
    assert "min_certainty" not in (tmp_path / "p.json").read_text()
    assert vea.Profile.load(tmp_path / "p.json").min_certainty is None
    for least in (0, 0.74, 1.0):
        profiles.install(replace(MADE, min_certainty=least))
        assert json.loads((data_home / "lab--own.json").read_text())["min_certainty"] == least
        assert profiles.find(named("lab/own")) == replace(MADE, min_certainty=least)
    for wrong in (-0.1, 1.1, float("nan"), True, "0.5"):
        with pytest.raises(InvalidInputError, match=f"^min_certainty={wrong!r} must be a number from 0 to 1"):
            replace(MADE, min_certainty=wrong)


def test_the_embedded_model_has_its_threshold() -> None:
    assert profiles.find(named(str(tiny.checkpoint()))).min_certainty == 0.74


def test_a_failed_save_leaves_the_old_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MADE.save(tmp_path / "p.json")
    with pytest.raises(ValueError, match="nan"):
        replace(MADE, auroc=(float("nan"),)).save(tmp_path / "p.json")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        replace(MADE, layers=(0,)).save(tmp_path / "p.json")
    assert vea.Profile.load(tmp_path / "p.json") == MADE
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no profile can be read"),
        ("[1]", "expected a JSON object, got list"),
        ('{"model": "m", "source": "s"}', "layers"),
        ('{"model": "m", "source": "s", "layers": []}', "at least one layer"),
        ('{"model": 7, "source": "s", "layers": [1]}', "a model's name"),
        ('{"model": "m", "source": "s", "layers": [1.5]}', "1.5 is no layer"),
        ('{"model": "m", "source": "s", "layers": [-1]}', "-1 is no layer"),
        ('{"model": "m", "source": "s", "layers": [1], "auroc": [NaN]}', "not finite"),
        ('{"model": "m", "source": "s", "layers": [1], "auroc": ["high"]}', "high"),
        ('{"model": "m", "source": "s", "layers": [1], "min_certainty": 74}', "min_certainty=74 must be .* 0 to 1"),
        ('{"model": "m", "source": "s", "layers": [1], "min_certainty": "high"}', "min_certainty='high'"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message) as raised:
        vea.Profile.load(path)
    assert str(path) in str(raised.value)


def test_own_profiles_come_before_those_beside_and_built_in(tmp_path: Path, data_home: Path) -> None:
    beside = tmp_path / "checkpoint"
    beside.mkdir()
    replace(MADE, model="beside").save(beside / PROFILE_FILE)
    hub = "Qwen/Qwen2.5-VL-7B-Instruct"
    assert profiles.find(named(hub)).layers == (18, 22, 24)
    assert profiles.find(named(str(beside))).model == "beside"
    assert profiles.find(named("unknown")) is None
    assert profiles.find(named("")) is None
    for name in (hub, "beside"):
        path = profiles.install(replace(MADE, model=name, source="mine"))
        assert path.parent == data_home
    assert profiles.find(named(hub)).source == "mine"
    assert profiles.find(named(str(beside))).source == "mine"


def test_a_folder_is_known_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert profiles.model_name(named("run")) == str(tmp_path / "run")
    profiles.install(replace(MADE, model=profiles.model_name(named("run"))))
    monkeypatch.chdir("/")
    assert profiles.find(named(str(tmp_path / "run"))) is not None
    assert profiles.find(named("run")) is None
    assert profiles.model_name(FAMILIES["llava"]().model) == "LlavaForConditionalGeneration"


def test_installing_again_replaces(data_home: Path) -> None:
    first = profiles.install(MADE)
    renamed = first.rename(first.with_name("mine.json"))
    assert profiles.install(replace(MADE, layers=(0,))) == renamed
    assert profiles.find(named("lab/own")).layers == (0,)
    MADE.save(data_home / "copy.json")
    with pytest.raises(InvalidInputError, match=r"more than one.*copy\.json.*mine\.json"):
        profiles.find(named("lab/own"))


def test_a_broken_own_profile_is_named_and_left_out(data_home: Path) -> None:
    profiles.install(MADE)
    (data_home / "broken.json").write_text("{")
    with pytest.warns(UserWarning, match=r"left out.*broken\.json"):
        assert profiles.find(named("lab/own")) == MADE


@pytest.mark.parametrize(
    "environment", [{"HOME": None}, {"HOME": "somewhere"}, {"HOME": None, "XDG_DATA_HOME": "relative"}]
)
def test_without_a_home_there_are_no_own_profiles(
    model: Any, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str | None]
) -> None:
    """As in a container whose user has no entry among the system's users."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("XDG_DATA_HOME")
    for name, value in environment.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert profiles.find(named("Qwen/Qwen2.5-VL-7B-Instruct")).layers == (18, 22, 24)
    with pytest.warns(UserWarning, match="no profile"):
        assert vea.capture(model, layers="profiled").layers == (2, 3)
    with pytest.raises(InvalidInputError, match="HOME"):
        profiles.install(MADE)


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(5, "input/output error")])
@pytest.mark.parametrize("method", ["iterdir", "read_text", "is_dir", "exists"])
def test_what_cannot_be_read_is_left_out(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, method: str
) -> None:
    """The user's folder, a file in it, the checkpoint's folder, its profile."""
    profiles.install(MADE)
    beside = tmp_path / "checkpoint"
    beside.mkdir()
    MADE.save(beside / PROFILE_FILE)
    model.config._name_or_path = str(beside)
    plain = getattr(Path, method)

    def denied(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.is_relative_to(tmp_path):
            raise error
        return plain(path, *arguments, **options)

    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patched.setattr(Path, method, denied)
        found = vea.capture(model, layers="profiled").layers
    left_out = any(error.strerror in str(one.message) for one in caught)
    # Where only the name of the folder is lost, the profile beside or the user's own is still found.
    assert found == ((1, 3) if method in ("iterdir", "is_dir") else (2, 3))
    assert left_out == (method != "is_dir")


def test_odd_folders(data_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file in the folder's place, a name that is too long, a pipe among the profiles, hostile JSON."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert profiles.find(named("lab/own")) is None
    with pytest.raises(InvalidInputError, match="cannot be kept in"):
        profiles.install(MADE)
    monkeypatch.setenv("XDG_DATA_HOME", f"/{'a' * 300}")
    with pytest.warns(UserWarning, match="too long"):
        assert profiles.find(named("lab/own")) is None
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    profiles.install(MADE)
    os.mkfifo(data_home / "pipe.json")
    (data_home / "deep.json").write_text("[" * 200_000)
    huge = json.loads((data_home / "lab--own.json").read_text()) | {"auroc": [10**400]}
    (data_home / "huge.json").write_text(json.dumps(huge))
    with pytest.warns(UserWarning, match="left out") as caught:
        assert profiles.find(named("lab/own")) == MADE
    assert sorted(re.findall(r"(\w+)\.json", " ".join(str(one.message) for one in caught))) == ["deep", "huge", "pipe"]


def test_a_relative_data_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("relative/folder", ""):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert profiles.user_folder() == tmp_path / ".local" / "share" / "vea_sdk" / "profiles"


def test_the_layers_of_a_profile_are_read(model: Any) -> None:
    profiles.install(MADE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vea.capture(model, layers="profiled").layers == (1, 3)
        assert vea.capture(model, layers=MADE).layers == (1, 3)


def test_without_a_profile_the_message_names_the_remedy(model: Any) -> None:
    with pytest.warns(UserWarning, match=r"no profile.*vea profile --model lab/own"):
        assert vea.capture(model, layers="profiled").layers == (2, 3)


def test_a_profile_of_another_depth_or_model_is_refused(model: Any) -> None:
    with pytest.raises(LayerError, match=r"other/one.*lab/own.*layers=\[1, 3\]"):
        vea.capture(model, layers=replace(MADE, model="other/one"))
    with pytest.raises(LayerError, match=r"lab/own with 28 layers.*lab/own with 4"):
        vea.capture(model, layers=replace(MADE, n_layers=28))
    profiles.install(replace(MADE, n_layers=28))
    with pytest.raises(LayerError, match=r"28 layers"):
        vea.capture(model, layers="profiled")
    model.config._name_or_path = ""  # a model without a name may be any
    assert vea.capture(model, layers=MADE).layers == (1, 3)
