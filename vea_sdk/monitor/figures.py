"""From a slot of the ring to a few numbers on the host: computed where the rows are, copied once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.capture.stats import Stats, row_stats
from vea_sdk.errors import NoImageError
from vea_sdk.monitor.places import border_share, spikes
from vea_sdk.monitor.record import Figures, LayerFigures
from vea_sdk.monitor.ring import FIRST, LAST, PROMPT, SUM, Ring
from vea_sdk.ops.plain import figures as row_figures


@dataclass(frozen=True)
class Read:
    """What was copied of one request."""

    layers: tuple[int, ...]
    stats: Tensor  # [layers + 1, 4]: image mass, text mass, peak, entropy of each layer and of their mean row
    trace: tuple[float | None, float | None, float | None]  # image mass of the generated tokens: first, mean, last
    generated: int
    passes: int  # since the prompt, read by graphs
    blank: tuple[int, ...]  # layers that have no image mass of the prompt, or of the last generated token
    prompt: int  # prompt tokens, without padding
    image: int  # image tokens
    nan: int
    agreement: float | None
    spikes: int | None
    border_share: float | None
    top: tuple[tuple[int, float], ...]  # (image token, score), best first
    rows: Tensor | None  # [layers, image tokens], only where asked for
    copied: int  # bytes


def read(
    ring: Ring,
    slot: int,
    devices: dict[int, torch.device],
    all_layers: Sequence[int],
    index: Tensor,
    prompt_tokens: Tensor,
    layouts: Sequence[ImageLayout] | None,
    top_k: int,
    keep_rows: bool,
    staging: Tensor | None,
) -> Read:
    """Args:
    devices: of each layer that was read.
    all_layers: those of the ring, in order.
    index: [M] key positions of the image tokens, -1 for none.
    prompt_tokens: [] tokens of the prompt.
    layouts: of the request's pictures, in order.
    staging: pinned memory to copy into.

    Raises NoImageError where there is no image token."""
    home = next(iter(devices.values()))
    there = index.to(home) >= 0
    if not there.any():
        raise NoImageError("no image token among the tokens of the prompt.")
    rows = torch.cat([ring.on(d).rows[slot, ls, : len(index)].to(home) for d, ls in _by_device(devices, all_layers)])
    rows = rows[:, there]
    stats = torch.cat([ring.on(d).figures[PROMPT, ls, slot].to(home) for d, ls in _by_device(devices, all_layers)])
    trace = torch.cat([ring.on(d).trace[:, ls, slot].to(home) for d, ls in _by_device(devices, all_layers)], 1)
    passes = torch.stack([ring.on(d).passes[slot].to(home) for d, _ in _by_device(devices, all_layers)]).amin()
    mean = rows.mean(0)
    mean_stats = row_figures(mean[None], (stats[:, 0] + stats[:, 1]).mean()[None])
    scores, order = torch.where(mean.isnan(), -torch.inf, mean).sort(descending=True, stable=True)
    k = min(top_k, len(mean))
    scalars = [ring.on(home).counts[slot], passes, prompt_tokens.to(home), rows.isnan().sum(), _agreement(rows)]
    if layouts:
        scalars += [spikes(mean, layouts), border_share(mean, layouts)]
    parts = [torch.stack([one.float() for one in scalars]), trace.mean(1), trace[LAST], scores[:k], order[:k].float()]
    device_side = torch.cat([part.flatten() for part in (stats, mean_stats, *parts, *([rows] if keep_rows else []))])
    host = _copied(device_side, staging)
    sizes = [stats.numel() + 4, len(scalars), 3, len(devices), k, k, rows.numel() if keep_rows else 0]
    figures, singles, moved, ends, best, tokens, kept = torch.split(host, sizes)
    generated, passes_read, prompt, nan, agreement, *geometry = singles.tolist()
    blank = figures.view(-1, 4)[:-1, 0].isnan() | (ends.isnan() & (generated > 0))
    first, total, last = moved[FIRST].item(), moved[SUM].item(), moved[LAST].item()
    return Read(
        layers=tuple(devices),
        stats=figures.view(-1, 4),
        trace=(number(first), number(total / generated) if generated else None, number(last)),
        generated=int(generated),
        passes=int(passes_read),
        blank=tuple(layer for layer, is_blank in zip(devices, blank.tolist(), strict=True) if is_blank),
        prompt=int(prompt),
        image=len(mean),
        nan=int(nan),
        agreement=number(agreement),
        spikes=int(geometry[0]) if geometry else None,
        border_share=number(geometry[1]) if geometry else None,
        top=tuple((int(i), s) for i, s in zip(tokens.tolist(), best.tolist(), strict=True) if math.isfinite(s)),
        rows=kept.view(rows.shape) if keep_rows else None,
        copied=host.numel() * host.element_size(),
    )


def in_figures(read: Read, cross_attention: bool) -> tuple[Figures, tuple[LayerFigures, ...]]:
    """Of the layers' mean row, and of each layer."""
    tokens, visible = torch.tensor([read.image]), torch.tensor([[read.prompt]])
    found = row_stats(read.stats[:, None, None], tokens, visible, cross_attention)
    rows = [_figures(found, number) for number in range(len(read.stats))]
    layers = (LayerFigures(**vars(one), layer=layer) for one, layer in zip(rows, read.layers, strict=False))
    return rows[-1], tuple(layers)


def number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figures(stats: Stats, row: int) -> Figures:
    names = ("image_mass", "entropy", "peak", "rapt_image", "rapt_text")
    return Figures(**{name: number(getattr(stats, name)[row, 0, 0].item()) for name in names})


def _agreement(rows: Tensor) -> Tensor:
    """Mean cosine of all pairs of L rows: with u of length 1, |Σ u|² holds each pair twice, and L times 1."""
    layers = len(rows)
    if layers < 2:
        return rows.new_tensor(torch.nan)
    together = torch.nn.functional.normalize(rows, eps=0.0).sum(0)
    pairs: Tensor = together.square().sum() - layers
    return pairs / (layers * (layers - 1))


def _by_device(devices: dict[int, torch.device], layers: Sequence[int]) -> list[tuple[torch.device, list[int]]]:
    """Places of the layers in the ring, in order, cut where the device changes."""
    found: list[tuple[torch.device, list[int]]] = []
    for layer, device in devices.items():
        if not found or found[-1][0] != device:
            found.append((device, []))
        found[-1][1].append(layers.index(layer))
    return found


def _copied(values: Tensor, staging: Tensor | None) -> Tensor:
    """On a GPU one asynchronous copy into pinned memory, and the wait for it, which is the drain thread's alone."""
    if staging is None or not values.is_cuda or values.numel() > staging.numel():
        return values.cpu()
    host = staging[: values.numel()].copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return host.clone()
