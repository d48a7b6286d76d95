"""Hooks on the model: which pass runs, which layer, and what it attends to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vea_sdk.adapters import Adapter, AttentionCall
from vea_sdk.capture import interception
from vea_sdk.capture.compiled import CompiledPasses, is_compiled
from vea_sdk.capture.fed_prompt import FedPrompt
from vea_sdk.capture.hooks import Hook, named
from vea_sdk.capture.prompt import CACHE_NAMES, PromptTracker, Step, cache_in, fed_ids
from vea_sdk.capture.recorder import Recorder
from vea_sdk.capture.runs import Runs
from vea_sdk.errors import CaptureError, InvalidInputError
from vea_sdk.ops.step_reader import StepReader

Queries = Literal["last", "generated", "all"]


class StopForward(Exception):  # noqa: N818 - a signal that ends a forward pass, not an error
    """Raised inside the deepest selected layer once it is read, when only the rows are wanted."""


class Watch:
    """While open, follows the passes of one model and writes the wanted rows into a recorder.

    The state here belongs to the thread that opened it: hooks fire in every thread that runs the model, and return at
    once in those that did not open this watch.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        layers: tuple[int, ...],
        queries: Queries,
        prompt: PromptTracker,
        recorder: Recorder,
        stop_early: bool,
    ) -> None:
        self._model = model
        self._adapter = adapter
        self._decoder = adapter.decoder
        self._runs = Runs(adapter.modules_by_layer(), layers)
        self.modules = self._runs.modules
        self._layers = layers
        # They come by when they fetch their attention, so hooks, which cost more than that, are left to the others.
        self._visible = frozenset(filter(interception.uses_interface, self._runs.modules))
        self._stop_after = layers[-1] if stop_early else None
        self._queries = queries
        self._prompt = prompt
        self._recorder = recorder
        self._hooks: dict[nn.Module, Hook] = {}
        self._modes: list[interception.SdpaTap] = []
        self._opened = False
        self._outside: interception.GenerateCall | None = None  # the generate() inside which it was opened
        self._own = False  # whether a pass runs that is of this watch: not somebody else's, not a layer by itself
        self._outermost: nn.Module | None = None  # the model, or the part of it that was called by itself
        self._outer: dict[str, Any] = {}  # named arguments of the running outermost call
        self._fed: dict[str, Any] = {}  # the same of the decoder's call, with the outer ids and padding
        self._step: Step | None = None
        self._wants = False  # whether rows of this step are wanted
        self._reads = False  # and whether there is an image to look at
        # These can go the short way, which neither counts the runs of a module nor ends a pass.
        short = not (self._runs.looped or stop_early)
        self._stepping = {self._runs.first(m): m for m in self._visible} if short else {}
        self._offered: Collection[nn.Module] = ()  # those of which the running pass may be read so
        self.steps: dict[nn.Module, tuple[StepReader, int, int]] = {}
        self._current: nn.Module | None = None  # attention module that runs
        self._layer = 0  # the layer for which it runs
        self._inputs: tuple[Any, ...] = ((), (), {})  # names of its arguments, and these
        self._read: str | None = None  # where that module was read
        self._layers_read: list[int] = []  # in the running pass
        self._generated = 0
        # Encoder and decoder have ids and padding each; generate() runs the encoder alone, before any pass.
        self._encoder_embedding = adapter.encoder_embedding
        self._encoder_ids: Tensor | None = None
        self.fed_prompt = FedPrompt()
        self.beams = 1
        self._decoder_prefix = adapter.decoder_prefix
        self._compiled = CompiledPasses(self._runs, recorder, self._hooks.values())

    # -- opening and closing

    def open(self) -> None:
        """Attach; whatever was attached is taken away again when that fails halfway."""
        if self._opened:
            raise CaptureError("this session is already open; call vea.capture() again for another one.")
        self._opened = True
        self._outside = interception.CALL.get()
        interception.acquire()
        try:
            interception.ACTIVE.set((*interception.ACTIVE.get(), self))
            for module in around(self._decoder, self._model):
                self._hook(module, self._enter_model, self._leave_model)
            if self._decoder is not self._model:
                self._hook(self._decoder, self._enter_decoder, self._leave_model)
            if self._encoder_embedding is not None:
                self._hook(self._encoder_embedding, self._enter_encoder)
            for module in self._runs.modules:
                if module not in self._visible:
                    self._hook(module, self._enter_attention, self._leave_attention)
                    self._see_end(module)
            self._compiled.open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Detach, and restore every attribute that was touched."""
        self._compiled.close()
        for hook in self._hooks.values():
            hook.detach()
        self._hooks.clear()
        while self._modes:  # left open only when the forward pass was torn down from outside
            self._modes.pop().close()
        self._outer, self._fed, self._step, self._current, self._encoder_ids = {}, {}, None, None, None
        self._forget_steps()
        self._outermost, self._outside, self._own = None, None, False
        self._inputs = ((), (), {})
        interception.ACTIVE.set(tuple(watch for watch in interception.ACTIVE.get() if watch is not self))
        if self._opened:
            self._opened = False
            interception.release()

    def _hook(self, module: nn.Module, enter: Callable[..., None], leave: Callable[..., None] | None = None) -> None:
        self._hooks[module] = Hook(module, enter, leave)
        self._hooks[module].attach()

    def _see_end(self, module: nn.Module) -> None:
        """Be told of the end of the module's calls, the running one included."""
        hook = self._hooks.get(module)  # None: somebody else has hooked the model
        if hook is not None and not hook.sees_end:
            hook.see_end()

    # -- hooks: which pass, which layer

    def _here(self) -> bool:
        """Whether this watch belongs to the running thread; another thread may run the same model."""
        return self in interception.ACTIVE.get()

    def _enter_model(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._outermost is not None or not self._here():
            return
        self._outermost = module
        self._see_end(module)
        self._outer = named(names, args, kwargs)
        self._step = None
        if not self._is_own(self._outer):
            self._pass_by()
        elif is_compiled(module):
            self._tell(names, self._outer, module)
        elif self._decoder is module:
            self._begin(names, self._outer)

    def _enter_decoder(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if not self._here():
            return
        fed = named(names, args, kwargs)
        if self._outermost is None:  # it is called by itself
            self._outermost = module
            if not self._is_own(fed):
                self._pass_by()
        compiled = is_compiled(module)
        if compiled or module is self._outermost:
            self._see_end(module)
        if not self._own:
            return
        if not (compiled and self._tell(names, fed, module)):
            self._begin(names, fed)

    def _leave_model(self, module: nn.Module, args: Any, output: Any) -> None:
        """The end of the outermost call, and of a decoder that is compiled by itself."""
        outermost = module is self._outermost
        if not (outermost or module is self._decoder) or not self._here():
            return
        try:
            if is_compiled(module):
                self.end_compiled(output is not None)
            elif output is not None:
                self._check_pass()
        finally:
            if outermost:
                self._outermost, self._step, self._own = None, None, False
                self._outer, self._fed = {}, {}  # which hold the cache
                self._forget_steps()
                self._runs.begin()

    def _is_own(self, fed: Mapping[str, Any]) -> bool:
        """Whether a pass with these named arguments belongs here: inside ``generate()``, only those that it makes
        itself, on the cache that it fills; elsewhere, all but tokens that go on with an earlier prompt."""
        call, cache = interception.CALL.get(), cache_in(fed)
        if call is self._outside:
            ids = fed_ids(fed)
            self._own = ids is None or not self._prompt.left(cache, ids.shape[1])
        else:  # a run inside another one is somebody else's
            self._own = call is not None and call.outer is self._outside and call.owns(cache, fed_ids(fed))
        return self._own

    def _pass_by(self) -> None:
        """Read nothing of the pass that begins: it is somebody else's."""
        self._step = None
        self._forget_steps()

    def _check_pass(self) -> None:
        """At its end: a layer that was passed by would leave a row of zeros."""
        if self._step is None or not self._reads or (not self.steps and len(self._offered) == len(self._layers)):
            return
        read = {*self._layers_read, *(self._runs.first(module) for module in self._offered if module not in self.steps)}
        if len(read) < len(self._layers):
            passed_by = [layer for layer in self._layers if layer not in read]
            raise CaptureError(
                f"a pass ended in which the attention of layers {passed_by} was not computed, or not by the function "
                "that Transformers hands out. Capture layers that run in every pass."
            )

    def _enter_encoder(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._here():
            self._encoder_ids = next(iter(named(names, args, kwargs).values()))

    def _begin(self, names: tuple[str, ...], fed: Mapping[str, Any]) -> None:
        """Start a pass of the decoder. The outer call knows ids and padding, the inner one what is really fed."""
        if self._step is not None:  # the same call has run the decoder before
            self._check_pass()
        self._runs.begin()
        self._layers_read.clear()
        embeds, ids = fed.get("inputs_embeds"), fed.get("input_ids")
        tokens = embeds if isinstance(embeds, Tensor) else ids
        cache = cache_in(fed)
        if isinstance(tokens, Tensor) and (step := self._prompt.advance_by_token(cache, tokens)) is not None:
            self._take(step)
            return
        self._fed = {**self._outer, **fed}
        for name in ("input_ids", "attention_mask"):
            outer = self._outer.get(self._decoder_prefix + name)
            if outer is not None or self._decoder_prefix:
                self._fed[name] = fed.get(name) if outer is None else outer
        self._fed["encoder_input_ids"] = self._encoder_ids
        known = cache is None or hasattr(cache, "get_seq_length")
        if known and not set(CACHE_NAMES).isdisjoint(names) and isinstance(tokens, Tensor):
            self._take(self._prompt.advance(self._fed, tokens))
        else:
            self._step = None  # a cache of its own kind: the first attention call will tell
            self._forget_steps()

    # -- compiled passes: everything is said before the graph runs

    def begin_compiled(self, model: nn.Module, kwargs: dict[str, Any]) -> bool:
        """Get ready for a pass of the compiled model; whether this watch follows it."""
        if model is not self._model:
            return False
        self._outer = kwargs
        if not self._is_own(kwargs):
            self._pass_by()
            return False
        # The arguments name themselves: to inspect a signature at every token would cost more than a row.
        return self._tell(tuple(kwargs), kwargs, None)

    def _tell(self, names: tuple[str, ...], fed: Mapping[str, Any], outside: nn.Module | None) -> bool:
        """Begin a compiled pass. Not where the decoder's own arguments are needed, nor where a module runs for several
        layers: the graph then breaks at the hooks, which run as ever. ``outside`` is the module whose hooks run before
        and after the graph, if any do."""
        embeds, ids = fed.get("inputs_embeds"), fed.get("input_ids")
        unknown = set(CACHE_NAMES).isdisjoint(names) or not isinstance(ids if embeds is None else embeds, Tensor)
        if unknown or self._decoder_prefix or self._adapter.merged_attention or self._runs.looped:
            return False
        self._begin(names, fed)
        if self._step is None:
            return False
        self._compiled.begin(self._step if self._reads else None, outside)
        return True

    def end_compiled(self, finished: bool) -> None:
        """Take the rows that the graph has left, if it came to its end."""
        self._outer, self._fed, self._step, self._own = {}, {}, None, False
        self._compiled.end(finished)

    def _take(self, step: Step) -> None:
        self._step = step
        if step.kind == "prompt":
            assert self._prompt.image_index is not None
            self._recorder.start(self._prompt.image_index)
            self._generated = 0
            self._keep_prompt()
        else:
            self._generated += 1
        if self._queries != "last" and (phase := interception.PHASE.get()) is not None and phase.name == "assisted":
            raise CaptureError(
                f'queries="{self._queries}" has no rows under assisted decoding or prompt lookup: tokens are fed '
                'before it is known whether they stay. Use queries="last", or generate without assistant_model= and '
                "prompt_lookup_num_tokens=."
            )
        index = self._prompt.image_index
        self._wants = self._queries == "all" or (self._queries == "generated") == (step.kind == "generated")
        self._reads = self._wants and index is not None and index.shape[1] > 0
        if self._wants:
            self._recorder.next_row(generated=self._generated)
        self._forget_steps()
        if self._reads and step.plain:
            row, kept = self._recorder.rows - 1, step.kept
            for layer, read in self._recorder.readers.items():
                if layer in self._stepping:
                    self.steps[self._stepping[layer]] = read, row, kept
            self._offered = tuple(self.steps)

    def _keep_prompt(self) -> None:
        """Remember what was fed, without the cache: generate() knows all of it, a pass by itself what it was given."""
        call = interception.CALL.get()
        inputs = self._fed if call is None else {**self._fed, **call.inputs}
        self.fed_prompt.take(inputs, self._prompt.part, self._prompt.whole)
        options = {} if call is None else call.inputs
        sources = (options.get("generation_config"), getattr(self._model, "generation_config", None))
        configured = next((n for n in (getattr(one, "num_beams", None) for one in sources) if n), 1)
        self.beams = int(options.get("num_beams") or configured) if call is not None else 1

    def _forget_steps(self) -> None:
        self._offered = ()
        self.steps.clear()

    def _enter_attention(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._here() and self._is_wanted(module):
            self._inputs = (names, args, kwargs)
            if module not in self._visible:
                tap = interception.SdpaTap(self, module)
                tap.open()
                self._modes.append(tap)

    def _is_wanted(self, module: nn.Module) -> bool:
        """Whether the module, whose turn it is, runs for a layer and in a pass that are to be read."""
        self._current = None
        if self.steps.pop(module, None) is None and module in self._offered:
            self._runs.seen[module] = 1  # it was read as a step, or has come here before
        if self._own and (self._step is None or self._wants):
            layer = self._runs.next(module)
            if layer is not None:
                self._current, self._layer, self._read = module, layer, None
        return self._current is not None

    def _leave_attention(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._current is not module or not self._here():
            return
        inputs, self._inputs, self._current = self._inputs, ((), (), {}), None
        if self._modes:
            self._modes.pop().close()
        if self._read is None and output is not None:
            self._ask_adapter(module, named(*inputs), output)

    def _ask_adapter(self, module: nn.Module, inputs: Mapping[str, Any], output: Any) -> None:
        """Read a module that no tap saw."""
        weights = self._adapter.returned_weights(output)
        if weights is not None:
            self.read_weights(module, weights, weights[..., :1, :].mT)
            return
        with torch.no_grad():
            call: object = self._adapter.attention_call(module, inputs, output)
        if isinstance(call, AttentionCall):
            self.read_call(module, call, "adapter")
            return
        where = f"layer {self._layer} ({type(module).__name__})"
        if call is not None:
            raise InvalidInputError(
                f"{where}: attention_call() of {type(self._adapter).__name__} returned {type(call).__name__}. Return "
                "vea_sdk.adapters.AttentionCall(query, key), or None."
            )
        raise CaptureError(
            f"{where} called neither Transformers' attention functions nor "
            "torch.nn.functional.scaled_dot_product_attention, so its query and keys stayed hidden. Hand over its "
            "weights or its query and keys in an adapter: returned_weights() or attention_call()."
        )

    # -- taps: what the layer attends to

    def watches(self, module: nn.Module) -> bool:
        """Whether the running attention call belongs to a layer of this watch."""
        return self._is_wanted(module) if module in self._visible else module is self._current

    def read_call(self, module: nn.Module, call: AttentionCall, source: str) -> None:
        """Read one row from query and keys."""
        if source == "sdpa" and self._read == "interface":
            return  # the very call that Transformers' function makes inside
        step = self._step_to_read(module, call.query, call.key, source)
        if step is not None:
            if source == "adapter" and call.causal and call.mask is None and step.seen > step.length:
                raise InvalidInputError(
                    f"layer {self._layer}: attention_call() says causal=True, by which query i sees keys 0 "
                    f"to i, but this pass feeds {step.length} tokens after {step.seen - step.length} earlier ones. "
                    "Leave causal out where the keys include earlier passes; the last query sees them all."
                )
            self._recorder.read_call(self._layer, call, step)
            self._finish()

    def read_weights(self, module: nn.Module, weights: Tensor, key: Tensor) -> None:
        """Read one row from the weights of an eager attention."""
        step = self._step_to_read(module, weights[..., :1], key, "interface")
        if step is not None:
            self._recorder.read_weights(self._layer, weights, step)
            self._finish()

    def unreadable(self, error: CaptureError) -> None:
        """A call that cannot be read."""
        raise error

    def _step_to_read(self, module: nn.Module, query: Tensor, key: Tensor, source: str) -> Step | None:
        """The running pass, or None when this row is not wanted or has no image token to look at."""
        if self._read is not None:
            raise CaptureError(
                f"layer {self._layer} ({type(module).__name__}) computes attention twice in one pass; "
                "which of the two looks at the image is not known."
            )
        self._read = source
        if self._step is None:
            self._take(self._prompt.advance_from_attention(query, key, self._fed))
        return self._step if self._reads else None

    def _finish(self) -> None:
        self._layers_read.append(self._layer)
        if self._layer == self._stop_after:
            raise StopForward


def around(decoder: nn.Module, model: nn.Module) -> list[nn.Module]:
    """The model and its parts around the decoder, any of which may be called; the model alone where there is none."""
    path = next((name for name, module in model.named_modules() if module is decoder), "")
    parts = path.split(".")[:-1]
    return [model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts) + 1)]
