"""What ``vea watch`` follows, and how it looks on a terminal."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.statistics import STATISTICS, outcome
from vea_sdk.monitor.tail import Tail
from vea_sdk.monitor.watch import Watch
from vea_sdk.printable import printable

_SHOWN = ("image_mass", "entropy_ratio", "agreement", "certainty", "request")  # of each record


class Follower:
    """A tail whose records go through a watch."""

    def __init__(self, file: Path, window: int, rows: int, rotated: bool) -> None:
        self.tail = Tail(file, rotated)
        self.watch = Watch(window, min_history=min(200, window))
        self.last: deque[Record] = deque(maxlen=rows)

    def read(self) -> bool:
        """Take in what came; whether anything did.

        Raises:
            InvalidInputError: the file, or one beside it, cannot be read.
        """
        before = self.tail.wrong_lines
        found = False
        try:
            for record in self.tail.poll():
                self.watch.write(record)
                self.last.append(record)
                found = True
        except OSError as error:
            raise InvalidInputError(f"records cannot be read: {error}") from error
        return found or self.tail.wrong_lines > before

    def summary(self) -> dict[str, Any]:
        """For machines: the watch's summary, and what the file had that is no record."""
        tail = self.tail
        own = {"file": str(tail.path), "wrong_lines": tail.wrong_lines, "wrong": list(tail.wrong), "gaps": tail.gaps}
        return own | self.watch.summary()


def screen(follower: Follower) -> RenderableType:
    """Alerts, the last records, quantiles per model; a low terminal cuts the end off."""
    summary = follower.summary()
    parts: list[RenderableType] = [_head(summary), *map(_alert, summary["alerts"][-5:]), _records(follower.last)]
    parts += [_quantiles(model, fields) for model, fields in summary["models"].items()]
    return Group(*parts)


def _head(summary: dict[str, Any]) -> Text:
    text = Text(printable(summary["file"]), style="bold")
    if summary["wrong_lines"]:
        text.append(
            f"   {summary['wrong_lines']} wrong lines, the last: {printable(summary['wrong'][-1])}", style="red"
        )
    if summary["gaps"]:
        text.append(f"   rotated away unread: {summary['gaps']} times", style="red")
    return text


def _quantiles(model: str, fields: dict[str, Any]) -> Table:
    counts = ", ".join(f"{fields[name]} {name}" for name in ("requests", "dropped", "failed", "nan"))
    table = Table(
        title=Text(printable(f"{model}: {counts}")), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("statistic")
    for name in ("last", "p1", "p50", "p99", "PSI"):
        table.add_column(name, justify="right")
    for one in STATISTICS:
        values = fields["statistics"][one.name]
        if values["count"]:
            table.add_row(one.title, *(_number(values[key]) for key in ("last", "p1", "p50", "p99", "psi")))
    return table


def _records(records: deque[Record]) -> Table:
    table = Table(title="last requests", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("time", "request", "state"):
        table.add_column(name, no_wrap=True, max_width=14)  # the start of a UUID says which
    shown = [one for one in STATISTICS if one.name in _SHOWN]
    for one in shown:
        table.add_column(one.title, justify="right", min_width=max(map(len, one.title.split())))
    for record in reversed(records):
        state = outcome(record)
        style = "" if state == "ended" else "red"
        when = time.strftime("%H:%M:%S", time.localtime(record.time))
        texts = (Text(printable(text)) for text in (when, record.request, state))
        table.add_row(*texts, *(_number(one.read(record)) for one in shown), style=style)
    return table


def _alert(alert: dict[str, Any]) -> Text:
    when = time.strftime("%H:%M:%S", time.localtime(alert["time"]))
    line = f"{when} {alert['kind']} {alert['state']}: {alert['model']}, {alert['statistic']} {_number(alert['value'])}"
    return Text(
        printable(f"{line}, limit {_number(alert['limit'])}"), style="red" if alert["state"] == "firing" else "green"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
