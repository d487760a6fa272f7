"""From the start of a process to its first step: `vdm train` of the demo, with an empty and with a filled cache of
programs.

    python -m experiments.speed.starts SINCE DIR

is such a process: it trains in DIR, and ends after its first step. SINCE is when it was started, in seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from vdm.runtime.host_memory import keep_freed_memory

ROUNDS = 3


def measured() -> dict[str, Any]:
    """Seconds from the start to the end of the imports, and from there to that of the first step, in every round."""
    found: dict[str, dict[str, list[float]]] = {way: {"imports": [], "first_step": []} for way in ("cold", "cached")}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="vdm_speed_") as folder:
            for way, told in found.items():
                for what, seconds in started(f"{folder}/{way}", cache=f"{folder}/cache").items():
                    told[what].append(seconds)
                print(f"first step of the demo, {way}: {told['imports'][-1]:.1f} + {told['first_step'][-1]:.1f} s")
    return {"seconds": found}


def started(workdir: str, *, cache: str) -> dict[str, float]:
    """What a process of its own tells."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.speed.starts", str(time.time()), workdir],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    since, workdir = float(sys.argv[1]), sys.argv[2]
    keep_freed_memory()
    from vdm import __main__, train

    imported = time.time()
    compiled = train.Log.compiled

    def told(self: train.Log, window: Any) -> None:
        compiled(self, window)  # waits for the step
        print(json.dumps({"imports": imported - since, "first_step": time.time() - imported}), flush=True)
        os._exit(0)  # nothing of what comes after is asked for

    train.Log.compiled = told
    __main__.main(["vdm", "train", "--config=configs/demo.py", f"--workdir={workdir}"])


if __name__ == "__main__":
    main()
