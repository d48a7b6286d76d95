"""Profiles on disk: written whole, found in the right order, refused where they belong to another model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from families import FAMILIES

import vea_sdk as vea
from vea_sdk import profiles
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


def test_a_relative_data_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("relative/folder", ""):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert profiles.user_folder() == tmp_path / ".local" / "share" / "vea_sdk" / "profiles"


def nobody(patch: pytest.MonkeyPatch) -> None:
    """A user without an entry, as containers have them."""

    def absent(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_DATA_HOME"):
        patch.delenv(name, raising=False)
    patch.setattr("pwd.getpwuid", absent)


def relative(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("platformdirs.user_data_path", lambda *_, **__: Path("~/.local/share/vea_sdk"))


def forbidden(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    patch.setattr(Path, "glob", refuse)


@pytest.mark.parametrize("way", [nobody, relative, forbidden])
def test_without_a_home_there_are_no_profiles_of_ones_own(
    way: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    way(monkeypatch)
    with pytest.warns(UserWarning, match="no profile"):
        assert vea.capture(model, layers="profiled").layers == (2, 3)
    assert profiles.find(named("llava-hf/llava-1.5-7b-hf")).layers == (14, 15, 17, 19)  # type: ignore[union-attr]
    if way is not forbidden:
        with pytest.raises(InvalidInputError, match=r"no home folder.*XDG_DATA_HOME"):
            profiles.install(MADE)


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
