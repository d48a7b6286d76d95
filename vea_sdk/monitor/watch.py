"""Does the model still look as it used to? Rolling quantiles per statistic, and alerts, from a stream of records."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.alerts import Alert
from vea_sdk.monitor.history import History, Limits
from vea_sdk.monitor.record import Record

KEPT = 100  # alerts that a summary shows


class Watch:
    """A sink that keeps history and raises alerts; works the same on records of a file.

    Per model and statistic, the values that left the last ``recent`` requests form a history of at most ``window``.
    A request votes for an alert when

    - ``image_ignored``: its image mass lies below the ``tail`` quantile (p1) of that history,
    - ``attention_scattered``: its entropy / log(image tokens) lies above the 1 − ``tail`` quantile (p99),
    - ``layers_disagree``: the agreement of its layers lies below the ``tail`` quantile,
    - ``unsure``: its certainty per token lies below the ``tail`` quantile,

    and ``votes`` of the last ``recent`` requests open the alert. One vote in a hundred is what p1 means, so a single
    one says nothing; ``votes=1`` alerts on it nevertheless. ``nan`` opens at the first NaN score. ``drift`` opens when
    the population stability index of a statistic, the last ``window`` values against the reference, exceeds ``psi``,
    or what chance alone explains if that is more, and closes below half of it.

    The reference is the first ``window`` values of a model, or those of ``reference``; :meth:`rebase` takes the
    present as the new one. Alerts go to every callable of ``on_alert``, outside any lock.

    Args:
        window: values per statistic that form the history and the windows of drift.
        recent: how many requests vote. votes: how many of them open an alert.
        tail: quantile that bounds the usual, 0 to 0.5.
        min_history: values a history needs before it is compared with.
        psi: limit of the population stability index.
        cooldown: seconds, by the records' own times, between two openings of one alert.
        on_alert: called with each :class:`Alert`, opened or resolved.
        reference: records to compare with, such as those of last week's file.

    Raises:
        InvalidInputError: an option out of range, or a reference of fewer than ``min_history`` records.
    """

    def __init__(
        self,
        window: int = 1000,
        *,
        recent: int = 20,
        votes: int = 5,
        tail: float = 0.01,
        min_history: int = 200,
        psi: float = 0.25,
        cooldown: float = 300.0,
        on_alert: Callable[[Alert], object] | Iterable[Callable[[Alert], object]] = (),
        reference: Iterable[Record] = (),
    ) -> None:
        if window < min_history or min_history < 1:
            raise InvalidInputError(f"window={window} must be at least min_history={min_history}, and that 1.")
        if not 1 <= votes <= recent:
            raise InvalidInputError(f"votes={votes} must lie between 1 and recent={recent}.")
        if not 0 < tail < 0.5:
            raise InvalidInputError(f"tail={tail} must lie between 0 and 0.5.")
        if psi <= 0 or cooldown < 0:
            raise InvalidInputError(f"psi={psi} must be positive, cooldown={cooldown} not negative.")
        self._limits = Limits(window, recent, votes, tail, min_history, psi, cooldown)
        self._callbacks = (on_alert,) if callable(on_alert) else tuple(on_alert)
        self._models: dict[str, History] = {}
        self._alerts: deque[Alert] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._set_reference(reference)

    def write(self, record: Record) -> None:
        """Take a record in and call back with what it changes.

        Raises:
            Exception: the first one of a callback, after all of them were called.
        """
        with self._lock:
            history = self._models.setdefault(record.model, History(self._limits))
            alerts = history.add(record)
            self._alerts += alerts
        errors = []
        for alert in alerts:
            for callback in self._callbacks:
                try:
                    callback(alert)
                except Exception as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Nothing to release; the summary stays readable."""

    @property
    def firing(self) -> list[Alert]:
        """The alerts that are open now."""
        with self._lock:
            return [alert for history in self._models.values() for alert in history.firing]

    def rebase(self) -> None:
        """Compare with the present from now on: after a new model version, or once a shift is understood."""
        with self._lock:
            for history in self._models.values():
                history.rebase()

    def summary(self) -> dict[str, Any]:
        """Counts, quantiles and alerts as plain values, for JSON; None where there is nothing yet."""
        with self._lock:
            models = {model: history.summary() for model, history in self._models.items()}
            firing = [alert.to_dict() for history in self._models.values() for alert in history.firing]
            return {"models": models, "firing": firing, "alerts": [alert.to_dict() for alert in self._alerts]}

    def _set_reference(self, records: Iterable[Record]) -> None:
        by_model: dict[str, list[Record]] = {}
        for record in records:
            by_model.setdefault(record.model, []).append(record)
        for model, own in by_model.items():
            if len(own) < (least := self._limits.min_history):
                raise InvalidInputError(
                    f"reference holds {len(own)} records of {model!r}; min_history={least} are needed."
                )
            self._models[model] = History(self._limits, own)
