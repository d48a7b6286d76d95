"""The capture session: hooks on while it is open, rows on the device when it closes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vea_sdk import adapters
from vea_sdk.adapters import Adapter
from vea_sdk.capture import interception
from vea_sdk.capture.call import AttentionCall
from vea_sdk.capture.layers import LayerSelection, resolve_layers
from vea_sdk.capture.prompt import ImagePositions, PromptTracker, Step
from vea_sdk.capture.recorder import Recorder
from vea_sdk.capture.stats import Stats, row_stats
from vea_sdk.errors import CaptureError, InvalidInputError, UnsupportedModelError

Queries = Literal["last", "generated", "all"]


class StopForward(Exception):  # noqa: N818 - a signal that ends a forward pass, not an error
    """Raised inside the deepest selected layer once it is read, when only the rows are wanted."""


class Session:
    """Captures head-averaged image attention from a model that runs inside it. Open it with :func:`capture`.

    Every prompt fed to the model starts anew: the results describe the latest prompt and what was generated from it.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: LayerSelection,
        queries: Queries,
        top_k: int | None,
        image_positions: ImagePositions | None,
        adapter: Adapter,
        stop_early: bool = False,
    ) -> None:
        if queries not in get_args(Queries):
            raise InvalidInputError(f'queries={queries!r} is unknown. Choose "last", "generated" or "all".')
        if top_k is not None and top_k < 0:
            raise InvalidInputError(f"top_k={top_k} is negative. Give the number of patches to mark, or None.")
        self._model = model
        self._adapter = adapter
        self._queries = queries
        self._modules = adapter.attention_modules()
        self.layers: tuple[int, ...] = resolve_layers(layers, adapter)
        self._layer_of = {self._modules[layer]: layer for layer in self.layers}
        self._stop_after = self._modules[self.layers[-1]] if stop_early else None
        self._recorder = Recorder(self.layers, top_k)
        self._prompt = PromptTracker(adapter, image_positions)
        self._handles: list[RemovableHandle] = []
        self._taps: list[interception.SdpaTap] = []
        self._outer: dict[str, Any] = {}  # named arguments of the running outermost call
        self._fed: dict[str, Any] = {}  # the same of the decoder's call, with the outer ids and padding
        self._step: Step | None = None
        self._current: nn.Module | None = None  # attention module between its pre- and post-hook
        self._read: str | None = None  # where that module was read
        self._visible: list[int] = []  # per row: generated tokens it sees beyond the prompt
        self._generated = 0
        self._sink_layers: set[int] = set()
        self._acquired = False

    # -- opening and closing ---------------------------------------------------------------------------------------

    def __enter__(self) -> Session:
        if self._acquired:
            raise CaptureError("this session is already open; call vea.capture() again for another one.")
        try:
            interception.acquire()
            self._acquired = True
            interception.ACTIVE.set((*interception.ACTIVE.get(), self))
            self._attach()
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._detach()
        return kind is StopForward

    def _attach(self) -> None:
        decoder = self._adapter.decoder
        self._hook(self._model, self._enter_model, self._leave_model)
        if decoder is not self._model:
            self._hook(decoder, self._enter_decoder, None)
        for module in self._layer_of:
            self._hook(module, self._enter_attention, self._leave_attention)

    def _hook(self, module: nn.Module, enter: Callable[..., None], leave: Callable[..., None] | None) -> None:
        names = tuple(inspect.signature(module.forward).parameters)
        self._handles.append(module.register_forward_pre_hook(partial(enter, names), with_kwargs=True))
        if leave is not None:
            self._handles.append(module.register_forward_hook(leave, always_call=True))

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        while self._taps:  # left open only when the forward pass was torn down from outside
            self._taps.pop().__exit__(None, None, None)
        self._outer, self._fed, self._step, self._current = {}, {}, None, None
        interception.ACTIVE.set(tuple(session for session in interception.ACTIVE.get() if session is not self))
        if self._acquired:
            self._acquired = False
            interception.release()

    # -- hooks: which pass, which layer ----------------------------------------------------------------------------

    def _here(self) -> bool:
        """Whether this session belongs to the running thread; another thread may run the same model."""
        return any(session is self for session in interception.ACTIVE.get())

    def _enter_model(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if not self._here():
            return
        self._outer = {**dict(zip(names, args, strict=False)), **kwargs}
        self._step = None
        if self._adapter.decoder is module:
            self._begin(names, self._outer)

    def _leave_model(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._here():
            self._outer, self._step = {}, None

    def _enter_decoder(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._here():
            self._begin(names, {**dict(zip(names, args, strict=False)), **kwargs})

    def _begin(self, names: tuple[str, ...], fed: Mapping[str, Any]) -> None:
        """Start a pass of the decoder. The outer call knows ids and padding, the inner one what is really fed."""
        self._fed = {**fed}
        for name in ("input_ids", "attention_mask"):
            if self._outer.get(name) is not None:
                self._fed[name] = self._outer[name]
        embeds, ids = fed.get("inputs_embeds"), fed.get("input_ids")
        tokens = embeds if isinstance(embeds, Tensor) else ids
        if "past_key_values" in names and isinstance(tokens, Tensor):
            self._take(self._prompt.advance(self._fed, tokens))
        else:
            self._step = None  # a cache of its own kind: the first attention call will tell

    def _take(self, step: Step) -> None:
        self._step = step
        if step.kind == "prompt":
            assert self._prompt.image_index is not None
            self._recorder.start(self._prompt.image_index)
            self._visible.clear()
            self._generated = 0
        else:
            self._generated += 1
        if self._wanted(step):
            self._recorder.next_row()
            self._visible.append(self._generated)

    def _wanted(self, step: Step) -> bool:
        return self._queries == "all" or (self._queries == "generated") == (step.kind == "generated")

    def _enter_attention(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if not self._here() or (self._step is not None and not self._wanted(self._step)):
            return
        self._current, self._read = module, None
        if not interception.uses_interface(module):
            tap = interception.SdpaTap(self, module)
            tap.__enter__()
            self._taps.append(tap)

    def _leave_attention(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._current is not module or not self._here():
            return
        self._current = None
        if self._taps:
            self._taps.pop().__exit__(None, None, None)
        if self._read is None and output is not None:
            raise CaptureError(
                f"layer {self._layer_of[module]} ({type(module).__name__}) called neither Transformers' attention "
                "functions nor torch.nn.functional.scaled_dot_product_attention, so its query and keys stayed hidden."
            )

    # -- taps: what the layer attends to ---------------------------------------------------------------------------

    def watches(self, module: nn.Module) -> bool:
        """Whether the running attention call belongs to a layer of this session."""
        return module is self._current

    def read_call(self, module: nn.Module, call: AttentionCall, source: str) -> None:
        """Read one row from query and keys (called by the taps)."""
        if source == "sdpa" and self._read == "interface":
            return  # the very call that Transformers' function makes inside
        step = self._once(module, call.query, call.key, source)
        if step is None:
            return
        if call.sinks is not None:
            self._sink_layers.add(self._layer_of[module])
        self._recorder.read_call(self._layer_of[module], call, step)
        self._finish(module)

    def read_weights(self, module: nn.Module, weights: Tensor, key: Tensor) -> None:
        """Read one row from the weights of an eager attention (called by the taps)."""
        step = self._once(module, weights[..., :1], key, "interface")
        if step is None:
            return
        self._recorder.read_weights(self._layer_of[module], weights, step)
        self._finish(module)

    def _once(self, module: nn.Module, query: Tensor, key: Tensor, source: str) -> Step | None:
        if self._read is not None:
            raise CaptureError(
                f"layer {self._layer_of[module]} ({type(module).__name__}) computes attention twice in one pass; "
                "which of the two looks at the image is not known."
            )
        self._read = source
        if self._step is None:
            self._take(self._prompt.advance_from_attention(query, key, self._fed))
        assert self._step is not None
        index = self._prompt.image_index
        return self._step if self._wanted(self._step) and index is not None and index.shape[1] else None

    def _finish(self, module: nn.Module) -> None:
        if module is self._stop_after:
            raise StopForward

    # -- results ---------------------------------------------------------------------------------------------------

    @property
    def attention(self) -> Tensor:
        """a, the mean over query heads of each head's softmax probability: [layers, batch, queries, image tokens].

        float32, on the device of the first selected layer. Absent tokens (padding of the image axis) hold 0, and so
        do image keys that have left a sliding window. A row is not renormalised over the image. NaN stays NaN.

        Raises:
            ImageTokenError: when the prompt held no image tokens.
            CaptureError: when no pass ran inside the session.
        """
        self._require_rows()
        return self._recorder.scores()

    @property
    def topk(self) -> Tensor:
        """Mask of the ``top_k`` highest image tokens per row, bool, same shape as :attr:`attention`."""
        if self._recorder.top_k is None:
            raise CaptureError("no top-k mask was kept; open the session with top_k=.")
        self._require_rows()
        return self._recorder.masks()

    @property
    def image_index(self) -> Tensor:
        """Key positions of the image tokens in the prompt, [batch, image tokens] int64, -1 for none."""
        if self._prompt.image_index is None:
            self._require_rows()
        assert self._prompt.image_index is not None
        return self._prompt.image_index

    @property
    def stats(self) -> Stats:
        """Image mass, peak, entropy and RAPT of every row, each [layers, batch, queries]."""
        rows = self.attention
        assert self._prompt.valid_tokens is not None
        beyond = torch.tensor(self._visible, device=rows.device)
        visible = self._prompt.valid_tokens.to(rows.device)[:, None] + beyond[None]
        tokens = (self.image_index >= 0).sum(1).to(rows.device)
        sinks = torch.tensor([layer in self._sink_layers for layer in self.layers], device=rows.device)
        return row_stats(rows, tokens, visible, sinks)

    def _require_rows(self) -> None:
        if self._prompt.missing is not None:
            raise self._prompt.missing
        if self._prompt.image_index is None:
            raise CaptureError(
                "nothing was captured: the model did not run inside this session. A session belongs to the thread "
                "that opened it; open it in the thread that calls the model."
            )
        if not self._recorder.complete():
            raise CaptureError(
                f'no row was captured for queries="{self._queries}": the prompt ran, but '
                + ("no generated token was fed back." if self._queries == "generated" else "not every layer did.")
            )


def capture(
    model: nn.Module,
    layers: LayerSelection = "profiled",
    queries: Queries = "last",
    top_k: int | None = None,
    image_positions: ImagePositions | None = None,
    adapter: Adapter | type[Adapter] | None = None,
) -> Session:
    """Capture a(l)[t] = mean_h softmax(q·k)[t] of one query token over the image tokens while the model runs.

    Source: step 1 of "Seeing but Not Believing" (arXiv 2510.17771). The model's own attention (SDPA, flash) goes on
    running; one extra row per selected layer is computed from the same query and keys.

        with vea.capture(model, layers=[18, 22, 24]) as session:
            model.generate(**inputs)
        session.attention  # [layers, batch, queries, image tokens]

    Args:
        model: any VLM; Transformers' are known by their ``config.model_type``.
        layers: list of numbers, ``"all"``, a depth span ``(0.5, 1.0)``, or ``"profiled"``.
        queries: ``"last"`` prompt token, each ``"generated"`` token that is fed back, or ``"all"``, the prompt's first.
        top_k: also keep a mask of the k highest image tokens per row.
        image_positions: key positions of the image tokens, [batch, M] (-1 = none) or a bool mask, for callers with
            ``inputs_embeds`` and for models whose ids do not show them.
        adapter: an adapter (or its class) instead of the registered one.

    Raises:
        UnsupportedModelError: when no adapter serves the model.
        LayerError: when ``layers`` cannot be resolved.
    """
    return Session(model, layers, queries, top_k, image_positions, _adapter_for(model, adapter, image_positions))


def _adapter_for(
    model: nn.Module, adapter: Adapter | type[Adapter] | None, image_positions: ImagePositions | None
) -> Adapter:
    if isinstance(adapter, type):
        return adapter(model)
    if adapter is not None:
        return adapter
    try:
        return adapters.find(model)
    except UnsupportedModelError:
        if image_positions is None:
            raise
        return Adapter(model)  # positions are given, so only the attention modules have to be found


def can_stop_early(model: nn.Module) -> bool:
    """Whether a pass may be cut short: not where weights are moved in and out around each module."""
    return not any(getattr(getattr(module, "_hf_hook", None), "offload", False) for module in model.modules())
