"""From the start of a process to its first step: of the demo, with an empty and with a filled cache of programs."""

from __future__ import annotations

import tempfile
from typing import Any

from experiments.speed.pairs import Worker

ROUNDS = 3


def measured() -> dict[str, Any]:
    """Seconds of imports, and from their end to that of the first step, in every round."""
    found: dict[str, dict[str, list[float]]] = {way: {"imports": [], "first_call": []} for way in ("cold", "cached")}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="vdm_speed_") as cache:
            for way, told in found.items():
                worker = Worker("ours", "train", None, {"JAX_COMPILATION_CACHE_DIR": cache})
                worker.end()
                for what, seconds in told.items():
                    seconds.append(worker.ready[what])
                print(f"first step of the demo, {way}: {told['imports'][-1]:.1f} + {told['first_call'][-1]:.1f} s")
    return {"seconds": found}
