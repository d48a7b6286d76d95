"""The monitor on a GPU: the same records, no waiting for the device, and a model that moves."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES
from monitoring import Kept, nothing_is_left  # noqa: F401
from test_capture import generate, padded, single

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


def test_nothing_is_recorded_into_a_cuda_graph() -> None:
    """Its replays would write into the places of later requests."""
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
