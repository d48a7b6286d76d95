"""Writing an analysis into a folder."""

from __future__ import annotations

import json
from pathlib import Path

from vea_sdk.evaluation.analysis.run import Analysis
from vea_sdk.evaluation.analysis.summaries import summary
from vea_sdk.evaluation.analysis.tables import tables
from vea_sdk.evaluation.plot import can_draw
from vea_sdk.whole_file import write_whole


def write(analysis: Analysis, folder: str | Path) -> list[Path]:
    """Write tables, summary, and, where matplotlib is installed, figures. Files of these names are replaced.

    Returns:
        What was written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = tables(analysis) | {"summary.json": json.dumps(summary(analysis), indent=2, allow_nan=False) + "\n"}
    for name, text in texts.items():
        write_whole(folder / name, text)
    written = [folder / name for name in texts]
    if can_draw():
        from vea_sdk.evaluation.analysis.figures import figures

        for name, figure in figures(analysis).items():
            figure.savefig(folder / name)
            written.append(folder / name)
    return written
