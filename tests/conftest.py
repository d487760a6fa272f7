"""What every test runs under: shapes and types of the annotations are checked at each call."""

import atexit
import os
import shutil
import tempfile

# Tests compile much and compute little: without optimisation XLA takes half the time. Set before JAX is imported.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
# One program is compiled once, for all tests and the processes that they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="vdm_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import pytest
from jaxtyping import install_import_hook

import tests.typechecking  # the hook names it by a string

install_import_hook(["vdm", "data"], f"{tests.typechecking.__name__}.check")
pytest_plugins = ["tests.features"]  # which feature is proved by which test

# Files that take a minute or more: started first, so that no worker ends with one while the others wait.
LONG = (
    "test_train",
    "test_several_processes",
    "test_campaign",
    "test_compare",
    "test_plan",
    "test_check",
    "test_build",
    "test_selection",
    "test_paper",
    "test_main",
    "test_verify",
    "test_unet3d",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
