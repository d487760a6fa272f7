"""A run of two processes with four devices each, or of one process with eight, and what each of them did.

As a program, `python -m tests.several_processes STORY PORT NUM_PROCESSES PROCESS WORKDIR` is one of the processes;
`Run` starts them all.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from tests import tiny, toy_extractor
from vdm import build, evaluate, sample, steps, train
from vdm.runtime import checkpoints, distributed, random, watchdog
from vdm.runtime.random import Purpose
from vdm.types import Config

REPOSITORY = Path(__file__).parents[1]
DEVICES = 8  # over all processes
HEARTBEAT_SECONDS = 10
AFTER = 3  # steps from the SIGTERM on
ENDLESS = 100_000  # steps
STUCK_AFTER_SECONDS = 4  # of the story of a hanging process; well before a heartbeat tells


class Run:
    """The processes of one run; a context manager, which kills what is left of them.

    Args:
      command: after `python`, with {port}, {num_processes} and {process} for what each is told; a story, say.
      logs: prefix of the files that take what each process prints.
    """

    def __init__(self, command: Sequence[str], logs: Path, num_processes: int, num_devices: int = DEVICES) -> None:
        self.logs = [Path(f"{logs}_{process}.txt") for process in range(num_processes)]
        port = free_port()
        self.processes = []
        for process, log in enumerate(self.logs):
            words = [word.format(port=port, num_processes=num_processes, process=process) for word in command]
            with log.open("w") as out:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *words],
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        cwd=REPOSITORY,
                        env=environment(num_devices // num_processes),
                    )
                )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def codes(self, timeout: float) -> list[int]:
        """The exit codes of all."""
        return [process.wait(timeout=timeout) for process in self.processes]

    def said(self) -> str:
        """The end of every log, for the message of a failed assertion."""
        return "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in self.logs)


def story(name: str, workdir: Path) -> list[str]:
    """The command of a story of this module, see `Run`."""
    return ["-m", "tests.several_processes", name, "{port}", "{num_processes}", "{process}", str(workdir)]


def environment(num_devices: int) -> dict[str, str]:
    """Of a process with so many devices."""
    return os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={num_devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]),
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def config_of(num_steps: int) -> Config:
    """The tiny experiment with batch and parameters split over all devices of both processes."""
    config = tiny.get_config()
    config.run.mesh.update(data=1, fsdp=8)
    config.run.update(num_steps=num_steps, log_every_steps=1, stuck_after_seconds=200.0)
    return config


def until_told(workdir: Path) -> int:
    """Trains until SIGTERM."""
    return train.main(config_of(ENDLESS), str(workdir), overfit=0)


def after_that(workdir: Path) -> int:
    """Goes on for three steps, samples and evaluates, keeps a copy of all that, and works until it is killed."""
    done = max(checkpoints.saved_steps(workdir / "checkpoints"))
    whole(workdir, done + AFTER)
    experiment = build.experiment(config_of(done))
    batches = steps.device_batches(experiment, done)
    for step in range(2):
        write_shards(workdir / f"batch_{step}", next(batches))
    batches.close()
    distributed.of_all(0)  # both have written all of that
    if distributed.is_writer():
        shutil.copytree(workdir, f"{workdir}_done")
        Path(f"{workdir}_done", "all").touch()
    while True:
        distributed.of_all(0)


def whole(workdir: Path, num_steps: int) -> None:
    config = config_of(num_steps)
    assert train.main(config, str(workdir), overfit=0) == 0
    scores(config, workdir)


def scores(config: Config, workdir: Path) -> None:
    sample.main(config, str(workdir), num_clips=5, checkpoint_step=0, fps=8)
    extractor = toy_extractor.written(workdir.parent)
    toy_extractor.ask_for(config, *extractor, num_samples=20, num_real=20, split="train")
    evaluate.main(config, str(workdir), checkpoint_step=0, i3d_weights="")


def write_shards(place: Path, batch: steps.Batch) -> None:
    """What this process holds of a batch, and of the noise that is drawn for it, with where it lies in the whole."""
    key = random.key(0, Purpose.NOISE, 7)
    noise = jax.jit(lambda index: random.example_noise(key, index, 4, (8, 8, 3)))(batch["index"])
    for name, array in (batch | {"noise": noise}).items():
        rows = {f"{shard.index[0].start or 0}": np.asarray(shard.data) for shard in array.addressable_shards}
        np.savez(f"{place}_{name}_{jax.process_index()}.npz", **rows)


def one_that_hangs(workdir: Path) -> int:
    """Process 1 is alive, and its next step does not come."""
    distributed.of_all(0)
    with watchdog.Watchdog(STUCK_AFTER_SECONDS) as dog:
        dog.beat()
        if jax.process_index() == 1:
            time.sleep(10 * STUCK_AFTER_SECONDS)
        distributed.of_all(0)
    return 0


def one_process(workdir: Path) -> int:
    """The same steps in one process without a stop, and samples and scores of the two processes' checkpoint."""
    two = Path(f"{workdir.parent / 'two'}_done")
    done = max(checkpoints.saved_steps(two / "checkpoints"))
    config = config_of(done)
    workdir.mkdir()
    batches = steps.device_batches(build.experiment(config), done - AFTER)
    for step in range(2):
        write_shards(workdir / f"batch_{step}", next(batches))
    batches.close()
    assert train.main(config, str(workdir), overfit=0) == 0
    copy = workdir.parent / "two_by_one"
    shutil.copytree(two, copy, ignore=shutil.ignore_patterns("samples", "evaluation"))
    scores(config, copy)
    return 0


def main(name: str, port: str, num_processes: str, process: str, workdir: str) -> int:
    settings = config_of(0).run.distributed
    settings.heartbeat_seconds = HEARTBEAT_SECONDS
    settings.given.update(
        coordinator_address=f"localhost:{port}", num_processes=int(num_processes), process_id=int(process)
    )
    settings.name = "given" if int(num_processes) > 1 else "none"

    def work() -> int:
        distributed.start(distributed.WAYS[settings.name], settings, saves_on_sigterm=True)
        assert jax.device_count() == DEVICES
        stories = {each.__name__: each for each in (until_told, after_that, one_process, one_that_hangs)}
        return stories[name](Path(workdir))

    return distributed.ended(work)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
