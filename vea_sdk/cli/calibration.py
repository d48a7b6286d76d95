"""``vea eval --calibrate``: a threshold of certainty for a model, found in its answers and kept in its profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import typer

from vea_sdk import profiles
from vea_sdk.cli.output import check_folder
from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation import METHODS, Evaluation, Method
from vea_sdk.evaluation.calibration import LEAST_KEPT, find_gate, gates
from vea_sdk.evaluation.summary import certainties
from vea_sdk.pipeline import VLM
from vea_sdk.profiles import Profile


def check_calibration(chosen: Sequence[Method], precision: float) -> None:
    """Tell of wrong usage before a model is loaded."""
    if METHODS["base"] not in chosen:
        raise typer.BadParameter("--calibrate goes by the answers of base: name it, too.", param_hint="--methods")
    if not 0 < precision <= 1:
        raise typer.BadParameter(f"{precision} is not above 0 and at most 1.", param_hint="--precision")
    check_folder(profiles.user_folder(), "--calibrate")


def profile_to_calibrate(vlm: VLM) -> Profile:
    """The profile of the model that answers, whichever model looks.

    Raises InvalidInputError where there is none.
    """
    found = profiles.find(vlm.model)
    if found is None:
        name = profiles.model_name(vlm.model)
        raise InvalidInputError(
            f"there is no profile of {name} to keep a threshold in. Make it first: vea profile --model {name} --install"
        )
    return found


def calibrate_profile(result: Evaluation, profile: Profile, precision: float) -> tuple[dict[str, Any], str | None]:
    """Look for the threshold and keep it among the user's own profiles.

    Returns:
        what was found, ready for JSON, and why no threshold was kept, None where one was.
    """
    sure, right = certainties([row["methods"]["base"] for row in result.rows])
    summary = result.methods["base"].certainty
    found: dict[str, Any] = {"precision": precision, "ece": summary and summary.ece, "n": len(sure)}
    gate = find_gate(sure, right, precision) if sure else None
    if gate is None:
        return found | dict.fromkeys(("threshold", "kept", "right")), _why_none(sure, right, precision)
    found |= {"threshold": gate.threshold, "kept": gate.kept, "right": gate.right}
    return found | {"profile": str(profiles.install(replace(profile, min_certainty=gate.threshold)))}, None


def _why_none(sure: list[float], right: list[bool], precision: float) -> str:
    if not sure:
        return (
            "no threshold was kept, for no answer of base has a certainty. Either generate() of this model gives no "
            "logits, or an earlier version wrote results.jsonl: choose another --out then."
        )
    if len(sure) < LEAST_KEPT:
        return (
            f"no threshold was kept, for it must leave {LEAST_KEPT} answers, and only {len(sure)} have a certainty. "
            "Ask for more --samples."
        )
    best = max(gates(sure, right), key=lambda gate: gate.right)
    return (
        f"no threshold was kept, for none that leaves {LEAST_KEPT} answers has {precision:.1%} of them right. The best "
        f"one, {best.threshold:.3f}, leaves {best.n} of {best.total}, {best.right:.1%} of them right. Ask for a lower "
        "--precision, or for more --samples."
    )
