"""``python -m vea_sdk`` is the command ``vea``."""

from vea_sdk.cli import main

if __name__ == "__main__":
    main()
