"""``with handle.request(...)``: who asks, and which pictures; seen by every monitor in the same context."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from vea_sdk.adapters.geometry import check_size
from vea_sdk.capture.interception import Span
from vea_sdk.errors import InvalidInputError

Sizes = tuple[tuple[int, int], ...]
_numbers = itertools.count()
_log = logging.getLogger("vea_sdk.monitor")


class RequestScope(Span):
    """Names the prompts that are fed inside it, and ends what began inside it."""

    def __init__(self, ids: str | Sequence[str], image_sizes: Sequence[Any] | None = None) -> None:
        super().__init__()
        single = isinstance(ids, str)
        self.ids = (ids,) if isinstance(ids, str) else tuple(ids)
        if not self.ids or not all(isinstance(one, str) for one in self.ids):
            raise InvalidInputError(f"request ids must be a string, or strings for the rows of a batch; got {ids!r}.")
        if image_sizes is None:
            self.image_sizes: tuple[Sizes, ...] | None = None
        else:
            self.image_sizes = tuple(_sizes(one) for one in ([image_sizes] if single else image_sizes))
            if len(self.image_sizes) != len(self.ids):
                raise InvalidInputError(
                    f"{len(self.ids)} request ids and image_sizes for {len(self.image_sizes)}: give a list of "
                    "(height, width) for each request."
                )
        self._token: Token[RequestScope | None] | None = None

    def __enter__(self) -> RequestScope:
        self._token = SCOPE.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        with suppress(ValueError):  # left in another context than entered, as by a generator that streams
            SCOPE.reset(self._token)
        self.end(error)


SCOPE: ContextVar[RequestScope | None] = ContextVar("vea_sdk_request", default=None)


@dataclass(frozen=True)
class Request:
    """A request of a batch: which one, its first row, its name, what is hashed to decide on it, its pictures' sizes."""

    number: int
    row: int
    name: str
    key: str
    sizes: Sizes | None


def name_rows(rows: int, prompts: int | None) -> list[Request]:
    """The requests in the rows of a batch.

    ``prompts``: how many were given to ``generate()``, which repeats them for beams and for several sequences of each;
    only the first row of a prompt is followed. Without ids, or with ids that do not fit the batch, requests are
    numbered.
    """
    requests = prompts if prompts and rows % prompts == 0 else rows
    step = rows // requests
    scope = SCOPE.get()
    ids = () if scope is None else scope.ids
    sizes: Sequence[Sizes | None] = (scope and scope.image_sizes) or (None,) * len(ids)
    if len(ids) == 1 < requests:
        ids, sizes = tuple(f"{ids[0]}/{i}" for i in range(requests)), (None,) * requests
    if len(ids) == requests:
        return [Request(i, i * step, one, one, sizes[i]) for i, one in enumerate(ids)]
    if scope is not None:
        _log.warning("handle.request() names %d requests, the batch holds %d: they are numbered", len(ids), requests)
    numbers = [next(_numbers) for _ in range(requests)]
    return [Request(i, i * step, f"{os.getpid()}-{n}", str(n), None) for i, n in enumerate(numbers)]


def _sizes(sizes: Any) -> Sizes:
    try:
        found = tuple((int(height), int(width)) for height, width in sizes)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"image_sizes={sizes!r}: give the (height, width) of each picture of a request, in prompt order."
        ) from error
    for size in found:
        check_size("Each of image_sizes", size)
    return found
