"""Starts the command with the stand-in for torchvision in place: Transformers looks for it once, when it is imported.
Worker processes import this file, too."""

import sys

from tests.conformance.torchvision import install

install()

if __name__ == "__main__":
    from tests.conformance.command import main

    sys.exit(main())
