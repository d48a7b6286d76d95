"""A monitor that follows graphs: the records of a model that is not compiled, out of one graph for all requests."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from families import FAMILIES, TinyFamily
from monitoring import Kept, close, expected, moves, nothing_is_left  # noqa: F401
from test_capture import NEW_TOKENS, TOLERANCE, eager_rows, padded, picture, single
from test_compiled import graphs
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import CompileConfig, StaticCache

import vea_sdk as vea
from vea_sdk.capture import interception
from vea_sdk.capture.compiled import taps_of
from vea_sdk.capture.interception import STANDING
from vea_sdk.errors import CaptureError
from vea_sdk.monitor.boards import _captured
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sampling import sampled

ROOM = 192  # keys: one shape for all prompts, as a server has


@pytest.fixture
def fresh() -> Iterator[None]:
    """Graphs of this test alone; the others share one, which the first of them makes."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    yield
    assert not STANDING


@pytest.fixture(autouse=True, scope="module")
def begins_and_ends_without_graphs() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def watch(family: TinyFamily, sink: Kept, **options: Any) -> Any:
    known = {"sample_rate": 1.0, "layers": [1, 3], "compiled": True, "max_image_tokens": 128, "max_inflight": 4}
    return vea.monitor(family.model, sinks=[sink], **(known | options))


def generate(model: Any, inputs: Any, compiled: bool = True, **options: Any) -> Tensor:
    """Greedy; the decode steps are one graph without a break, or an error."""
    config = CompileConfig(fullgraph=True, backend="aot_eager", mode=None)
    config._compile_all_devices = True
    how: dict[str, Any] = {"compile_config": config} if compiled else {"disable_compile": True}
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=ROOM)
    lengths = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    tokens: Tensor = model.generate(**inputs, past_key_values=cache, do_sample=False, **(lengths | how | options))
    return tokens


def plain(family: TinyFamily, inputs: Any, **options: Any) -> tuple[list[Record], Tensor]:
    """Records and answer of a request that is not compiled."""
    sink = Kept()
    with watch(family, sink, compiled=False):
        answer = generate(family.model, inputs, compiled=False, **options)
    return sink.records, answer


def alike(one: Record, other: Record, tolerance: float = TOLERANCE) -> bool:
    figures = [
        getattr(a, name) == pytest.approx(getattr(b, name), abs=tolerance, rel=tolerance)
        for a, b in zip([one.mean, *one.per_layer], [other.mean, *other.per_layer], strict=True)
        for name in ("image_mass", "entropy", "peak", "rapt_image", "rapt_text")
    ]
    rest = ("generated_tokens", "prompt_tokens", "image_tokens", "finished", "unread", "layers", "nan", "images")
    trace = one.trace == pytest.approx(other.trace, abs=tolerance)
    top = [p.token for p in one.top_patches] == [p.token for p in other.top_patches]
    return all(figures) and trace and top and all(getattr(one, name) == getattr(other, name) for name in rest)


def as_python() -> Any:
    """What the compiler is asked for is run as it is: all the same to the host's side of a monitor, and quick."""
    return torch.compiler.set_stance("force_eager")


def attached(model: nn.Module) -> list[Any]:
    return [(set(vars(m)), list(m._forward_pre_hooks), list(m._forward_hooks)) for m in model.modules()]


def bits(handle: Any) -> list[Tensor]:
    """All slots of the ring, as they are, the spare one left out."""
    (buffers,) = handle._ring._buffers.values()
    parts = (buffers.rows[:-1], buffers.figures[:, :, :-1], buffers.trace[..., :-1], buffers.counts[:-1])
    return [part.clone().view(torch.int32) for part in parts]


# --- one graph for all ------------------------------------------------------------------------------------------------


def test_one_graph_serves_every_request(family: TinyFamily, sink: Kept) -> None:
    """Sampled or not, of one picture or two; of a request that is not sampled no slot holds a trace."""
    prompts = {
        "one": single(family),
        "two": family.inputs([picture(3, 90, 40), picture(4)], "hm?"),
        "words": family.inputs(picture(5), "a longer question about it"),
    }
    truth = {key: eager_rows(family, inputs) for key, inputs in prompts.items()}
    made, copied = set(), []
    with watch(family, sink) as handle:
        for key, inputs in prompts.items():
            for rate in (1.0, 0.0):
                handle.sample_rate = rate
                before = bits(handle)
                with handle.request(key):
                    assert torch.equal(generate(family.model, inputs), truth[key][1])
                assert handle.flush()
                made.add(graphs())
                copied.append(all(map(torch.equal, before, bits(handle))))
    assert len(made) == 1
    assert copied == [False, True] * 3
    assert [record.request for record in sink.records] == list(prompts)
    for record in sink.records:
        rows = truth[record.request][0][[1, 3]]
        assert record.image_tokens == rows.shape[-1]
        assert close(record.mean, expected(rows[:, 0, 0], record.prompt_tokens)["mean"])
        assert record.trace == moves(rows[:, 0, 1:])
        assert record.generated_tokens == 3


class Meets:
    """Told after the monitor that a pass begins; holds it until that of the other thread has begun, too."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def begin_compiled(self, model: nn.Module, kwargs: dict[str, Any]) -> bool:
        self.barrier.wait(60)
        return True

    def end_compiled(self, finished: bool) -> None:
        self.barrier.wait(60)


def in_threads(*calls: Any) -> None:
    failed: list[BaseException] = []

    def guarded(call: Any) -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_passes_at_the_same_time_are_not_traced(family: TinyFamily, sink: Kept) -> None:
    """And the next request is as if nothing had been."""
    inputs, others = single(family), family.inputs(picture(7), "another question")
    known, answer = plain(family, inputs)
    with watch(family, sink, sample_rate=0.0) as handle:
        alone = [generate(family.model, one) for one in (inputs, others)]
        assert torch.equal(alone[0], answer)

        def ask(name: str, one: Any, said: Tensor) -> None:
            with handle.request(name):
                assert torch.equal(generate(family.model, one), said)

        chosen, spared = (next(n for n in map(str, range(99)) if sampled(n, 0.5) is yes) for yes in (True, False))
        handle.sample_rate = 0.5
        meets = Meets()
        STANDING.append(meets)
        try:
            in_threads(lambda: ask(chosen, inputs, alone[0]), lambda: ask(spared, others, alone[1]))
        finally:
            STANDING.remove(meets)
        ask(chosen, inputs, alone[0])
        assert handle.flush()
        assert handle.counters.unread == 1
    met, after = sink.records
    assert "at the same time" in str(met.unread)
    assert (met.trace, met.generated_tokens) == (None, 3)
    assert met.mean == after.mean  # of the prompt, which no graph has read
    assert alike(after, known[0])


def test_threads_that_take_turns(family: TinyFamily, sink: Kept) -> None:
    """Token by token: the boards go from one to the other."""
    prompts = {"0": single(family), "1": family.inputs(picture(7), "another question")}
    known = {key: plain(family, inputs) for key, inputs in prompts.items()}
    turn = [threading.Semaphore(1), threading.Semaphore(0)]

    class InTurn:
        def __init__(self, me: int) -> None:
            self.me = me

        def put(self, value: Tensor) -> None:
            turn[1 - self.me].release()
            assert turn[self.me].acquire(timeout=60)

        def end(self) -> None:
            turn[1 - self.me].release()

    def ask(key: str) -> None:
        assert turn[int(key)].acquire(timeout=60)
        with handle.request(key):
            assert torch.equal(generate(family.model, prompts[key], streamer=InTurn(int(key))), known[key][1])

    with watch(family, sink) as handle:
        in_threads(lambda: ask("0"), lambda: ask("1"))
    for key, record in sink.by_name().items():
        assert alike(record, known[key][0][0])
    assert len(sink.records) == 2


def test_generate_that_raises_half_way(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    known, answer = plain(family, inputs)

    class Breaks:
        left = 3

        def put(self, value: Tensor) -> None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

        def end(self) -> None: ...

    with watch(family, sink) as handle:
        with pytest.raises(KeyboardInterrupt):
            generate(family.model, inputs, streamer=Breaks())
        assert torch.equal(generate(family.model, inputs), answer)
        assert handle.flush()
    failed, ended = sink.records
    assert (failed.finished, failed.generated_tokens) == ("failed", 2)
    assert alike(ended, known[0])


def test_graphs_that_nobody_announces_are_noticed(family: TinyFamily, sink: Kept) -> None:
    """Someone calls the compiled model by himself while a request that is sampled decodes."""
    inputs = single(family)
    known, answer = plain(family, inputs)
    cache = StaticCache(config=family.model.config.get_text_config(), max_cache_len=ROOM)
    ids = inputs["input_ids"]

    class Other:
        calls = 0

        def put(self, value: Tensor) -> None:
            self.calls += 1
            if self.calls == 4:  # after the prompt and two tokens
                _interfere()

        def end(self) -> None: ...

    def _interfere() -> None:
        fed = {"input_ids": ids[:, -1:], "position_ids": torch.tensor([[ids.shape[1]]]), "past_key_values": cache}
        mask = torch.ones(1, ids.shape[1] + 1, dtype=torch.int64)
        family.model._compiled_call(**fed, attention_mask=mask, use_cache=True, return_dict=True)

    with torch.no_grad():
        family.model(**inputs, past_key_values=cache)
        with watch(family, sink):
            assert torch.equal(generate(family.model, inputs, streamer=Other()), answer)
    (record,) = sink.records
    assert "was not told of" in str(record.unread)
    assert record.trace is None
    assert record.mean == known[0].mean


def test_close_while_requests_are_answered(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    answer = generate(family.model, inputs)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            assert torch.equal(generate(family.model, inputs), answer)

    def come_and_go() -> None:
        try:
            for _ in range(4):
                with watch(family, sink, max_inflight=3) as handle:
                    stop.wait(0.15)
                counted = handle.counters
                # lost: a request that begins while the monitor closes
                assert counted.samples == counted.records + counted.drops + counted.lost
        finally:
            stop.set()

    before = attached(family.model)
    in_threads(serve, come_and_go)
    assert attached(family.model) == before
    assert {record.finished for record in sink.records} <= {"ended", "cut"}
    unread = {record.unread for record in sink.records if record.finished == "ended" and record.unread is not None}
    # A pass whose prompt was being fed when the monitor came: its inner half alone has hooks, and knows no ids.
    assert all("called with embeddings" in why for why in unread)


# --- graphs of their own ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_the_records_are_those_without_compilation(name: str, sink: Kept) -> None:
    """Two prompts of different lengths in a batch; gemma3 has layers that forget the picture."""
    family = FAMILIES[name]()
    inputs = padded(family)
    rows, sequences = eager_rows(family, inputs)
    known, answer = plain(family, inputs)
    with watch(family, sink) as handle:
        assert torch.equal(generate(family.model, inputs), answer)
        assert handle.flush()
        assert graphs() > 0
        assert handle.counters.unread == 0
    assert torch.equal(answer, sequences)
    for i, (record, other) in enumerate(zip(sink.records, known, strict=True)):
        assert alike(record, other)
        assert record.trace == moves(rows[[1, 3], i, 1:, : record.image_tokens])
        assert record.generated_tokens == 3
        assert record.certainty is None  # generate() compiles the call itself, and nobody sees what it returns
        assert other.certainty is not None


@pytest.mark.usefixtures("fresh")
def test_a_row_that_ends_early_and_one_that_is_not_sampled(family: TinyFamily, sink: Kept) -> None:
    inputs = family.inputs([[picture(i)] for i in range(3)], ["one", "another", "and a third question"])
    rows, sequences = eager_rows(family, inputs)
    start = inputs["input_ids"].shape[1]
    stop = int(sequences[0, start + 1])  # the second token of the first row ends it
    assert stop not in sequences[1:, start:]
    chosen, others = ([n for n in map(str, range(20)) if sampled(n, 0.5) is yes] for yes in (True, False))
    ids = [chosen[0], others[0], chosen[1]]
    with watch(family, sink, sample_rate=0.5) as handle, handle.request(ids):
        generate(family.model, inputs, min_new_tokens=None, eos_token_id=stop, pad_token_id=0)
    assert graphs() > 0
    first, last = sink.records
    assert [first.request, last.request] == [ids[0], ids[2]]
    assert (first.generated_tokens, last.generated_tokens) == (2, 3)
    assert first.trace == moves(rows[[1, 3], 0, 1:3])
    assert last.trace == moves(rows[[1, 3], 2, 1:])


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("part", ["decoder", "model"])
def test_a_compiled_forward(part: str, family: TinyFamily, sink: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """``model.forward = torch.compile(model.forward)``: the prompt is fed in a graph, too."""
    inputs = padded(family)
    known, answer = plain(family, inputs)
    module = family.model.get_decoder() if part == "decoder" else family.model
    whole = part == "decoder"  # the model itself asks which tokens are the picture's, and breaks its graph there
    monkeypatch.setattr(module, "forward", torch.compile(module.forward, backend="aot_eager", fullgraph=whole))
    with watch(family, sink, rows=True) as handle:
        for rate in (1.0, 0.0, 1.0):
            handle.sample_rate = rate
            before = bits(handle)
            assert torch.equal(generate(family.model, inputs, compiled=False), answer)
            assert handle.flush()
            assert rate == 1.0 or all(map(torch.equal, before, bits(handle)))
    assert graphs() > 0
    assert len(sink.records) == 4
    for record, other in zip(sink.records, [*known, *known], strict=True):
        assert alike(record, other)
        assert record.certainty == pytest.approx(other.certainty, rel=1e-5)
        assert record.rows is not None
        assert sum(record.rows[0]) == pytest.approx(other.per_layer[0].image_mass, abs=1e-5)


@pytest.mark.usefixtures("fresh")
def test_a_compiled_model_whose_decoder_the_compiler_gives_up_on(
    family: TinyFamily, sink: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the decoder's hooks run in the middle of a compiled pass, which has begun already."""
    inputs = single(family)
    known, answer = plain(family, inputs)
    model, inner = family.model, family.model.model
    monkeypatch.setattr(inner, "forward", torch.compiler.disable(inner.forward))
    monkeypatch.setattr(model, "forward", torch.compile(model.forward, backend="eager"))
    with watch(family, sink):
        assert torch.equal(generate(model, inputs, compiled=False), answer)
    assert alike(sink.records[0], known[0])


@pytest.mark.usefixtures("fresh")
def test_a_session_and_two_monitors_at_once(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    rows, _ = eager_rows(family, inputs)
    known, answer = plain(family, inputs)
    other = Kept()
    before = attached(family.model)
    with watch(family, sink) as handle, watch(family, other, layers=[0, 1], max_inflight=2):
        for _ in range(2):
            with vea.capture(family.model, layers=[1, 2], queries="all") as session:
                assert torch.equal(generate(family.model, inputs), answer)
            assert (session.attention - rows[[1, 2]]).abs().max() <= TOLERANCE
        made = graphs()
        assert torch.equal(generate(family.model, inputs), answer)
        assert graphs() == made + 1  # that of monitors without a session
        assert handle.flush()
    assert attached(family.model) == before
    assert len(sink.records) == len(other.records) == 3
    assert all(alike(record, known[0]) for record in sink.records)
    assert all(record.trace == moves(rows[[0, 1], 0, 1:]) for record in other.records)


@pytest.mark.usefixtures("fresh")
def test_nothing_is_left_behind(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    before = attached(family.model)
    alone = generate(family.model, inputs)
    made = graphs()
    handle = watch(family, sink)
    assert attached(family.model) != before
    assert torch.equal(generate(family.model, inputs), alone)
    assert graphs() == made + 1
    kept = [weakref.ref(board.index) for board in handle._boards._boards.values()]
    handle.close()
    assert attached(family.model) == before
    assert torch.equal(generate(family.model, inputs), alone)
    with watch(family, sink):  # the graph of the first serves the second
        generate(family.model, inputs)
    assert graphs() == made + 1
    assert alike(*sink.records)
    del handle
    gc.collect()
    assert [tensor() for tensor in kept] == [None]


@pytest.mark.usefixtures("fresh")
def test_a_call_that_the_kernel_does_not_take(family: TinyFamily, sink: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is made all the same, and the record says what happened."""
    inputs = single(family)
    known, answer = plain(family, inputs)
    monkeypatch.setattr(sys.modules["vea_sdk.monitor.board"], "_fits", lambda call: False)
    with watch(family, sink):
        assert torch.equal(generate(family.model, inputs), answer)
    (record,) = sink.records
    assert "layers [1, 3] stayed hidden" in str(record.unread)
    assert (record.trace, record.generated_tokens) == (None, 3)
    assert record.mean == known[0].mean


# --- without a graph --------------------------------------------------------------------------------------------------


def test_what_the_compiler_leaves_to_python_is_read(family: TinyFamily, sink: Kept) -> None:
    inputs = padded(family)
    known, answer = plain(family, inputs)
    made = graphs()
    with watch(family, sink), as_python():
        for implementation in ("sdpa", "eager"):
            family.model.set_attn_implementation(implementation)
            try:
                tokens = generate(family.model, inputs)
            finally:
                family.model.set_attn_implementation("sdpa")
            assert torch.equal(tokens, answer)
    assert graphs() == made
    assert all(alike(*pair, tolerance=5e-6) for pair in zip(sink.records, [*known, *known], strict=True))


def test_a_full_ring_drops_and_counts(family: TinyFamily, sink: Kept) -> None:
    inputs = padded(family)
    known, answer = plain(family, inputs)
    with watch(family, sink, max_inflight=1) as handle, as_python():
        assert torch.equal(generate(family.model, inputs), answer)
    dropped, first = sorted(sink.records, key=lambda record: not record.dropped)
    counted = handle.counters
    assert (counted.samples, counted.records, counted.drops) == (2, 1, 1)
    assert dropped.dropped
    assert first.trace is None
    assert "batch of 2" in str(first.unread)  # graphs read as many rows as there are places
    assert first.mean == known[0].mean


def test_copies_and_pickles_are_not_watched(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    with watch(family, sink) as handle, as_python():
        answer = generate(family.model, inputs)
        copied = copy.deepcopy(family.model)
        del copied._compiled_call  # of the original, says Transformers
        attention = family.model.get_decoder().layers[1].self_attn
        twin = copied.get_decoder().layers[1].self_attn
        for taps in (taps_of(twin), pickle.loads(pickle.dumps(taps_of(attention)))):
            assert taps is not None
            assert not taps.standing
        assert twin.forward.__self__ is twin
        other = Kept()
        with vea.monitor(copied, sample_rate=1.0, layers=[1, 3], sinks=[other], compiled=True):
            assert torch.equal(generate(copied, inputs), answer)
        assert taps_of(twin) is None
        assert "forward" not in vars(twin)
        assert handle.flush()
        assert handle.counters.requests == 1
    assert alike(sink.records[0], other.records[0])


def test_a_call_that_nothing_can_be_read_from(family: TinyFamily, sink: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one with flex attention's masks: an error of a session, no error of a request."""
    inputs = single(family)
    _, answer = plain(family, inputs)

    def fails(*_: Any) -> None:
        raise CaptureError("no values to read")

    monkeypatch.setattr(interception, "from_interface", fails)
    with watch(family, sink):
        assert torch.equal(generate(family.model, inputs, compiled=False), answer)
    (record,) = sink.records
    assert "no values to read" in str(record.unread)
    with pytest.raises(CaptureError, match="no values"), vea.capture(family.model, layers="all"):
        generate(family.model, inputs, compiled=False)


# --- CUDA graphs captured by hand -----------------------------------------------------------------------------------


class Recording(TorchDispatchMode):
    """Stands in for a CUDA graph: the operations that a pass runs, to be run again on the same memory without Python's
    hooks. What a CUDA graph cannot do, to ask the device for a value, is an error here, too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        now: dict[int, Any] = {}

        def fresh(value: Any) -> Any:
            return now.get(id(value), value) if isinstance(value, Tensor) else value

        for func, args, kwargs, result in self.calls:
            again = func(*tree_map(fresh, args), **tree_map(fresh, kwargs))
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor):
                    now[id(old)] = new
        self.out = now


def dispatched(*args: Any, stats: Tensor | None = None, **options: Any) -> Tensor:
    """``ops.image_attention`` past its short cut, which no recording sees."""
    from vea_sdk.ops.image_attention_op import _SCHEMA

    names = [part.split()[1] for part in _SCHEMA.split(", ")]
    given = dict.fromkeys(names) | {"weight": 1.0, "per_head": False} | dict(zip(names, args, strict=False)) | options
    given |= {"stats": stats is not None, "scale": given["scale"] or given["query"].shape[-1] ** -0.5}
    scores, _, figures = torch.ops.vea_sdk.image_attention(*given.values())
    if stats is not None:
        stats.copy_(figures)
    return scores


def test_a_captured_graph(family: TinyFamily, sink: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured once; then prompts are fed as ever, and replays continue them, whether they are sampled or not."""
    model = family.model
    prompts = {"a": single(family), "b": family.inputs(picture(5), "another, longer question"), "c": single(family)}
    truth = {key: eager_rows(family, inputs) for key, inputs in prompts.items()}
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=ROOM)
    token = torch.zeros(1, 1, dtype=torch.int64)
    position = torch.zeros(1, 1, dtype=torch.int64)
    kept: dict[str, Tensor] = {}

    def step() -> None:
        kept["logits"] = model(input_ids=token, position_ids=position, past_key_values=cache, use_cache=True).logits

    def prefill(inputs: Any) -> Tensor:
        cache.reset()
        fed = {**inputs, "attention_mask": None}
        first: Tensor = model(**fed, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        position.fill_(inputs["input_ids"].shape[1])
        return first

    def answer(inputs: Any) -> Tensor:
        tokens = [prefill(inputs)]
        for _ in range(NEW_TOKENS - 1):
            token.copy_(tokens[-1])
            graph.replay()
            position.add_(1)
            tokens.append(graph.out[id(kept["logits"])][:, -1:].argmax(-1))
        return torch.cat(tokens, 1)

    with torch.no_grad(), watch(family, sink) as handle:
        handle.sample_rate = 0.0
        prefill(prompts["a"])
        with monkeypatch.context() as patched:
            patched.setattr(sys.modules["vea_sdk.monitor.hooks"], "_capturing", lambda: True)
            patched.setattr(vea.ops, "image_attention", dispatched)
            requests = handle.counters.requests
            with Recording() as graph:
                step()
        assert handle.counters.requests == requests
        for key, rate in (("a", 1.0), ("b", 0.0), ("b", 1.0), ("c", 1.0)):
            handle.sample_rate = rate
            before = bits(handle)
            with nullcontext() if key == "c" else handle.request(key):  # c: ended by close(), or by the next prompt
                said = answer(prompts[key])
            assert handle.flush()
            assert torch.equal(said[0], truth[key][1][0, -NEW_TOKENS:])
            assert rate == 1.0 or all(map(torch.equal, before, bits(handle)))
        handle.sample_rate = 0.0
        answer(prompts["a"])
        assert handle.flush()
        assert len(sink.records) == 3
    for record, key in zip(sink.records, "abc", strict=True):
        rows = truth[key][0][[1, 3], 0]
        assert record.unread is None
        assert record.generated_tokens == 3
        assert close(record.mean, expected(rows[:, 0], record.prompt_tokens)["mean"])
        assert record.trace == moves(rows[:, 1:])
    graph.replay()  # after close(): nobody's
    assert model in _captured


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "tolerance"), [("aot_eager", 0.0), ("inductor", 1e-6)])
@pytest.mark.parametrize("who", ["monitor", "session"])
def test_what_reading_in_a_graph_does_to_the_logits(fresh: None, backend: str, tolerance: float, who: str) -> None:
    """Nothing, but that inductor fuses the operations around another reader in another way: their last bits."""
    family = FAMILIES["qwen2_5_vl"]()
    inputs, options = single(family), {"return_dict_in_generate": True, "output_logits": True}
    config = CompileConfig(fullgraph=True, backend=backend, mode=None)
    config._compile_all_devices = True

    def logits() -> Tensor:
        found: Any = generate(family.model, inputs, compile_config=config, **options)
        return torch.stack(found.logits)

    with torch.no_grad():
        expected = logits()
        opened = (
            watch(family, Kept(), sample_rate=0.0, layers="all")
            if who == "monitor"
            else vea.capture(family.model, layers="all", queries="all")
        )
        with opened:
            found = logits()
    assert (found - expected).abs().max() <= tolerance
