"""How sure the choice of layers is: resampled, against the number of samples, and across kinds of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vea_sdk.errors import InvalidInputError
from vea_sdk.grounding.profiling.choice import best_layers, n_best
from vea_sdk.grounding.profiling.measurement import Measurement

LEVEL = 0.95
COUNTS = (10, 25, 50, 100, 200, 400, 800)


@dataclass(frozen=True)
class Confidence:
    """Per layer read: the percentile interval of the mean AUROC (None from a single sample), and in what share of the
    resamples the layer is chosen."""

    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    share: tuple[float, ...]


@dataclass(frozen=True)
class Stability:
    """Choosing from ``n_samples`` drawn with replacement, compared with the choice from all.

    ``same``: share of the draws that choose the very same layers; ``agreement``: mean of |A ∩ B| / |A ∪ B|; ``lost``:
    mean AUROC, over all samples, of the layers chosen from all minus that of the drawn choice.
    """

    n_samples: int
    same: float
    agreement: float
    lost: float


@dataclass(frozen=True)
class Transfer:
    """Layers chosen on one kind of samples, used on another.

    ``layers[a]``: chosen on kind a, from ``n_samples[a]`` samples. ``auroc[a][b]``: their mean AUROC on kind b; where
    a = b they are measured on the samples that chose them. ``every[b]``: the mean of all layers on kind b.
    """

    kinds: tuple[str, ...]
    n_samples: tuple[int, ...]
    layers: tuple[tuple[int, ...], ...]
    auroc: tuple[tuple[float, ...], ...]
    every: tuple[float, ...]


def confidence(found: Measurement, fraction: float = 0.1, resamples: int = 1000, seed: int = 0) -> Confidence:
    """Bootstrap over the samples.

    Raises InvalidInputError when ``resamples`` is not positive, or the fraction is not in (0, 1].
    """
    scores = found.figures()
    count = n_best(scores.shape[1], fraction)
    means = _resampled(scores, len(scores), resamples, seed)
    share = _chosen(means, count).mean(0)
    if len(scores) == 1:
        return Confidence(None, None, _plain(share))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Confidence(_plain(low), _plain(high), _plain(share))


def stability(
    found: Measurement,
    fraction: float = 0.1,
    counts: Sequence[int] = COUNTS,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Stability]:
    """How the choice settles as samples are added, up to as many as there are.

    Raises InvalidInputError when a count or ``resamples`` is not positive, or the fraction is not in (0, 1].
    """
    scores = found.figures()
    total, n_layers = scores.shape
    count = n_best(n_layers, fraction)
    means = scores.mean(0)
    best = _chosen(means[None], count)[0]
    rows = []
    for n in sorted({n for n in counts if n < total} | {total}):
        chosen = _chosen(_resampled(scores, n, resamples, seed), count)
        shared = (chosen & best).sum(1)
        rows.append(
            Stability(
                n_samples=n,
                same=float((shared == count).mean()),
                agreement=float((shared / (2 * count - shared)).mean()),
                lost=float((means[best].mean() - chosen @ means / count).mean()),
            )
        )
    return rows


def transfer(found: Measurement, fraction: float = 0.1) -> Transfer:
    """Every kind of samples against every other, kinds in order of appearance."""
    scores = found.figures()
    of = np.array([one.kind for one in found.ranked])
    kinds = tuple(dict.fromkeys(of.tolist()))
    means = np.stack([scores[of == kind].mean(0) for kind in kinds])  # [kinds, layers]
    best = best_layers(means, n_best(means.shape[1], fraction))  # [kinds, count]
    return Transfer(
        kinds=kinds,
        n_samples=tuple(int((of == kind).sum()) for kind in kinds),
        layers=tuple(tuple(found.layers[place] for place in row) for row in best),
        auroc=tuple(_plain(means[:, row].mean(1)) for row in best),
        every=_plain(means.mean(1)),
    )


def _resampled(scores: NDArray[np.float64], n: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """[resamples, L] means over n rows drawn with replacement."""
    if n < 1 or resamples < 1:
        raise InvalidInputError(f"{n} samples drawn {resamples} times: give 1 or more of both.")
    even = np.full(len(scores), 1 / len(scores))
    drawn = np.random.default_rng([seed, n]).multinomial(n, even, size=resamples)
    return np.asarray(drawn @ scores / n)


def _chosen(means: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """[rows, L]: which layers each row of means chooses."""
    chosen = np.zeros(means.shape, dtype=bool)
    np.put_along_axis(chosen, best_layers(means, count), True, axis=1)
    return chosen


def _plain(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, values))
