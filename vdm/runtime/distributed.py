"""Several processes that are one run: how they find each other, what they agree on, and how they end together.

Process 0 writes what a run leaves (logs, record, samples) and prints; the others only report errors. When a process
dies, JAX's runtime tells the others within `heartbeat_seconds` and aborts them; what they say last and what they exit
with is decided here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from vdm.runtime import preemption
from vdm.types import Config

LOST = 75  # exit code (EX_TEMPFAIL of sysexits.h): another process of the run is gone, or JAX's runtime failed here
_LOST_MESSAGE = (
    b"error: JAX's runtime ended this process, as it does when another process of the run dies or cannot be reached, "
    b"and when a check of its own fails; what it saw stands above. "
    b"Start all processes again: the run goes on from its last checkpoint\n"
)
Way = Callable[[Config], None] | None
_PATIENCE = 1.5  # heartbeats that a process with an error waits for the others, or for the news that one is gone
_heartbeat_seconds = 0


def start(way: Way, config: Config, *, saves_on_sigterm: bool) -> None:
    """Makes this process one of `config.run.distributed`'s; must come before anything touches JAX's devices.

    Args:
      way: of `WAYS`, the one that `config.name` names.
      config: `config.run.distributed`.
      saves_on_sigterm: SIGTERM to one process is news for all of them, see `Watch`; else it ends a process.

    Raises:
      ValueError: no cluster where it should tell, or numbers that cannot be.
    """
    if way is None:
        return
    if config.heartbeat_seconds < 1:
        raise ValueError(
            f"config.run.distributed.heartbeat_seconds is {config.heartbeat_seconds}; at least 1 is needed"
        )
    jax.config.update("jax_enable_preemption_service", saves_on_sigterm)
    way(config)
    global _heartbeat_seconds
    _heartbeat_seconds = config.heartbeat_seconds
    signal_of_c = ctypes.CDLL(None).signal
    signal_of_c.argtypes, signal_of_c.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    signal_of_c(signal.SIGABRT, ctypes.cast(_on_abort, ctypes.c_void_p))
    if not is_writer():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # to the process's end


def _auto(config: Config) -> None:
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=config.heartbeat_seconds)
    except ValueError as error:
        raise ValueError(
            f"config.run.distributed.name is auto, but JAX finds no cluster ({error}); start through one of launch/, "
            "or set the name to `given` with its three keys, or to `none` for one process"
        ) from error


def _given(config: Config) -> None:
    given = config.given
    if not given.coordinator_address.rpartition(":")[2].isdigit():
        raise ValueError(
            f"config.run.distributed.given.coordinator_address is {given.coordinator_address!r}; it must be host:port "
            "of process 0, the same for all processes"
        )
    if not 0 <= given.process_id < given.num_processes:
        raise ValueError(
            f"config.run.distributed.given.process_id is {given.process_id} of num_processes={given.num_processes}; "
            "processes are numbered from 0 on, each its own"
        )
    jax.distributed.initialize(**given, heartbeat_timeout_seconds=config.heartbeat_seconds)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(number: int) -> None:
    """The runtime aborts in a thread of C++, which no handler of Python's `signal` comes to see."""
    os.write(2, _LOST_MESSAGE)
    os._exit(LOST)


def ended(work: Callable[[], int]) -> int:
    """The exit code of the verb, when all processes are done with it.

    One of several processes that ends with an error does not return: it waits for the others for a heartbeat and a half
    and exits. They may be in a computation that needs it, and are then told that it is gone.
    """
    try:
        code = work()
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        code = 1
    if code and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        end = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        end.start()
        end.join(_PATIENCE * _heartbeat_seconds)
        os._exit(code)
    jax.distributed.shutdown()  # does nothing for one process
    return code


class Watch:
    """SIGTERM to any process of several is noted by all of them, at the same step.

    JAX's runtime notes the signal (and leaves a second one its effect) and chooses a question that no process has asked
    yet: the next one of the foremost process. It takes the processes to begin with question 1, so that is what is
    counted here, and not the steps, of which the first may be any.
    """

    def __init__(self) -> None:
        self._asked = 0

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def stops_after(self, step: int) -> bool:
        """Whether to save and leave after this step; to be asked once after every step."""
        self._asked += 1
        stops = multihost_utils.reached_preemption_sync_point(self._asked)
        if stops:
            print(f"SIGTERM to a process of the run: saving a checkpoint of step {step}, then leaving", flush=True)
        return stops


def watch() -> Watch | preemption.Watch:
    """The watch for SIGTERM of one process or of several."""
    return preemption.Watch() if jax.process_count() == 1 else Watch()


def is_writer() -> bool:
    """Whether this process is the one that writes what the run leaves."""
    return jax.process_index() == 0


def of_all(value: int) -> list[int]:
    """What every process gives, by process; all must call it, in the same order as everything else on the devices."""
    if jax.process_count() == 1:
        return [value]
    return np.asarray(multihost_utils.process_allgather(np.int32(value))).reshape(-1).tolist()


WAYS: dict[str, Way] = {"none": None, "auto": _auto, "given": _given}
