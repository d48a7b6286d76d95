"""A measurement as pictures. Needs matplotlib, which the extra ``[viz]`` brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vea_sdk.grounding.profiling.measurement import Measurement
from vea_sdk.grounding.profiling.resampling import Stability, Transfer, stability, transfer
from vea_sdk.grounding.profiling.study import sink_summaries
from vea_sdk.profiles import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Measurement, profile: Profile, folder: str | Path) -> dict[str, Path]:
    """Write all figures as PNG into a folder that exists, in place of earlier ones; returns their paths by name."""
    figures = {
        "layers": layers_figure(profile),
        "stability": stability_figure(stability(found, profile.fraction)),
        "transfer": transfer_figure(transfer(found, profile.fraction)),
        "sinks": sinks_figure(found),
    }
    paths = {name: Path(folder) / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        figure.savefig(paths[name], dpi=120)
    return paths


def layers_figure(profile: Profile) -> Figure:
    """AUROC against depth with its interval, AP and NDCG, the chosen layers, and how often each is chosen."""
    figure, (above, below) = _subplots(2, 1, 7, 5, sharex=True, height_ratios=(3, 1))
    read = [layer for layer, value in enumerate(profile.auroc) if value is not None]

    def of(values: Sequence[float | None]) -> list[float]:
        return [value for value in values if value is not None]

    above.plot(read, of(profile.auroc), "C0.-", label="AUROC")
    if of(profile.auroc_low):
        above.fill_between(read, of(profile.auroc_low), of(profile.auroc_high), color="C0", alpha=0.2, linewidth=0)
    above.plot(read, of(profile.average_precision), "C2.-", linewidth=0.8, markersize=3, label="average precision")
    above.plot(read, of(profile.ndcg), "C7.-", linewidth=0.8, markersize=3, label="NDCG")
    chosen = [profile.auroc[layer] for layer in profile.layers]
    above.plot(profile.layers, chosen, "C3o", markersize=8, fillstyle="none", label="chosen")
    above.axhline(
        sum(of(profile.auroc)) / len(read), color="C0", linewidth=0.8, linestyle="--", label="AUROC, all layers"
    )
    above.axhline(0.5, color="black", linewidth=0.6)
    above.set(ylabel="mean over samples", ylim=(0, 1.02), title=f"{profile.model}, {profile.n_samples} samples")
    above.legend(fontsize=7, loc="lower left")
    below.bar(read, of(profile.chosen_share), color="C3")
    below.set(xlabel="layer", ylabel="share of resamples\nthat choose it", ylim=(0, 1.02))
    below.xaxis.get_major_locator().set_params(integer=True)
    return figure


def stability_figure(rows: Sequence[Stability]) -> Figure:
    """How the choice settles as samples are added."""
    figure, (left, right) = _subplots(1, 2, 8, 3.2)
    n = [row.n_samples for row in rows]
    left.plot(n, [row.agreement for row in rows], "C0o-", label="layers in common, |A∩B| / |A∪B|")
    left.plot(n, [row.same for row in rows], "C1s--", label="the very same layers")
    left.set(ylim=(0, 1.02), ylabel="agreement with the choice from all")
    left.legend(fontsize=7, loc="lower right")
    right.plot(n, [row.lost for row in rows], "C3o-")
    right.set(ylabel="mean AUROC lost")
    right.set_ylim(bottom=0)
    for ax in (left, right):
        ax.set(xscale="log", xlabel="samples drawn", xticks=n, xticklabels=n)
        ax.minorticks_off()
    return figure


def transfer_figure(found: Transfer) -> Figure:
    """Rows: the kind that chose the layers; columns: the kind they are used on; below, all layers."""
    side = 0.9 * len(found.kinds)
    figure, ax = _subplots(1, 1, 2.8 + side, 2 + 0.7 * side)
    values = [*found.auroc, found.every]
    shown = ax.imshow(values, cmap="viridis", vmin=min(map(min, values)), vmax=1, aspect="auto")
    low, high = shown.get_clim()
    for row, line in enumerate(values):
        for col, value in enumerate(line):
            dark = value < (low + high) / 2
            ax.text(col, row, f"{value:.3f}", ha="center", va="center", color="white" if dark else "black", fontsize=8)
    names = [f"{kind} ({n})" for kind, n in zip(found.kinds, found.n_samples, strict=True)]
    chosen = [f"{kind}: {', '.join(map(str, row))}" for kind, row in zip(found.kinds, found.layers, strict=True)]
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(values)), [*chosen, "all layers"], fontsize=8)
    ax.set(xlabel="used on", ylabel="layers chosen on")
    figure.colorbar(shown, label="mean AUROC")
    return figure


def sinks_figure(found: Measurement) -> Figure:
    """Sinks per picture and what denoising removes, under both border rules; where the sinks are."""
    figure, (count, removed, place) = _subplots(1, 3, 11, 3.2)
    for (border, summary), style in zip(sink_summaries(found).items(), ("C0o-", "C1s--"), strict=True):
        layers = [one.layer for one in summary]
        count.plot(layers, [one.count for one in summary], style, label=f"border: {border}")
        removed.plot(layers, [one.removed for one in summary], style, label=f"border: {border}")
    count.set(xlabel="layer", ylabel="spikes per picture")
    removed.set(xlabel="layer", ylabel="share of attention removed")
    for ax in (count, removed):
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=7)
    sinks = [(one.layer, sink) for row in found.samples for one in row.sinks.get("valid", ()) for sink in one.sinks]
    if sinks:
        x, y, colour = [s.x for _, s in sinks], [s.y for _, s in sinks], [layer for layer, _ in sinks]
        size = [4 + 200 * sink.share for _, sink in sinks]
        dots = place.scatter(x, y, size, colour, cmap="viridis", alpha=0.5, vmin=0, vmax=max(1, found.n_layers - 1))
        figure.colorbar(dots, label="layer")
    place.set(xlim=(0, 1), ylim=(1, 0), xlabel="across the grid", ylabel="down the grid")
    sharp = sum(bool(sink.evidence) for _, sink in sinks)
    place.set_title(f"{len(sinks)} spikes, {sharp} of them on evidence", fontsize=9)
    return figure


def _subplots(rows: int, cols: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, cols, **options)
