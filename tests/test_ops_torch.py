"""How the operators live in torch: schemas, tracing, compilation, autograd, threads, processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from oracle import make
from torch.library import opcheck

from vea_sdk import _native, ops


def arguments(top_k=None, per_head=False, stats=False, **changes):
    query, key, index = make(2, 4, 2, 3, 17, 16, 5)
    names = (
        "query",
        "key",
        "image_index",
        "query_index",
        "scale",
        "key_start",
        "key_stop",
        "mask",
        "softcap",
        "window",
    )
    values = dict.fromkeys((*names, "sinks", "position_bias", "weight"))
    values |= {"query": query, "key": key, "image_index": index, "scale": 0.25, "weight": 1.0}
    return (*(values | changes).values(), top_k, per_head, stats)


VARIANTS = {
    "plain": {},
    "top-k": {"top_k": 3},
    "per head": {"per_head": True, "top_k": 0},
    "stats": {"stats": True},
    "options": {
        "query_index": torch.tensor([0, 2]),
        "key_stop": torch.tensor([9, 17]),
        "mask": torch.ones(1, 1, 3, 17, dtype=torch.bool),
        "softcap": 5.0,
        "window": 8,
        "sinks": torch.zeros(4),
    },
    "gradients": {"query": make(2, 4, 2, 3, 17, 16, 5)[0].requires_grad_(), "top_k": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant):
    args = arguments(**VARIANTS[variant])
    opcheck(torch.ops.vea_sdk.image_attention.default, args)
    out = torch.zeros(2, 4, 5) if args[-2] else torch.zeros(2, 5)
    opcheck(torch.ops.vea_sdk.image_attention_.default, (out, *args))


def test_opcheck_topk_mask():
    opcheck(torch.ops.vea_sdk.topk_mask.default, (torch.randn(3, 17), 5))


def test_fullgraph_compile_and_dynamic_shapes():
    def step(query, key, index, out, stats):
        total = ops.image_attention(query, key, index, out=out, weight=0.5, stats=stats[0])
        scores, chosen = ops.image_attention(query, key, index, top_k=2, stats=stats[1])
        return total + 1, scores, chosen, ops.topk_mask(scores, 1)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for keys in (17, 30):
        query, key, index = make(2, 4, 2, 1, keys, 16, 5)
        out, other = torch.ones(2, 5), torch.ones(2, 5)
        stats, others = torch.ones(2, 2, 4), torch.zeros(2, 2, 4)
        results = compiled(query, key, index, out, stats), step(query, key, index, other, others)
        for found, expected in zip(*results, strict=True):
            assert torch.equal(found, expected)
        assert torch.equal(out, other)
        assert torch.equal(stats, others)


def test_inputs_that_require_gradients():
    query, key, index = make(2, 4, 2, 1, 17, 16, 5)
    expected = ops.image_attention(query, key, index)
    for q in (query.clone().requires_grad_(), torch.nn.Parameter(query)):
        found = ops.image_attention(q, key, index)
        assert not found.requires_grad
        assert torch.equal(found, expected)


def test_meta_tensors_give_shapes():
    query, key, index = (t.to("meta") for t in make(2, 4, 2, 1, 17, 16, 5))
    scores, chosen, _ = torch.ops.vea_sdk.image_attention(*arguments(query=query, key=key, image_index=index, top_k=1))
    assert (scores.shape, chosen.shape, scores.device.type) == ((2, 5), (2, 5), "meta")


def test_the_same_bits_on_any_number_of_threads():
    query, key, index = make(2, 8, 2, 1, 3000, 64, 500)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3, 2):
            torch.set_num_threads(n)
            results.append(ops.image_attention(query, key, index, top_k=7, per_head=True))
    finally:
        torch.set_num_threads(threads)
    for scores, chosen in results[1:]:
        assert torch.equal(scores, results[0][0])
        assert torch.equal(chosen, results[0][1])


def test_callers_in_several_threads():
    inputs = [make(2, 8, 2, 1, 2000, 64, 300, seed=i) for i in range(4)]
    expected = [ops.image_attention(*i) for i in inputs]
    right = []

    def work(i):
        right.extend(torch.equal(ops.image_attention(*inputs[i]), expected[i]) for _ in range(5))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert right == [True] * 20


def test_works_in_a_forked_child():
    query, key, index = make(2, 8, 2, 1, 2000, 64, 300)
    torch.set_num_threads(max(2, torch.get_num_threads()))
    expected = ops.image_attention(query, key, index)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if torch.equal(ops.image_attention(query, key, index), expected) else 1)
    assert os.waitpid(pid, 0)[1] == 0


FORKED = """
import os, signal, torch
import vea_sdk as vea
FIRST
query, key, index = torch.ones(8, 8, 1, 64), torch.ones(8, 8, 4096, 64), torch.arange(64)[None].repeat(8, 1)
torch.set_num_threads(2)
torch.ones(10**7).add_(1)  # on torch's threads
if os.fork() == 0:
    signal.alarm(20)
    print(round(float(vea.ops.image_attention(query, key, index).sum()), 4), flush=True)
    os._exit(0)
print(os.wait()[1])
"""


@pytest.mark.parametrize("first", ["", "vea.build_info()", "vea.ops.topk_mask(torch.rand(1, 9), 2)"])
def test_a_child_whose_parent_ran_torch_alone(first):
    """Whatever of ours the parent has run: nothing, what loads the kernels, one of them."""
    assert run(FORKED.replace("FIRST", first)) == "0.125\n0"


def run(code, **environment):
    done = subprocess.run(  # not in the checkout, whose package would hide the installed one and its extension
        [sys.executable, "-c", code], env={**os.environ, **environment}, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(_native.extension() is None, reason="needs the compiled extension")
def test_every_cpu_path_agrees():
    code = (
        "import torch; from vea_sdk import ops, _native; g = torch.Generator().manual_seed(0);"
        "q = torch.randn(1, 7, 1, 72, generator=g).half(); k = torch.randn(1, 1, 989, 72, generator=g).half();"
        "i = torch.arange(989)[None];"
        "e = ops.image_attention(q, k, i, softcap=3.0) - ops.reference.image_attention(q, k, i, softcap=3.0);"
        "print(_native.extension().cpu_path(), e.abs().max().item() < 2e-7)"
    )
    assert run(code, VEA_CPU_PATH="portable") == "portable True"
    path, right = run(code).split()
    assert path == _native.build_info()["cpu_path"]
    assert right == "True"


def test_without_the_extension():
    code = (
        "import sys; sys.modules['vea_sdk._C'] = None\n"
        "import torch; from vea_sdk import ops, _native\n"
        "info = _native.build_info(); assert not info['native'] and not info['cuda'] and info['reasons'], info\n"
        "q, k, i = torch.randn(2, 4, 1, 16), torch.randn(2, 2, 17, 16), torch.randint(-1, 17, (2, 5))\n"
        "e = ops.image_attention(q, k, i) - ops.reference.image_attention(q, k, i)\n"
        "print(e.abs().max().item() < 1e-6, ops.topk_mask(torch.arange(3.0)[None], 1).tolist())\n"
        "try: _native.require()\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    assert run(code) == "True [[False, False, True]]\nNativeExtensionError"


def test_build_info_names_what_is_missing():
    info = _native.build_info()
    assert set(info) == {"native", "path", "cuda", "cuda_archs", "compiler", "cpu_path", "torch", "reasons"}
    assert info["cuda"] == (not info["reasons"])
