"""λ, σ and α, checked before a model runs."""

from __future__ import annotations

from numbers import Real
from typing import NamedTuple

from vea_sdk.errors import InvalidInputError


class Constants(NamedTuple):
    """λ of denoising, σ of the highlight's smoothing, α of highlighting; see :class:`vea_sdk.evidence.Evidence`."""

    lam: float = 10.0
    sigma: float = 0.5
    alpha: float = 0.5

    def checked(self) -> Constants:
        """These, or an InvalidInputError that names the one that cannot be."""
        for name, value in self._asdict().items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise InvalidInputError(f"{name}={value!r} is no number.")
        if not self.lam > 0:
            raise InvalidInputError(f"lam={self.lam} must be positive; 10 is the published value.")
        if not 0 <= self.sigma < float("inf"):
            raise InvalidInputError(
                f"sigma={self.sigma} must not be negative or endless: up to 1 it counts in shorter sides of the "
                "picture, above in pixels."
            )
        if not 0 <= self.alpha <= 1:
            raise InvalidInputError(
                f"alpha={self.alpha} must lie in [0, 1]: the brightness that unattended regions keep."
            )
        return self

    def changed(self, lam: float | None, sigma: float | None, alpha: float | None) -> Constants:
        """With those of a call in place of these, checked."""
        given = {"lam": lam, "sigma": sigma, "alpha": alpha}
        return self._replace(**{name: value for name, value in given.items() if value is not None}).checked()
