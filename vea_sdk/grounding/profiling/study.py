"""All that a measurement shows beyond the profile, and writing it down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from vea_sdk.evidence.denoising import Border
from vea_sdk.grounding.profiling.measurement import Measurement
from vea_sdk.grounding.profiling.resampling import stability, transfer
from vea_sdk.grounding.sinks import SinkSummary, summarise
from vea_sdk.profiles import Profile
from vea_sdk.whole_file import write_whole


def study(found: Measurement, fraction: float = 0.1) -> dict[str, Any]:
    """Stability, transfer and sinks as plain numbers, lists and dictionaries, ready for JSON."""
    sinks = {border: [asdict(one) for one in summary] for border, summary in sink_summaries(found).items()}
    return {
        "stability": [asdict(one) for one in stability(found, fraction)],
        "transfer": asdict(transfer(found, fraction)),
        "sinks": sinks,
    }


def sink_summaries(found: Measurement) -> Mapping[Border, list[SinkSummary]]:
    """Border rule → sinks per layer, over all samples that were run."""
    return {border: summarise(row.sinks[border] for row in found.samples if row.sinks) for border in get_args(Border)}


def write(found: Measurement, profile: Profile, folder: str | Path) -> dict[str, Path]:
    """Write ``profile.json`` and ``study.json`` into a folder, in place of earlier ones; returns paths by name."""
    paths = {name: Path(folder) / f"{name}.json" for name in ("profile", "study")}
    profile.save(paths["profile"])
    shown = study(found, profile.fraction)
    write_whole(paths["study"], json.dumps(shown, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return paths
