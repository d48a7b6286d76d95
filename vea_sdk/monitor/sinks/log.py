"""Records and alerts to Python's logging."""

from __future__ import annotations

import logging

from vea_sdk.monitor.alerts import Alert
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.statistics import STATISTICS, outcome
from vea_sdk.printable import printable


class LoggingSink:
    """One line per record; the record itself rides along as the log record's attribute ``vea``, for formatters.

    In the line, what a terminal or a reader of lines would act on is escaped: ids and names come from elsewhere. In the
    attribute, they are as they were.

    Args:
        logger: a logger or its name. level: of the records; alerts are warnings, resolved ones infos.
    """

    def __init__(self, logger: logging.Logger | str = "vea_sdk.monitor", level: int = logging.INFO) -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._level = level

    def write(self, record: Record) -> None:
        if not self._logger.isEnabledFor(self._level):
            return
        values = ((one.name, one.read(record)) for one in STATISTICS)
        shown = " ".join(f"{name}={value:.4g}" for name, value in values if value is not None)
        line = "request %s %s: %s, %d image tokens %s"
        found = shown if record.unread is None else record.unread
        request, became, model, found = map(printable, (record.request, outcome(record), record.model, found))
        arguments = (request, became, model, record.image_tokens, found)
        self._logger.log(self._level, line, *arguments, extra={"vea": record.to_dict()})

    def alert(self, alert: Alert) -> None:
        """For ``Watch(on_alert=sink.alert)``."""
        level = logging.WARNING if alert.state == "firing" else logging.INFO
        self._logger.log(level, "%s", printable(alert), extra={"vea": alert.to_dict()})

    def close(self) -> None:
        """Nothing to release: the logger is the caller's."""
