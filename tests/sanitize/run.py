"""pytest with another build of the extension: ``python run.py EXTENSION.so [pytest's arguments]``."""

import importlib.util
import sys

import pytest

spec = importlib.util.spec_from_file_location("vea_sdk._C", sys.argv[1])
assert spec is not None
assert spec.loader is not None
sys.modules["vea_sdk._C"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[2:]]))
