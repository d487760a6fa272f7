"""Runs a function in a process of its own: a compiler that crashes or hangs there is an error here."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from typing import Any

# Compiling for a TPU that is absent: no question to the metadata server of a cloud machine, no lock on the library,
# and all that is computed beside is computed on the CPU.
TPU_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "true", "JAX_PLATFORMS": "cpu"}


def run(function: Callable[..., Any], *args: Any, timeout: float, environment: Mapping[str, str]) -> Any:
    """What `function(*args)` returns; both must be picklable.

    Args:
      timeout: seconds.
      environment: variables of the process, set before it imports anything.

    Raises:
      RuntimeError: the function raised something, the process died, or did not end in time; says which.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args))
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    sender.close()
    try:
        if not receiver.poll(timeout):
            raise RuntimeError(f"it did not end within {timeout:g} s and was stopped")
        kind, value = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"its process died with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if kind == "raised":
        raise RuntimeError(value)
    return value


def _answer(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        answer = ("returned", function(*args))
    except Exception as error:  # whatever it is, the caller is told
        answer = ("raised", f"{type(error).__name__}: {error}")
    sender.send(answer)
