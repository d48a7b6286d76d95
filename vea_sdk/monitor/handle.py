"""``vea.monitor``: attach once, leave it on. What it needs is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from vea_sdk.adapters import Adapter
from vea_sdk.capture.layers import LayerSelection, resolve_layers
from vea_sdk.capture.session import adapter_for
from vea_sdk.capture.tensor_parallel import ranks_of
from vea_sdk.errors import InvalidInputError, UnsupportedModelError

if TYPE_CHECKING:
    from vea_sdk.monitor.attached import Monitor
    from vea_sdk.monitor.sinks.base import Sink


def monitor(
    model: nn.Module,
    *,
    sample_rate: float = 0.01,
    layers: LayerSelection = "profiled",
    top_k: int = 16,
    sinks: Sequence[Sink] = (),
    max_inflight: int = 64,
    max_image_tokens: int = 4096,
    idle_timeout: float = 300.0,
    rows: bool = False,
    content: bool = False,
    processor: Any = None,
    adapter: Adapter | type[Adapter] | None = None,
    compiled: bool = False,
) -> Monitor:
    """Watch a share of the requests that a model answers, for as long as it runs.

        with vea.monitor(model, sample_rate=0.01, sinks=[sink]) as handle:
            ...  # serve

    Hooks stay on the model and return at once for requests that are not sampled. Of a sampled one the figures of
    :class:`~vea_sdk.monitor.record.Record` are computed while it runs, as by :func:`vea_sdk.capture`, and handed to
    the sinks by a thread when it has ended. The request's own output does not change by a bit, whatever goes wrong;
    with ``compiled=True`` the compiler may round last bits of its logits otherwise.

    Every row of a batch is a request. It begins with the first pass of its prompt and ends when ``generate()`` returns
    or raises, with its ``handle.request()``, when its cache is freed, with the next prompt on the same cache or,
    without a cache, in the same thread, after ``idle_timeout`` seconds without a pass, or with ``close()``; whichever
    is first.

    Args:
        sample_rate: share of the requests, 0 to 1, chosen by a hash of their id, or of their number if they have none.
        layers: as for ``vea.capture``.
        top_k: how many of the highest image tokens a record names.
        sinks: where records go, see ``vea_sdk.monitor.sinks``.
        max_inflight: sampled requests at once, from their first pass until they are read; beyond, they are counted as
            dropped.
        max_image_tokens: what a place has room for; a request with more is dropped.
        idle_timeout: seconds.
        rows: also record every layer's row over the image tokens, which is copied to the host for this.
        content: also record prompt and answer.
        processor: the model's, for the geometry of pictures and to decode recorded content.
        adapter: an adapter (or its class) instead of the registered one.
        compiled: also follow passes inside of ``torch.compile`` and of captured CUDA graphs. Their graphs then compute
            a row in every pass, of which requests that are not sampled read no key. One such pass at a time: see
            docs/monitor.md.

    Raises:
        UnsupportedModelError: when no adapter serves the model, or its heads are spread over processes.
        LayerError: when ``layers`` cannot be resolved.
        InvalidInputError: for a number out of range, or a sink that is none.
    """
    from vea_sdk.monitor.attached import Monitor
    from vea_sdk.monitor.sinks.base import Sink

    for name, value, least in (
        ("top_k", top_k, 0),
        ("max_inflight", max_inflight, 1),
        ("max_image_tokens", max_image_tokens, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise InvalidInputError(f"{name}={value!r}; give a whole number of at least {least}.")
    if not idle_timeout > 0:
        raise InvalidInputError(f"idle_timeout={idle_timeout!r}; give seconds, more than 0.")
    for i, sink in enumerate(sinks):
        if isinstance(sink, type) or not isinstance(sink, Sink):
            raise InvalidInputError(f"sinks[{i}]={sink!r} has no write(record) and close(); see vea_sdk.monitor.sinks.")
    found = adapter_for(model, adapter, None)
    if ranks_of(found.model) is not None:
        raise UnsupportedModelError(
            f"{found.name}: its heads are spread over processes, and a mean over them all would make every process "
            "wait for the others in the middle of a request. Use vea.capture, or monitor a model that is not "
            "tensor-parallel."
        )
    return Monitor(
        found,
        resolve_layers(layers, found),
        sinks,
        sample_rate,
        max_inflight,
        max_image_tokens,
        float(idle_timeout),
        content,
        compiled,
        top_k=top_k,
        rows=rows,
        processor=processor,
    )
