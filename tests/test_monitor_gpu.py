"""The monitor on a GPU: the same records, no waiting for the device, and a model that moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from families import FAMILIES
from monitoring import Kept, nothing_is_left  # noqa: F401
from test_capture import generate, padded, picture, single
from transformers import CompileConfig, StaticCache

import vea_sdk as vea
from vea_sdk.monitor.record import Record

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch sees none here"),
]


def alike(one: Record, other: Record) -> bool:
    """The hidden states differ by the rounding of two matrix libraries, amplified over the layers."""
    pairs = zip([one.mean, *one.per_layer], [other.mean, *other.per_layer], strict=True)
    return all(
        getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-3)
        for a, b in pairs
        for name in ("image_mass", "entropy", "peak", "rapt_image", "rapt_text")
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_records_are_those_of_the_cpu_also_after_a_move(name: str) -> None:
    family = FAMILIES[name]()
    inputs, sink = padded(family), Kept()
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle:
        generate(family.model, inputs)
        try:
            model = family.model.cuda()
            generate(model, inputs.to("cuda"))
        finally:
            family.model.cpu()
        assert handle.flush()
        assert handle.counters.bytes_copied <= 4 * 4096
    first, second, on_gpu, other = sink.records
    assert alike(first, on_gpu)
    assert alike(second, other)
    assert on_gpu.trace == pytest.approx(first.trace, abs=1e-3)


def test_a_sampled_pass_does_not_wait_for_the_device() -> None:
    """Of a model whose own passes do not: the decoder, with the pictures embedded before."""
    family = FAMILIES["llava"]()
    try:
        model = family.model.cuda()
        inputs = single(family).to("cuda")
        with torch.no_grad(), vea.monitor(model, sample_rate=1.0, layers="all", sinks=[sink := Kept()]) as handle:
            ids = inputs["input_ids"]
            embeds = model.get_input_embeddings()(ids)

            def two_passes() -> None:
                out = model.model.language_model(input_ids=ids)
                model.model.language_model(inputs_embeds=embeds[:, -1:], past_key_values=out.past_key_values)

            def strictly() -> None:
                torch.cuda.synchronize()
                torch.cuda.set_sync_debug_mode("error")  # type: ignore[no-untyped-call]
                try:
                    two_passes()
                finally:
                    torch.cuda.set_sync_debug_mode("default")  # type: ignore[no-untyped-call]

            handle.sample_rate = 0.0
            two_passes()
            try:
                strictly()
            except RuntimeError as error:
                pytest.skip(f"the model waits by itself: {error}")
            handle.sample_rate = 1.0
            two_passes()  # buffers, streams and kernels are there
            assert handle.flush()
            strictly()
            assert handle.flush()
    finally:
        family.model.cpu()
    assert sink.records[-1].unread is None


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_decoding_leaves_the_records_of_plain_decoding(mode: str) -> None:
    """ "reduce-overhead" replays CUDA graphs: the boards must be where they were."""
    family = FAMILIES["llava"]()
    sink, plain = Kept(), Kept()
    try:
        model = family.model.cuda()
        inputs = [one.to("cuda") for one in (single(family), family.inputs(picture(4), "what?"), single(family))]
        static = {"cache_implementation": "static", "max_new_tokens": 8, "min_new_tokens": 8}
        with vea.monitor(model, sample_rate=1.0, layers="all", sinks=[plain]):
            said = [generate(model, one, disable_compile=True, **static) for one in inputs]
        config = CompileConfig(fullgraph=True, mode=mode)
        with vea.monitor(model, sample_rate=1.0, layers="all", sinks=[sink], compiled=True):
            for one, answer in zip(inputs, said, strict=True):
                assert torch.equal(generate(model, one, compile_config=config, **static), answer)
    finally:
        family.model.cpu()
        torch.compiler.reset()
    for one, other in zip(sink.records, plain.records, strict=True):
        assert one.unread is None
        assert alike(one, other)
        assert one.generated_tokens == other.generated_tokens == 7
        assert one.trace == pytest.approx(other.trace, abs=1e-3)


def test_replays_of_a_captured_graph_are_followed() -> None:
    """Captured once, while nobody is sampled; the prompts are fed as ever."""
    family = FAMILIES["llava"]()
    sink, plain = Kept(), Kept()
    try:
        model = family.model.cuda()
        prompt = single(family).to("cuda")
        inputs = {name: prompt[name] for name in ("input_ids", "pixel_values")}
        length = inputs["input_ids"].shape[1]
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=192)
        token, place = (torch.zeros(1, 1, dtype=torch.int64, device="cuda") for _ in range(2))

        def prefill() -> None:
            cache.reset()
            token.copy_(model(**inputs, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1))
            place.fill_(length)

        def step() -> torch.Tensor:
            fed = {"input_ids": token, "position_ids": place, "past_key_values": cache}
            return model(**fed, use_cache=True).logits[:, -1:].argmax(-1)  # type: ignore[no-any-return]

        def decode(once: Callable[[], torch.Tensor]) -> list[int]:
            said = []
            for _ in range(5):
                token.copy_(once())
                place.add_(1)
                said.append(int(token))
            return said

        with torch.no_grad():
            with vea.monitor(model, sample_rate=1.0, layers="all", sinks=[plain]):
                prefill()
                answer = decode(step)
            with vea.monitor(model, sample_rate=0.0, layers="all", sinks=[sink], compiled=True) as handle:
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    prefill()
                    step()
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    out = step()

                def replay() -> torch.Tensor:
                    graph.replay()
                    return out

                for rate in (1.0, 0.0, 1.0):
                    handle.sample_rate = rate
                    with handle.request("a"):
                        prefill()
                        assert decode(replay) == answer
                assert handle.flush()
            graph.replay()  # what it writes to is there as long as the model
            torch.cuda.synchronize()
    finally:
        family.model.cpu()
    assert len(sink.records) == 2
    for record in sink.records:
        assert alike(record, plain.records[0])
        assert record.generated_tokens == 5
        assert record.trace == pytest.approx(plain.records[0].trace, abs=1e-3)


def test_nothing_is_recorded_into_a_cuda_graph() -> None:
    """Unless it is asked for: its replays would write into the places of later requests."""
    family = FAMILIES["llava"]()
    try:
        model = family.model.cuda()
        ids = torch.arange(40, 60, device="cuda")[None]
        with torch.no_grad(), vea.monitor(model, sample_rate=1.0, layers="all", sinks=[sink := Kept()]) as handle:
            text = model.model.language_model
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(2):
                    text(input_ids=ids, use_cache=False)
            torch.cuda.synchronize()
            requests = handle.counters.requests
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                text(input_ids=ids, use_cache=False)
            graph.replay()
            assert handle.counters.requests == requests
        assert len(sink.records) == handle.counters.samples
    finally:
        family.model.cpu()
