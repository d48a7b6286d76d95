"""The CUDA kernels' own source, run on the CPU: right numbers without a GPU (see cuda_emulation/emulation.h)."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import DTYPES, Rows, check_figures, make, numbers
from test_ops_step import DECLINED, INDEX, KEY, LAST, QUERY, REFUSED, ROWS, TOKENS, buffers
from tolerances import ATTENTION, FIGURES

from vea_sdk import ops
from vea_sdk.errors import InvalidInputError
from vea_sdk.ops import step_reader
from vea_sdk.ops.arguments import Arguments

HERE = Path(__file__).parent / "cuda_emulation"
CSRC = Path(__file__).parents[1] / "csrc"
LAUNCH = re.compile(r"([\w:]+(?:<[\w, ]+>)?)\s*<<<(.+?), (\S+), 0, \S+>>>\((.*?)\);", re.DOTALL)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CSRC.is_dir(), reason="needs a source checkout"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


@pytest.fixture(autouse=True)
def fresh_memory_holds_nan():
    """The scratch memory, too: the kernels must not rely on what it holds."""
    torch.use_deterministic_algorithms(True)
    assert torch.zeros(1).new_empty(9).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The bindings, built over the emulated kernels."""
    pybind11 = pytest.importorskip("pybind11")
    folder = tmp_path_factory.mktemp("emulation")
    shutil.copytree(CSRC, folder / "csrc")
    shutil.copytree(HERE, folder / "emulation")
    sources = [*(folder / "csrc").glob("*.cpp"), *(folder / "csrc" / "cpu").glob("*.cpp")]
    for path in (folder / "csrc" / "cuda").glob("*.cu"):
        launched = LAUNCH.sub(r"emulation::launch(\2, \3, [&] { \1(\4); });", path.read_text())
        assert "<<<" not in launched
        header = f'#include "{folder}/emulation/emulation.h"\n'
        (path.with_suffix(".cpp")).write_text(header + launched)
        sources.append(path.with_suffix(".cpp"))
    module = folder / "_C.so"
    flags = (
        "-std=c++17 -O1 -w -shared -fPIC -pthread -DVEA_CUDA_ARCHS='\"emulated\"' "
        "-DVEA_PORTABLE_ONLY -DVEA_TABLE=kPortable -DVEA_WIDTH=8 "
        f"-I{folder}/emulation/include -I{pybind11.get_include()} -I{sysconfig.get_paths()['include']}"
    )
    subprocess.run(["g++", *shlex.split(flags), *map(str, sources), "-o", str(module)], check=True)
    spec = importlib.util.spec_from_file_location("_C", module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def run(
    kernels, query, key, image_index, query_index=None, *, out=None, top_k=None, per_head=False, stats=None, **options
):
    a = Arguments(
        query, key, image_index, query_index, options.get("scale", query.shape[-1] ** -0.5),
        *(options.get(name) for name in ("key_start", "key_stop", "mask", "softcap", "window", "sinks")),
        options.get("position_bias"), options.get("weight", 1.0), top_k, per_head,
    )  # fmt: skip
    batch, tokens = image_index.shape
    scores = torch.empty((batch, query.shape[1], tokens) if per_head else (batch, tokens)) if out is None else out
    chosen = None if top_k is None else torch.empty(batch, tokens, dtype=torch.bool)
    kernels.image_attention_cuda(a, scores, out is not None, chosen, stats, 0)
    return scores if top_k is None else (scores, chosen)


def check(kernels, *tensors, **options):
    truth, found, again = (torch.empty(len(tensors[0]), 4) for _ in range(3))
    expected = ops.reference.image_attention(*tensors, per_head=True, stats=truth, **options)
    heads = run(kernels, *tensors, per_head=True, stats=found, **options)
    torch.testing.assert_close(heads, expected, rtol=0, atol=ATTENTION, equal_nan=True)
    torch.testing.assert_close(found, truth, rtol=FIGURES, atol=FIGURES, equal_nan=True)
    mean = run(kernels, *tensors, stats=again, **options)
    torch.testing.assert_close(again, truth, rtol=FIGURES, atol=FIGURES, equal_nan=True)
    torch.testing.assert_close(mean, expected.mean(1), rtol=0, atol=ATTENTION, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("keys", "dim", "group"), [(1, 1, 1), (3, 128, 7), (17, 72, 3), (111, 256, 17), (989, 80, 8)])
def test_sizes(kernels, dtype, keys, dim, group):
    check(kernels, *make(2, 2 * group, 2, 1, keys, dim, 17, dtype, seed=keys))


def test_statistics_of_samples_without_image_tokens(kernels):
    sinks = torch.linspace(-2, 2, 16)  # so that the mass of all probabilities is another one in each sample
    check(kernels, *make(9, 16, 2, 1, 17, 16, 0), sinks=sinks)  # more samples than blocks run at once


@pytest.mark.parametrize("dtype", DTYPES)
def test_options(kernels, dtype):
    query, key, index = make(3, 4, 2, 5, 300, 16, 40, dtype, index=torch.int32)
    g = torch.Generator().manual_seed(2)
    visible = torch.rand(3, 1, 5, 310, generator=g) < 0.6
    options = {
        "key_start": torch.tensor([0, 3, 299]),
        "key_stop": torch.tensor([300, 3, 999]),
        "mask": torch.where(visible, 0.0, torch.finfo(dtype).min).to(dtype),
        "position_bias": torch.randn(1, 4, 5, 300, generator=g).to(dtype),
        "sinks": torch.randn(4, generator=g).to(dtype),
        "softcap": 2.0,
        "window": 90,
        "scale": 0.7,
    }
    for name, value in options.items():
        check(kernels, query, key, index, **{name: value})
    check(kernels, query, key, index, torch.tensor([0, 4, 2]), **options)
    check(kernels, query, key, index, mask=visible)


def test_strides_nan_and_bad_indices(kernels):
    query, key, index = make(2, 4, 2, 1, 300, 24, 17)
    check(kernels, query, key.transpose(1, 2).contiguous().transpose(1, 2), index)
    check(kernels, query, key[:, :, 1::2], index % 150)
    check(kernels, query[..., :23], key[..., 1:], index)  # no 16-byte loads here
    key[0, 1, 270] = torch.nan
    check(kernels, query, key, index)
    index[1, 0] = 300
    assert run(kernels, query, key, index)[1].isnan().tolist() == [True] + [False] * 16
    assert run(kernels, query, key, index, torch.tensor([0, 1]))[1, index[1] >= 0].isnan().all()


@pytest.mark.parametrize("per_head", [False, True])
def test_out_and_topk(kernels, per_head):
    query, key, index = make(2, 4, 2, 1, 500, 32, 300)
    before = torch.randn((2, 4, 310) if per_head else (2, 310), generator=torch.Generator().manual_seed(1))
    out, other = before.clone(), before.clone()
    options = {"weight": 0.25, "top_k": 37, "per_head": per_head}
    found, chosen = run(kernels, query, key, index, out=out[..., 5:305], **options)
    ops.reference.image_attention(query, key, index, out=other[..., 5:305], **options)
    torch.testing.assert_close(out, other, rtol=0, atol=1e-6)
    mean = found.sum(1) if per_head else found
    assert torch.equal(chosen, ops.reference.topk_mask(mean.masked_fill(index < 0, torch.nan), 37))


@pytest.mark.parametrize("tokens", [1, 3, 17, 111, 989])
def test_topk_mask(kernels, tokens):
    scores = torch.randn(4, tokens, generator=torch.Generator().manual_seed(4)).mul(3).round()
    scores[0, ::2] = torch.nan
    scores[1] = 0
    for k in {0, 1, tokens // 2, tokens - 1, tokens}:
        chosen = torch.empty(4, tokens, dtype=torch.bool)
        kernels.topk_mask_cuda(scores, k, chosen, 0)
        assert torch.equal(chosen, ops.reference.topk_mask(scores, k))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(
    ("batch", "keys", "dim", "tokens"),
    [(1, 1, 1, 1), (1, 989, 128, 111), (3, 300, 23, 17), (9, 17, 72, 0), (2, 17, 256, 3), (0, 17, 16, 3)],
)
def test_steps_of_decoding(kernels, dtype, scale, batch, keys, dim, tokens):
    query, key, index = make(batch, 6, 2, 1, keys, dim, tokens, dtype, index=torch.int32)
    key = key.transpose(1, 2).contiguous().transpose(1, 2)
    scores, stats = buffers(batch, tokens)
    assert kernels.step_reader_cuda(index, scores, stats)(1, query, key, scale, keys, 0)
    truth = Rows(query, key, scale=scale)
    np.testing.assert_allclose(numbers(scores[1]), truth.at(index).mean(1), rtol=0, atol=ATTENTION)
    check_figures(stats[1], truth.figures(index))
    assert all((buffer[[0, 2]] == 7).all() for buffer in (scores, stats))


def test_one_step_after_the_other_over_growing_keys(kernels):
    scores, stats = buffers()
    read = kernels.step_reader_cuda(INDEX, scores, stats)
    for row in range(ROWS):
        query, key, _ = make(2, 4, 2, 1, 127 + row, 16, TOKENS, seed=row)
        assert read(row, query, key, None, 127 + row, 0)
        np.testing.assert_allclose(numbers(scores[row]), Rows(query, key).at(INDEX).mean(1), rtol=0, atol=ATTENTION)


ON_A_GPU = {
    **{name: change for name, change in DECLINED.items() if name != "an image token beyond the keys"},
    "more heads than the kernel takes": {"query": QUERY.repeat(1, 300, 1, 1)},
}


@pytest.mark.parametrize("case", ON_A_GPU)
def test_what_a_step_leaves_to_image_attention(kernels, case):
    scores, stats = buffers()
    given = {"row": 0, "query": QUERY, "key": KEY, "scale": None, "kept": 17, **ON_A_GPU[case]}
    assert not kernels.step_reader_cuda(INDEX, scores, stats)(*given.values(), 0)
    assert (scores == 7).all()
    assert (stats == 7).all()


@pytest.mark.parametrize("case", [name for name in REFUSED if name != "index too small"])
def test_what_stays_from_step_to_step_is_checked_at_once(kernels, case):
    change, message = REFUSED[case]
    scores, stats = buffers()
    with pytest.raises(InvalidInputError, match=message):
        kernels.step_reader_cuda(*{"image_index": INDEX, "scores": scores, "stats": stats, **change}.values())


def test_an_image_token_beyond_the_keys_of_a_step_is_nan(kernels):
    scores, stats = buffers()
    assert kernels.step_reader_cuda(INDEX, scores, stats)(0, QUERY, KEY[:, :, :LAST], None, 0, 0)
    assert torch.equal(scores[0].isnan(), LAST <= INDEX)


def test_a_step_goes_to_the_device_of_the_buffers_and_its_current_stream(kernels, monkeypatch):
    current, streams = [1], []  # the tensors here are on device None

    @contextmanager
    def device(index):
        current.append(index)
        yield
        current.pop()

    def stream_of(index):
        streams.append((index, current[-1]))
        return 0

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", stream_of, raising=False)
    scores, stats = buffers()
    read = step_reader._on_gpu(kernels, INDEX, scores, stats)
    for _ in range(2):
        assert read(0, QUERY, KEY, None, 17)
        assert not read(ROWS, QUERY, KEY, None, 17)
        current[0] = None
    assert streams == [(None, None)] * 4
    assert current == [None]


def test_sizes_beyond_32_bits_are_refused_by_name(kernels):
    query, key, index = make(1, 4, 2, 1, 2, 16, 3, torch.float16)
    memory, far = torch.UntypedStorage(2 * (2**30 + 99)), 2**30 + 8  # promised, never touched

    def two(*stride):
        """Two elements that lie far apart."""
        return query.new_empty(0).set_(memory, 0, [2 if step == far else 1 for step in stride], stride)

    narrow = key[:, :1, :, :1]
    many = [tensor.expand(2**28 + 1, *tensor.shape[1:]) for tensor in (query, key, index)]
    cases = {
        "query has shape .* takes 268435456 samples of so many heads; split": many,
        "key has shape .* takes 268435456 keys for the 4 heads": (
            query,
            key[:, :, :1].expand(1, 2, 2**28 + 1, 16),
            index,
        ),
        "image_index has shape .* at most 1073741824 tokens": (query, key, index[:, :1].expand(1, 2**30 + 1)),
        "key has stride 1073741832 in dimension 2.*key.contiguous": (query[:, :1, :, :1], two(1, 1, far, 1), index),
        "query has stride 1073741832 in dimension 1.*query.contiguous": (two(1, far, 1, 1), narrow, index),
        "query has stride 1073741832 in dimension 3.*query.contiguous": (two(1, 1, 1, far), key[:, :1, :, :2], index),
    }
    for message, tensors in cases.items():
        with pytest.raises(InvalidInputError, match=message):
            run(kernels, *tensors, out=torch.zeros(1, 3))
    key = key[:, :, :1].as_strided((1, 2, 1, 16), (64, 32, far, 1))  # a stride that nobody walks
    check(kernels, query, key, index.clamp(max=0))
