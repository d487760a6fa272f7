"""Checks that need eight devices: run in one process of their own, on eight forced CPU devices.

A room's `on_eight_devices.py` holds them in `CHECKS`, plain functions that raise; its tests ask for their outcomes. As
a program, `python -m tests.eight_devices MODULE` prints name -> error or null.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence


def outcomes(module: str, names: Sequence[str]) -> dict[str, str | None]:
    """What each check of a module ended with: its error as text, or None. `names` must be those of all its checks."""
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "tests.eight_devices", module]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert set(errors) == set(names), "a check is asserted by no test"
    return errors


def main(module: str) -> None:
    errors: dict[str, str | None] = {}
    for check in importlib.import_module(module).CHECKS:
        try:
            check()
            errors[check.__name__] = None
        except Exception:
            errors[check.__name__] = traceback.format_exc()
    json.dump(errors, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
