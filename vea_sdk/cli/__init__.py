"""The command ``vea``."""

from vea_sdk.cli.app import main

__all__ = ["main"]
