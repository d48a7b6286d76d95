"""Which requests are sampled."""

from __future__ import annotations

from hashlib import blake2b

from vea_sdk.errors import InvalidInputError


def sampled(request: str, rate: float) -> bool:
    """Whether hash(request) / 2⁶⁴ < rate.

    The same request is decided the same way in every process, and what a low rate samples a higher one samples too.
    An id may be any string: what came as bytes that are no UTF-8 has lone surrogates.
    """
    return int.from_bytes(blake2b(request.encode("utf-8", "surrogatepass"), digest_size=8).digest()) < round(
        rate * 2**64
    )


def check_rate(rate: float) -> float:
    if not 0.0 <= rate <= 1.0:
        raise InvalidInputError(f"sample_rate={rate} is no share of requests; give a number from 0 to 1.")
    return float(rate)
