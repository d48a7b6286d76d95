"""Search path, the command line in this process, and profiles of drawn tests.

Of these, `ci` draws the same cases each time, `explore` more and new ones.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# For ``tests.conformance``. Last, because the checkout's package would hide the installed one, which holds the kernels.
sys.path.append(str(Path(__file__).parents[1]))

settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("share", settings.get_profile("ci"), max_examples=20)  # where a case costs several times more
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("ci")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """One command ``vea`` in this process: its arguments -> (exit code, stdout, stderr)."""
    from vea_sdk.cli import main

    def vea(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["vea", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return vea


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny random LLaVA, saved with its processor."""
    from families import FAMILIES

    folder = tmp_path_factory.mktemp("checkpoint")
    family = FAMILIES["llava"]()
    family.model.save_pretrained(folder)
    family.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def family() -> Any:
    """A small model with its processor, where any will do."""
    from families import FAMILIES

    return FAMILIES["llava"]()


@pytest.fixture
def sink() -> Any:
    """A monitor's sink that keeps its records."""
    from monitoring import Kept

    return Kept()
