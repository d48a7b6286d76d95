"""What every process of the suite does first. Transformers looks for torchvision once, when it is imported, so the
stand-in comes before it."""

from __future__ import annotations

from tests.conformance.torchvision import install


def start() -> None:
    install()
    from tests.conformance import suite

    suite.start()
