"""Where queries and keys become visible: Transformers' attention functions and torch's SDPA.

Both taps exist only while a session is open. Transformers fetches its attention function through
``AttentionInterface.get_interface`` at every call; wrapping what that returns leaves names, masks and the registry
untouched, and covers submodels that fall back to eager. ``GenerationMixin`` is asked in the same way when
``generate()`` ends, and which part of it runs: a single token that ends a prompt looks like a generated one from inside
the model. The wrappers are installed once for all open sessions (counted) and are inert in every context that opened
none.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Container, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial, wraps
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from vea_sdk import _native
from vea_sdk.adapters import AttentionCall
from vea_sdk.capture.call import from_interface, from_sdpa
from vea_sdk.capture.compiled import is_exporting, taps_of
from vea_sdk.errors import CaptureError
from vea_sdk.ops.step_reader import StepReader


class PassObserver(Protocol):
    """What is told of compiled passes."""

    def begin_compiled(self, model: nn.Module, kwargs: dict[str, Any]) -> bool: ...
    def end_compiled(self, finished: bool) -> None: ...


class Observer(PassObserver, Protocol):
    """What a session offers to the taps."""

    @property
    def modules(self) -> Container[nn.Module]:
        """Those it may watch."""

    @property
    def steps(self) -> dict[nn.Module, tuple[StepReader, int, int]]:
        """Those of them that the running pass, a step of decoding, has yet to run: what reads a call that asks for
        nothing but a softmax over all keys, into which row, and how many keys it has at least. Whoever has it read
        takes the module out."""

    def watches(self, module: nn.Module) -> bool:
        """Whether it watches the call that one of its modules makes now."""

    def read_call(self, module: nn.Module, call: AttentionCall, source: str) -> None: ...
    def read_weights(self, module: nn.Module, weights: Tensor, key: Tensor) -> None: ...
    def unreadable(self, error: CaptureError) -> None: ...


ACTIVE: ContextVar[tuple[Observer, ...]] = ContextVar("vea_sdk_active_sessions", default=())
"""The sessions open in this thread (or task), outermost first."""


@dataclass(frozen=True)
class Phase:
    """The part of ``generate()`` that runs, and the ids it was given: the whole prompt, or what follows a cache.

    "prefill" of the prompt; "assisted" decoding, which verifies drafted tokens; the prefill of a "draft" inside that.
    ``config``: of a prefill, the options of the run as they were resolved; None where they are not known.
    """

    name: Literal["prefill", "assisted", "draft"]
    ids: Tensor  # [B, N]
    config: Any = None


PHASE: ContextVar[Phase | None] = ContextVar("vea_sdk_generation_phase", default=None)


class Span:
    """A stretch of work that others end with: each is told what it raised, if anything, and what it returned."""

    def __init__(self) -> None:
        self._ends: list[Callable[[BaseException | None, Any], None]] = []

    def at_end(self, call: Callable[[BaseException | None, Any], None]) -> None:
        self._ends.append(call)

    def end(self, error: BaseException | None, result: Any = None) -> None:
        while self._ends:
            self._ends.pop()(error, result)


class GenerateCall(Span):
    """One run of ``generate()``, and the inputs that it was given: some of them never reach the model's forward.

    A pass is one of its own when it runs on the cache that this run fills. Whatever else runs the model meanwhile, a
    logits processor for one, does so on another cache.
    """

    def __init__(self, prompts: Any, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.inputs = {**options, "input_ids": options.get("input_ids", prompts)}
        self.outer = CALL.get()  # the run inside which this one was started
        self.kept: dict[int, Any] = {}  # what an observer remembers of this run, by the observer's id
        self._begun = False
        self._cache: int | None = None  # id of the cache, which lives as long as this run does
        self._ids: Tensor | None = None  # fed in its last pass, where there is no cache

    def owns(self, cache: Any, ids: Tensor | None) -> bool:
        """Whether a pass on this cache, None for none, belongs to this run; every pass must be asked about, in order.

        Its prefill shows the cache. Without one, a pass feeds the ids of the last pass and one more token.
        """
        # Some decoders wrap the cache that they are given in one with room for the encoder's keys, and return that.
        cache = getattr(cache, "self_attention_cache", cache)
        phase = PHASE.get()
        prefill = phase is not None and phase.name == "prefill"
        if not self._begun or prefill:
            self._begun, self._cache, self._ids = True, None if cache is None else id(cache), ids
            return True
        if self._cache is None and cache is not None and self._uses_cache:
            self._cache = id(cache)  # the model has made it in its first pass
        if self._cache is not None or cache is not None:
            return cache is not None and id(cache) == self._cache
        if ids is None or self._ids is None or ids is self._ids:
            return True
        rows, length = self._ids.shape[:2]
        if ids.shape != (rows, length + 1) or not torch.equal(ids[:, :-1], self._ids):
            return False
        self._ids = ids
        return True

    @property
    def _uses_cache(self) -> bool:
        configured = getattr(self.inputs.get("generation_config"), "use_cache", True)
        return self.inputs.get("use_cache", configured) is not False


CALL: ContextVar[GenerateCall | None] = ContextVar("vea_sdk_generate_call", default=None)

STANDING: list[PassObserver] = []
"""Those who are told of the compiled passes of every context; changed by replacing single entries only."""


class Patch:
    """One method of Transformers that is wrapped.

    Where somebody else has wrapped it since, it cannot be given back: the wrapper stays inside of theirs, dead, and
    does nothing but call what was there before.
    """

    def __init__(self, owner: type, name: str, wrapper: Wrapper) -> None:
        self.live = True
        self._owner, self._name = owner, name
        self._original = getattr(owner, name)
        self._ours = wrapper(self._original, self)
        setattr(owner, name, self._ours)

    def take_off(self) -> None:
        self.live = False
        if getattr(self._owner, self._name) is self._ours:
            setattr(self._owner, self._name, self._original)


Wrapper = Callable[[Callable[..., Any], Patch], Callable[..., Any]]

_lock = threading.Lock()
_open_sessions = 0
_patches: list[Patch] = []


def acquire() -> None:
    """Wrap Transformers' methods for the first open session, all or none. Does nothing when it is not loaded.

    Raises CaptureError where this Transformers lacks one of them.
    """
    global _open_sessions
    with _lock:
        if not _patches:
            _wrap_all()
        _open_sessions += 1


def release() -> None:
    """Give the methods back when the last session closes."""
    global _open_sessions
    with _lock:
        _open_sessions -= 1
        if _open_sessions == 0:
            _unwrap_all()


def _wrap_all() -> None:
    modeling, generation = (sys.modules.get(f"transformers.{name}") for name in ("modeling_utils", "generation.utils"))
    wrappers: list[tuple[Any, str, str, Wrapper]] = [
        (modeling, "AttentionInterface", "get_interface", _observing),
        (modeling, "PreTrainedModel", "get_compiled_call", _announcing),
        (generation, "GenerationMixin", "generate", _calling),
        (generation, "GenerationMixin", "_prefill", partial(_telling, "prefill")),
        (generation, "GenerationMixin", "_assisted_decoding", partial(_telling, "assisted")),
    ]
    for module, owner, name, wrapper in wrappers:
        if module is None:
            continue
        try:
            _patches.append(Patch(getattr(module, owner), name, wrapper))
        except AttributeError as error:
            _unwrap_all()
            raise CaptureError(
                f"Transformers {sys.modules['transformers'].__version__} has no {owner}.{name}, by which attention is "
                "followed. Install a release that this package was tested with: see `vea doctor --families`."
            ) from error


def _unwrap_all() -> None:
    while _patches:
        _patches.pop().take_off()


def _observing(original: Callable[..., Any], patch: Patch) -> Callable[..., Any]:
    native = _native.extension()
    tap = _tap if native is None else native.tapper(ACTIVE, _attend, _attended)

    def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        function: Callable[..., Any] = original(self, attn_implementation, default)
        if not patch.live:
            return function
        return _tapped(function, attn_implementation) if is_dynamo_compiling() else tap(function, attn_implementation)

    return get_interface


def _tap(function: Callable[..., Any], implementation: str | None) -> Callable[..., Any]:
    """What a model gets for its attention function. The compiled one does the same, but calls the function at once
    where nobody watches the module, and has plain steps read by itself."""
    return partial(_attend, function, implementation) if ACTIVE.get() else function


def _announcing(original: Callable[..., Any], patch: Patch) -> Callable[..., Any]:
    """generate() compiles ``model.__call__``, hooks included: sessions hear of each pass before it begins."""

    def get_compiled_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        compiled = original(self, *args, **kwargs)
        if compiled == self.__call__ or not patch.live:  # not compiled after all
            return compiled

        def call(**inputs: Any) -> Any:
            told = [observer for observer in (*ACTIVE.get(), *STANDING) if observer.begin_compiled(self, inputs)]
            finished = False
            try:
                output = compiled(**inputs)
                finished = True
                return output
            finally:
                for observer in told:
                    observer.end_compiled(finished)

        return call

    return get_compiled_call


def _calling(original: Callable[..., Any], patch: Patch) -> Callable[..., Any]:
    @wraps(original)
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patch.live:
            return original(self, *args, **kwargs)
        call = GenerateCall(args[0] if args else kwargs.get("inputs"), kwargs)
        token = CALL.set(call)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            call.end(error)
            raise
        finally:
            CALL.reset(token)
        call.end(None, result)
        return result

    return generate


def _telling(name: Literal["prefill", "assisted"], original: Callable[..., Any], patch: Patch) -> Callable[..., Any]:
    def phase(self: Any, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not patch.live:
            return original(self, input_ids, *args, **kwargs)
        drafting = name == "prefill" and PHASE.get() is not None
        config = (args[0] if args else kwargs.get("generation_config")) if name == "prefill" else None
        token = PHASE.set(Phase("draft" if drafting else name, input_ids, config))
        try:
            return original(self, input_ids, *args, **kwargs)
        finally:
            PHASE.reset(token)

    return phase


def _attend(
    function: Callable[..., Any],
    implementation: str | None,
    /,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    **options: Any,
) -> Any:
    """Call Transformers' attention function, and show the call to those who watch the module."""
    observers = [observer for observer in ACTIVE.get() if module in observer.modules and observer.watches(module)]
    if not observers:
        return function(module, query, key, value, attention_mask, **options)
    if implementation != "eager":
        # A step of decoding takes its keys from memory, whoever comes first; then they are in the cache, where the
        # model's own attention makes less of them than the rows do. A prompt is read first: it may end here.
        decoding = query.size(-2) == 1
        result = function(module, query, key, value, attention_mask, **options) if decoding else None
        for observer in observers:
            _show(observer, module, query, key, attention_mask, options, implementation)
        return result if decoding else function(module, query, key, value, attention_mask, **options)
    # Eager made the weights anyway: they are read as they are, so both agree to the last bit.
    output, weights = function(module, query, key, value, attention_mask, **options)
    for observer in observers:
        if weights is None:
            _show(observer, module, query, key, attention_mask, options, implementation)
        else:
            observer.read_weights(module, weights, key)
    return output, weights


def _attended(result: Any, implementation: str | None, /, *arguments: Any, **options: Any) -> Any:
    """:func:`_attend` for a call whose result is there."""
    return _attend(lambda *_, **__: result, implementation, *arguments, **options)


def _show(
    observer: Observer,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    mask: Any,
    options: Mapping[str, Any],
    implementation: str | None,
) -> None:
    """Show a call of Transformers' attention functions to one who watches it."""
    try:
        call = from_interface(module, query, key, mask, options, implementation)
    except CaptureError as error:
        observer.unreadable(error)
    else:
        observer.read_call(module, call, "interface")


def _tapped(function: Callable[..., Any], implementation: str | None) -> Callable[..., Any]:
    """What a graph holds instead of :func:`_attend`."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **options: Any
    ) -> Any:
        taps = taps_of(module)
        if taps is not None and taps.hidden:
            return _attend(function, implementation, module, query, key, value, attention_mask, **options)
        if taps is not None and (taps.open or (taps.standing and _readable(attention_mask, options))):
            call = from_interface(module, query, key, attention_mask, options, implementation)
            for tap in (*taps.standing, *taps.open):
                tap.read(call)
        return function(module, query, key, value, attention_mask, **options)

    return attention


def _readable(mask: Any, options: Mapping[str, Any]) -> bool:
    """Whether a standing tap is for this graph, and :func:`from_interface` takes the call, which else is an error. A
    model that is exported leaves its watchers behind."""
    known = options.get("cache") is None and (mask is None or isinstance(mask, Tensor))
    return known and not is_exporting()


def uses_interface(module: nn.Module) -> bool:
    """Whether the module's own forward fetches its attention through Transformers' interface."""
    return _names_interface(type(module).forward)


@cache
def _names_interface(forward: Callable[..., Any]) -> bool:
    code = getattr(inspect.unwrap(forward), "__code__", None)
    return code is not None and "get_interface" in code.co_names


class SdpaTap(TorchFunctionMode):
    """Reads a direct ``scaled_dot_product_attention`` of one module, between its pre- and post-hook."""

    def __init__(self, observer: Observer, module: nn.Module) -> None:
        super().__init__()
        self._observer = observer
        self._module = module

    def open(self) -> None:
        self.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self._observer.read_call(self._module, from_sdpa(*args, **(kwargs or {})), "sdpa")
        return func(*args, **(kwargs or {}))
