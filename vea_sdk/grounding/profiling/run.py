"""From a model and samples to a profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vea_sdk._version import __version__
from vea_sdk.capture.layers import LayerSelection
from vea_sdk.grounding.metrics import Rule
from vea_sdk.grounding.profiling.choice import best_layers, n_best
from vea_sdk.grounding.profiling.measurement import Measurement
from vea_sdk.grounding.profiling.measuring import Attends, measure
from vea_sdk.grounding.profiling.resampling import confidence
from vea_sdk.grounding.samples import Sample
from vea_sdk.profiles.profile import PerLayer, Profile


def profile(
    vlm: Attends,
    samples: Iterable[Sample],
    fraction: float = 0.1,
    *,
    rule: Rule = "any",
    layers: LayerSelection = "all",
    batch: int = 8,
    journal: str | Path | None = None,
    progress: Callable[[int], object] | None = None,
    source: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Profile:
    """L_VG = the ceil(fraction · L) layers with the highest mean AUROC over the samples (arXiv 2510.17771).

    L counts the layers read; those without softmax attention cannot be. Of equal means, the shallower layer is chosen.
    Samples of one class, or without boxes, are left out and counted in ``skipped``.

    Args:
        vlm: the wrapped model; no layer of its own choice matters here.
        samples: about 100, such as ``vea.probes(100)``.
        fraction: share of the layers to choose, in (0, 1].
        rule, layers, batch, journal, progress: see :func:`measure`.
        source: what the samples are; by default their number and kinds.
        resamples, seed: of the bootstrap behind ``auroc_low``, ``auroc_high`` and ``chosen_share``.

    Raises:
        InvalidInputError, NaNAttentionError: see :func:`measure`; or the fraction is not in (0, 1].
    """
    n_best(1, fraction)  # a wrong fraction is refused before the model runs
    found = measure(vlm, samples, layers=layers, rule=rule, batch=batch, journal=journal, progress=progress)
    return profile_of(found, fraction, source=source, resamples=resamples, seed=seed)


def profile_of(
    found: Measurement, fraction: float = 0.1, *, source: str | None = None, resamples: int = 1000, seed: int = 0
) -> Profile:
    """The profile that a measurement gives; see :func:`profile`."""
    means = found.figures().mean(0)
    best = best_layers(means, n_best(len(means), fraction))
    sure = confidence(found, fraction, resamples, seed)

    def by_layer(values: Iterable[float] | None) -> PerLayer:
        read = {} if values is None else dict(zip(found.layers, map(float, values), strict=True))
        return tuple(read.get(layer) for layer in range(found.n_layers))

    return Profile(
        model=found.model,
        layers=tuple(found.layers[place] for place in best),
        source=source or _kinds([one.kind for one in found.ranked]),
        n_layers=found.n_layers,
        auroc=by_layer(means),
        n_samples=len(found.ranked),
        fraction=fraction,
        average_precision=by_layer(found.figures("average_precision").mean(0)),
        ndcg=by_layer(found.figures("ndcg").mean(0)),
        auroc_low=by_layer(sure.low),
        auroc_high=by_layer(sure.high),
        chosen_share=by_layer(sure.share),
        rule=found.rule,
        skipped=found.skipped,
        version=__version__,
    )


def _kinds(kinds: Sequence[str]) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in Counter(kinds).items() if kind)
    return f"{len(kinds)} samples" + (f" ({counts})" if counts else "")
