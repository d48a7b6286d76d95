"""Drawn calls of ``image_attention``: sizes at the kernels' seams, dtypes, strides, every option, NaN and infinity."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from oracle import DTYPES
from torch import Tensor

LENGTHS = (1, 2, 3, 5, 16, 17, 111, 255, 256, 257, 300, 511, 513, 989)
DIMS = (1, 3, 8, 15, 16, 17, 32, 64, 72, 80, 96, 111, 128, 256, 512)
GROUPS = (1, 2, 3, 4, 5, 7, 8, 17)
WORK = 1 << 21  # multiply-adds of one call; larger ones would only be slower


def cases(n: int) -> int:
    """``n`` examples under the profile `ci`, in proportion under the others."""
    return max(1, n * settings.default.max_examples // 100)


@dataclass
class Problem:
    query: Tensor
    key: Tensor
    image_index: Tensor
    query_index: Tensor | None = None
    options: dict[str, Any] = field(default_factory=dict)  # what shapes the softmax
    out: Tensor | None = None  # what it holds before the call
    weight: float = 1.0
    top_k: int | None = None
    per_head: bool = False

    def __repr__(self) -> str:  # what hypothesis prints of a failing case
        def brief(value):
            return (tuple(value.shape), value.stride(), str(value.dtype)) if isinstance(value, Tensor) else value

        shown = {**vars(self), **self.options}
        del shown["options"]
        return f"Problem({', '.join(f'{k}={brief(v)}' for k, v in shown.items() if v is not None)})"

    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.query, self.key, self.image_index, self.query_index

    def to(self, device: str) -> Problem:
        def move(value):
            if not isinstance(value, Tensor):
                return value
            memory = torch.tensor([], dtype=value.dtype).set_(value.untyped_storage()).to(device, copy=True)
            return memory.as_strided(value.shape, value.stride(), value.storage_offset())  # same strides over there

        options = {name: move(value) for name, value in self.options.items()}
        return replace(self, **{k: move(v) for k, v in vars(self).items() if k != "options"}, options=options)

    def call(self, function: Any, stats: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(scores, mask or None) of ``function``, which has the signature of ``ops.image_attention``."""
        result = function(
            *self.tensors(),
            **self.options,
            out=self.out,
            weight=self.weight,
            top_k=self.top_k,
            per_head=self.per_head,
            stats=stats,
        )
        return result if self.top_k is not None else (result, None)


def spread(tensor: Tensor, steps: tuple[int, ...], order: tuple[int, ...] | None = None) -> Tensor:
    """The same values at other strides: every ``steps[i]``-th place of dimension i, in ``order``; NaN between."""
    order = order or tuple(range(tensor.dim()))
    room = [max(1, tensor.shape[i] * steps[i] + steps[i] - 1) for i in order]
    filler = torch.nan if tensor.is_floating_point() else True if tensor.dtype == torch.bool else -(2**30)
    memory = torch.full(room, filler, dtype=tensor.dtype).permute(*(order.index(i) for i in range(tensor.dim())))
    for i, step in enumerate(steps):
        memory = memory.narrow(i, step - 1, memory.shape[i] - step + 1)  # does not begin where its memory does
        memory = memory[(slice(None),) * i + (slice(0, max(0, (tensor.shape[i] - 1) * step + 1), step),)]
    return memory.copy_(tensor)


@st.composite
def layouts(draw: Any, tensor: Tensor, contiguous_last: bool = False) -> Tensor:
    """``tensor`` as it is, or spread."""
    dims = tensor.dim()
    if draw(st.booleans()):
        return tensor
    steps = [draw(st.sampled_from([1, 1, 1, 2])) for _ in range(dims)]
    order = list(range(dims))
    if dims - contiguous_last > 1 and draw(st.booleans()):
        a, b = (1, 2) if dims == 4 else (0, 1)  # heads behind positions, as before a model's transpose
        order[a], order[b] = order[b], order[a]
    if contiguous_last:
        steps[-1] = 1
    return spread(tensor, tuple(steps), tuple(order))


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g)


def runs(g: torch.Generator, batch: int, keys: int, tokens: int) -> Tensor:
    """An index [batch, tokens] as prompts have it: up to four runs of consecutive keys with gaps between them, every
    other time up to the last key, and -1 behind. They cross the kernels' blocks and the ends of what is visible."""
    index = torch.full((batch, tokens), -1)
    for row in index:
        n = int(torch.randint(1, 5, (), generator=g))
        cuts = torch.randint(0, keys + 1, (2 * n,), generator=g).sort().values
        if torch.rand((), generator=g) < 0.5:
            cuts[-1] = keys
        held = torch.cat([torch.arange(first, stop) for first, stop in cuts.view(n, 2).tolist()])
        held = held[max(0, len(held) - tokens) :]
        row[: len(held)] = held
    return index


@st.composite
def problems(draw: Any, max_work: int = WORK) -> Problem:
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    rarely = lambda: draw(st.integers(0, 7)) == 7  # noqa: E731
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    keys = draw(st.one_of(st.sampled_from(LENGTHS), st.integers(1, 700)))
    dim = draw(st.one_of(st.sampled_from(DIMS), st.integers(1, 200)))
    batch = 0 if rarely() and rarely() else pick(1, 2, 3)
    kv_heads, group, rows = pick(1, 2, 3, 5), pick(*GROUPS), pick(1, 1, 3, 17)
    while max(1, batch) * kv_heads * group * keys * dim > max_work:
        group, kv_heads, dim = (
            (max(1, group // 2), kv_heads, dim) if group > 1 else (1, max(1, kv_heads // 2), dim // 2)
        )
        dim = max(1, dim)
    heads, dtype = kv_heads * group, pick(*DTYPES)
    tokens = pick(0, 1, 3, 17, 111, 255, 256, 257, 300)

    query = normal(g, batch, heads, rows, dim).mul(pick(0.1, 1.0, 3.0)).to(dtype)
    key = normal(g, batch, kv_heads, keys, dim).to(dtype)
    index_dtype = pick(torch.int32, torch.int64)
    anywhere = lambda: torch.randint(-1, keys, (batch, tokens), generator=g)  # noqa: E731
    index = (runs(g, batch, keys, tokens) if draw(st.booleans()) else anywhere()).to(index_dtype)
    options: dict[str, Any] = {}
    if rarely():
        options["scale"] = pick(-1.0, 0.0, 0.5, 2.0) * dim**-0.5
    if pick(False, False, True):
        options["softcap"] = pick(0.3, 5.0, 50.0)
    if pick(False, False, True):
        options["window"] = pick(1, 7, 255, 256, 300, 2**40)
    if pick(False, False, True):
        options["sinks"] = draw(layouts(normal(g, heads).to(pick(*DTYPES))))
    ends = torch.tensor([0, 1, keys // 2, keys - 1, keys, keys + 9])
    for name in ("key_start", "key_stop"):
        if pick(False, False, True):
            near = ends[torch.randint(pick(0, 2), 6, (batch,), generator=g)]
            values = near - pick(0, keys // 2, keys) if name == "key_start" else near
            options[name] = draw(layouts(values.to(pick(torch.int32, torch.int64))))
    query_index = None
    if draw(st.booleans()):
        query_index = draw(layouts(torch.randint(0, rows, (batch,), generator=g).to(pick(torch.int32, torch.int64))))

    def biases(make: Any) -> Tensor:
        shape = (pick(1, batch), pick(1, heads), pick(1, rows), keys + pick(0, 0, 1, 40))
        full = draw(layouts(make(shape)))
        return full.expand(batch, heads, rows, -1) if rarely() else full

    if pick(False, False, True):
        options["position_bias"] = biases(lambda shape: normal(g, *shape).to(pick(*DTYPES)))
    if pick(False, True):
        kind, share = pick(torch.bool, *DTYPES), pick(0.1, 0.9, 1.0)

        def make_mask(shape: tuple[int, ...]) -> Tensor:
            visible = torch.rand(shape, generator=g) < share
            if kind == torch.bool:
                return visible
            hidden = pick(-torch.inf, torch.finfo(kind).min)
            return torch.where(visible, normal(g, *shape), hidden).to(kind)

        options["mask"] = biases(make_mask)

    for tensor in (query, key):  # what spreads: from a visible key to its row, from a hidden one nowhere
        if rarely() and tensor.numel():
            places = torch.randint(0, tensor.numel(), (pick(1, 3),), generator=g)
            tensor.view(-1)[places] = pick(torch.nan, torch.inf, -torch.inf)

    query = draw(layouts(query))
    key = draw(layouts(key, contiguous_last=True))
    if batch and rarely():
        key = key[:1].expand(batch, -1, -1, -1)  # one prefix for all samples
    problem = Problem(query, key, draw(layouts(index)), query_index, options)
    problem.per_head = draw(st.booleans())
    problem.weight = pick(1.0, 1.0, 0.25, -0.5, 0.0)
    problem.top_k = draw(st.none() | st.integers(0, tokens))
    if draw(st.booleans()):
        shape = (batch, heads, tokens) if problem.per_head else (batch, tokens)
        problem.out = draw(layouts(normal(g, *shape), contiguous_last=True))
    return problem
