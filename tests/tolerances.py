"""The tolerances of the numerical tests, in one place, each with its reason."""

from __future__ import annotations

# Absolute error of a probability in float32 against float64. Probabilities are at most 1; a score of magnitude s
# carries an error of about s * 2^-24 * sqrt(D), and the exponential turns it into a relative error.
ATTENTION = 2e-6

# The same, as a factor on what plain torch reaches with the same formula in the same dtype. Sums run in another order,
# so either side may be luckier by a factor; below FLOOR both are rounding noise.
ATTENTION_FACTOR = 2.0
FLOOR = 2.0**-23

# A score s is held no closer than to a unit in its last place, at most |s| 2^-23, and a probability follows its score
# with the slope p (1 - p) <= 1/4. Together with the rounding of the sums: FLOOR * (1 + |s| / 4).
SCORE_SHARE = 0.25

# Image mass, text mass, peak and entropy, absolute and relative: sums of many probabilities, and ratios of them, whose
# relative error is the absolute error of a score. Peak and entropy of a row that hardly holds any mass at the image are
# ratios of numbers that float32 cannot hold.
FIGURES = 2e-5
FIGURES_MASS = 1e-30

# Scores this close to the k-th largest may be chosen either way: float32 cannot tell them apart reliably. Exact ties
# are tested on exact numbers, without this band.
TOPK_BAND = 1e-6
