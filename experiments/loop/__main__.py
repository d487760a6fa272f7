"""Times the training loop beside its bare compiled step, on this machine, and writes the table of the README.

python -m experiments.loop           measures (ten minutes on two cores that do nothing else), writes record and table
python -m experiments.loop --draw    the table from the record as it is
python -m experiments.loop --check   fails where the table is not that of the record; computes nothing
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from configs import demo
from experiments import command
from vdm import build, steps, train
from vdm.records.environment import read_environment
from vdm.records.readme import replace_block
from vdm.runtime import processes
from vdm.types import Config, Prediction

HERE = Path(__file__).parent
RECORD, PAGE = HERE / "records" / "loop.json", HERE / "README.md"
BATCH_SIZE = 64  # clips, for a step of more than 100 ms
NUM_STEPS = 100
SAVES = 4  # in these steps
REPEATS = 3
RESTING = 0.1  # seconds of a step that takes no core


def main() -> None:
    command.main("experiments.loop", __doc__, compute=compute, pages=pages)


def compute(only: str | None) -> None:
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(measured(), indent=1) + "\n")


def pages() -> dict[Path, str]:
    found = table(json.loads(RECORD.read_text())) if RECORD.exists() else "There is no record yet."
    return {PAGE: replace_block(PAGE.read_text(), "loop", found)}


def measured() -> dict[str, Any]:
    """Seconds a step: of the bare step, of the loop, of the loop with saves, and of the first two where the network
    rests; in turn, every repeat.
    """
    seconds: dict[str, list[float]] = {"bare": [], "loop": [], "saving": [], "resting bare": [], "resting loop": []}
    build.NETWORKS["resting"] = lambda *_: (Resting(), ((".*", PartitionSpec()),))
    with tempfile.TemporaryDirectory(prefix="vdm_loop_") as name:
        jax.config.update("jax_compilation_cache_dir", f"{name}/compiled")  # a start compiles once, the others read it
        for repeat in range(-1, REPEATS):  # the first one fills the cache
            taken = {
                "bare": bare(NUM_STEPS),
                "loop": looped(Path(name, f"loop_{repeat}"), 0),
                "saving": looped(Path(name, f"saving_{repeat}"), NUM_STEPS // SAVES),
                "resting bare": bare(NUM_STEPS, network="resting"),
                "resting loop": looped(Path(name, f"resting_{repeat}"), 0, network="resting"),
            }
            for arm, value in taken.items() if repeat >= 0 else ():
                seconds[arm].append(value)
                print(f"{arm}: {1e3 * value:.1f} ms a step", flush=True)
    return {
        "environment": dataclasses.asdict(read_environment()),
        "batch_size": BATCH_SIZE,
        "steps": NUM_STEPS,
        "saves": SAVES,
        "seconds_a_step": seconds,
    }


@dataclasses.dataclass(frozen=True)
class Resting:
    """A network that takes its time and no core, as an accelerator does; it has one parameter."""

    def init(self, key):
        return {"scale": jnp.ones(())}

    def apply(self, params, xt, log_snr, frame_index, condition, *, keys=None):
        rested = jax.pure_callback(
            _rest, jax.ShapeDtypeStruct((), jnp.float32), jax.lax.stop_gradient(xt[0, 0, 0, 0, 0])
        )
        return Prediction(params["scale"] * xt + rested)


def _rest(after: Any) -> np.ndarray:
    time.sleep(RESTING)
    return np.zeros((), np.float32)


def bare(num_steps: int, network: str = "unet3d") -> float:
    """Seconds of the compiled step alone, on one batch again and again."""
    experiment = build.experiment(config_of(num_steps, 0, network))
    with jax.set_mesh(experiment.mesh), tempfile.TemporaryDirectory() as nowhere:
        state, _ = train.start(experiment, train.epath.Path(nowhere))
        batches = steps.device_batches(experiment, 0)
        batch = next(batches)
        batches.close()
        step, window = steps.make_step(experiment), steps.Window.empty()
        state, window = jax.block_until_ready(step(state, window, batch))
        since = time.monotonic()
        for _ in range(num_steps):
            state, window = step(state, window, batch)
        jax.block_until_ready(window)
        return (time.monotonic() - since) / num_steps


def looped(folder: Path, checkpoint_every_steps: int, network: str = "unet3d") -> float:
    """Seconds of a step of `train` from the second one on, logs and all; 0: no save before the last step."""
    config = config_of(NUM_STEPS + 1, checkpoint_every_steps, network)
    with contextlib.redirect_stdout(io.StringIO()):
        done = train.train(config, folder)
    if done.status != "finished":
        sys.exit(processes.STOPPED)  # SIGTERM, which training notes for itself
    return done.timings["train"] / NUM_STEPS


def config_of(num_steps: int, checkpoint_every_steps: int, network: str) -> Config:
    """The demo's experiment in larger batches; validation and samples are computations, and left out."""
    config = demo.get_config()
    config.network.name = network
    config.data.batch_size = config.evaluation.batch_size = BATCH_SIZE
    config.run.update(num_steps=num_steps, log_every_steps=50, validate_every_steps=0, sample_every_steps=0)
    config.run.checkpoint_every_steps = checkpoint_every_steps
    return config


def table(record: dict[str, Any]) -> str:
    """Medians, and what they say."""
    seconds, num_saves, steps = record["seconds_a_step"], record["saves"], record["steps"]
    overheads, rested = (
        [loop / bare - 1 for loop, bare in zip(seconds[f"{which}loop"], seconds[f"{which}bare"], strict=True)]
        for which in ("", "resting ")
    )
    stalls = [
        (saving - loop) * steps / num_saves for saving, loop in zip(seconds["saving"], seconds["loop"], strict=True)
    ]
    environment = record["environment"]
    commit = environment["code"]["commit"] or "no commit"
    rows = [
        _row("the compiled step", seconds["bare"], 1e3, "ms", ".1f"),
        _row("a step of the loop", seconds["loop"], 1e3, "ms", ".1f"),
        _row("overhead of the loop", overheads, 100, "%", ".1f"),
        _row("a step that takes no core", seconds["resting bare"], 1e3, "ms", ".2f"),
        _row("overhead of the loop on it", rested, 100, "%", ".2f"),
        _row("a save holds the loop up for", stalls, 1e3, "ms", ".0f"),
        _row("that is, at a save a minute", stalls, 100 / 60, "%", ".2f"),
    ]
    made_by = (
        f"{record['batch_size']} clips a step, {steps} steps a repeat, {num_saves} saves in them; commit "
        f"{commit[:12]}, jax {environment['versions']['jax']}, {environment['num_cpus']} CPU cores."
    )
    return "\n".join(["| | median | of each repeat |", "|---|---|---|", *rows, "", made_by])


def _row(what: str, values: list[float], factor: float, unit: str, form: str) -> str:
    each = [format(factor * value, form) for value in values]
    return f"| {what} | {format(factor * statistics.median(values), form)} {unit} | {', '.join(each)} |"


if __name__ == "__main__":
    main()
