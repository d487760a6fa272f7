"""Several runs at a time on one host, each a process with cores of its own.

A small network's step has little for a second core to do: two runs on a core each finish sooner than one after the
other on two.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from vdm.runtime.host_memory import keep_freed_memory
from vdm.runtime.preemption import Watch

POLL_SECONDS = 0.2
REPORT_SECONDS = 15.0
STOPPED = 128 + signal.SIGTERM  # the exit code of a process that SIGTERM ended in good order


class JobFailed(RuntimeError):
    """A job ended by an error of its own; the message names its log."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: a function of an importable module, called in a process of its own.

    Attributes:
      work: returns the process's exit code.
      log: file that takes what it prints; kept from an earlier start, and added to.
    """

    name: str
    work: Callable[[], int]
    log: Path


def run(jobs: Sequence[Job], at_once: int, after_first: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Runs the jobs, `at_once` at a time, and shows the last line of each from time to time.

    SIGTERM is passed on to the running jobs, and no other is started. A job ends with this process, however that ends.
    `after_first` is called once, when the first job has ended well.

    Returns:
      The exit codes of the jobs that were started, by name.
    """
    context = multiprocessing.get_context("spawn")
    places = _shares(at_once)
    waiting, running, codes = list(jobs), {}, {}
    with Watch() as watch:
        told, reported = False, time.monotonic()
        while running or (waiting and not watch.requested):
            for place, (job, process) in list(running.items()):
                if not process.is_alive():
                    if process.exitcode == 0 and 0 not in codes.values():
                        after_first()
                    codes[job.name] = process.exitcode
                    if told and process.exitcode == -signal.SIGTERM:
                        codes[job.name] = STOPPED  # it had nothing to save when it was told to end
                    del running[place]
            while waiting and len(running) < at_once and not watch.requested:
                place = next(number for number in range(at_once) if number not in running)
                running[place] = (waiting[0], _start(context, waiting.pop(0), places[place]))
            if watch.requested and not told:
                told = True
                for _, process in running.values():
                    process.terminate()
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                print("  |  ".join(f"{job.name}: {last_line(job.log)}" for job, _ in running.values()), flush=True)
            time.sleep(POLL_SECONDS)
    return codes


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds the folder against other processes that claim it; a process that ends, however it does, lets go.

    Raises:
      JobFailed: another one holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "claim").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise JobFailed(f"{folder} is being run by {file.read()}; wait for it, or end it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def last_line(log: Path) -> str:
    """The last line that a job printed; empty before it prints."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else ""


def _shares(at_once: int) -> list[list[int]]:
    """The cores of every place; all of them where there are fewer cores than places."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(at_once)]
    cores = sorted(os.sched_getaffinity(0))
    return [cores[place::at_once] or cores for place in range(at_once)]


def _start(context: SpawnContext, job: Job, cores: list[int]) -> BaseProcess:
    process = context.Process(target=_work, args=(job, cores, os.getpid()), name=job.name)
    process.start()
    return process


def _work(job: Job, cores: list[int], parent: int) -> None:
    os.setsid()  # a signal to the whole group reaches the parent, which passes it on once
    if cores:
        os.sched_setaffinity(0, cores)  # before JAX starts its threads
    keep_freed_memory()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", buffering=1) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        os.dup2(log.fileno(), 2)  # a watchdog writes the stacks to the descriptor
        try:
            code = job.work()
        except Exception:
            traceback.print_exc()
            code = 1
        sys.exit(code)


def _end_with(parent: int) -> None:
    """Two processes must not write to one run: an orphan of a killed parent would, beside the parent's next start."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
