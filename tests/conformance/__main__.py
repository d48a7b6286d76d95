import sys

from tests.conformance.torchvision import install

install()  # before Transformers is imported

if __name__ == "__main__":
    from tests.conformance.command import main

    sys.exit(main())
