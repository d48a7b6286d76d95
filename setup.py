"""Everything static stands in pyproject.toml; this file exists for the compiled extension."""

from setuptools import setup

setup()
