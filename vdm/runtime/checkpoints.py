"""Checkpoints: everything that resume needs, saved beside the running steps, refused when it is not what was asked for.

A checkpoint is the folder `<directory>/<step>`: the train state and its manifest (`manifest.py`). A save is written
under another name and renamed when it is complete, so a killed save does not count. The mesh is not part of it: a
restore places every array as the abstract state says. (That later steps may be donated the buffers of a state that is
still being written rests on orbax's host copy, which on a CPU is a view, whose memory the runtime does not give away; a
test and the checksums watch over it.)
"""

import contextlib
import dataclasses
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath

from vdm.runtime import distributed, event_loops
from vdm.runtime.manifest import Manifest, checksums, differences, layout, listed
from vdm.runtime.state import TrainState

Read = TypeVar("Read")

_HINDRANCES = (  # codes of tensorstore and of the device, and words of the operating system
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "Permission denied",
    "Too many open files",
)


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another network; the message says which, and what to do."""


class DamagedCheckpointError(CheckpointError):
    """A file of the checkpoint of `step` is missing, cut short or altered."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class SaveFailedError(OSError):
    """A checkpoint could not be written; the message names the last one that was, and what to do."""


class CheckpointWriter:
    """Saves the train state of one run; a context manager, which waits for the last save when it is left.

    With several processes all of them save together, each its own shards.

    Args:
      directory: of all checkpoints of the run; may be a bucket. What killed saves left in it is removed.
      identity: of the run, as JSON (`records.identity.identity(config)`), stored in every checkpoint.
      max_to_keep: number of checkpoints that are kept, the newest ones; at least 1.
      keep_every_steps: those of its multiples are kept besides, as long as it stays set; 0: none.

    Raises:
      ValueError: if max_to_keep is less than 1.
    """

    def __init__(
        self, directory: epath.PathLike, identity: Mapping[str, Any], *, max_to_keep: int, keep_every_steps: int = 0
    ) -> None:
        if max_to_keep < 1:
            raise ValueError(f"max_to_keep is {max_to_keep}; at least 1 checkpoint must be kept, or nothing can resume")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep, keep_period=keep_every_steps or None, cleanup_tmp_directories=True
        )
        self._directory = _absolute(directory)
        with self._naming():
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._identity = identity
        self._loops = contextlib.ExitStack()

    def save(self, state: TrainState) -> None:
        """Starts a save of the state and returns as soon as the state may be donated to the next step.

        The step is read off the state. A step that is there already is left alone: one identity and step is one state.

        Raises:
          SaveFailedError: this save could not begin, or an earlier one failed in the background.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        manifest = dataclasses.asdict(Manifest.of(state, self._identity))
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), manifest=ocp.args.JsonSave(manifest))
        # force: a run that goes on from an older step must not have its saves passed over
        with self._naming():
            self._manager.save(step, args=items, force=True)

    def check(self) -> None:
        """Raises SaveFailedError if a save has failed in the background; waits for none, and takes microseconds."""
        if not self._manager.is_saving_in_progress():  # its own check for errors does not see those of the last thread
            self.wait()

    def wait(self) -> None:
        """Returns when every save is complete. Raises SaveFailedError if one failed."""
        with self._naming():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Whatever a save fails with becomes one error: orbax, tensorstore and the file systems have a dozen kinds."""
        try:
            yield
        except Exception as error:
            saved = saved_steps(self._directory)
            good = f"the last good one is of step {saved[-1]}" if saved else "there is none yet"
            raise SaveFailedError(
                f"a checkpoint could not be saved in {self._directory} ({_first_line(error)}); {good}. See that there "
                "is room and that it may be written, and start the same command again"
            ) from error

    def __enter__(self) -> "CheckpointWriter":
        self._loops.enter_context(event_loops.finishing())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._loops:
            if error is None:
                self.wait()
                self._manager.close()
            elif jax.process_count() == 1:  # of several, the others may never come to the end of this save
                try:
                    self._manager.close()
                except Exception as unsaved:  # the error that came first is the one to be told
                    print(f"warning: a save failed as well: {_first_line(unsaved)}", file=sys.stderr, flush=True)


def saved_steps(directory: epath.PathLike) -> list[int]:
    """The steps of all complete checkpoints, ascending; empty if the folder is empty or not there."""
    return sorted(ocp.utils.checkpoint_steps(_absolute(directory)))


def agreed_steps(directory: epath.PathLike) -> list[int]:
    """The steps of all complete checkpoints, the same for all processes of the run.

    Raises:
      CheckpointError: they see different ones.
    """
    steps = saved_steps(directory)
    newest = distributed.of_all(steps[-1] if steps else -1)
    if len(set(newest)) > 1:
        seen = ", ".join(f"process {number} sees {step}" for number, step in enumerate(newest))
        raise CheckpointError(
            f"the processes of this run see different newest checkpoints in {directory} (-1: none): {seen}. All of "
            "them need the same work directory, on a shared file system or in a bucket"
        )
    return steps


def read_identity(directory: epath.PathLike, *, step: int | None = None) -> Mapping[str, Any]:
    """Whose a checkpoint is, without reading any array; arguments and errors as `restore`.

    Compare it (`records.identity.require_same_identity`) before a run goes on: any config with the same arrays fits.
    """
    return _read_manifest(_step_path(directory, step)).identity


def digest(directory: epath.PathLike, *, step: int | None = None) -> str:
    """Eight hexadecimal digits of the checksums of all arrays: checkpoints that differ in it hold other numbers.

    Arguments and errors as `restore`.
    """
    checksum = _read_manifest(_step_path(directory, step)).checksum
    return f"{zlib.crc32(json.dumps(dict(checksum), sort_keys=True).encode()):08x}"


def restore(directory: epath.PathLike, abstract: TrainState, *, step: int | None = None) -> TrainState:
    """Reads a checkpoint onto any mesh, and checks every array against the checksum of what was saved.

    Args:
      directory: of all checkpoints of the run.
      abstract: shapes, types and shardings of the state, from `state.abstract_state`.
      step: which one; None means the newest.

    Raises:
      CheckpointError: if there is none, if it is of another network (names the arrays that differ), or if it cannot be
        read at the moment: no rights, no memory, no connection.
      DamagedCheckpointError: if a file of it is missing, cut short or altered.
    """
    path = _step_path(directory, step)
    manifest = _read_manifest(path)
    unlike = differences(manifest.layout, layout(abstract))
    if unlike:
        raise CheckpointError(
            f"the checkpoint {path} is of another network or optimiser: {listed(unlike)}. "
            "Use the config that it was trained with, or another workdir"
        )

    def read() -> TrainState:
        with event_loops.finishing():  # handlers: a checkpointer waits for processes that may have failed
            return ocp.StandardCheckpointHandler().restore(path / "state", args=ocp.args.StandardRestore(abstract))

    state = _read_everywhere(path, read, Exception)  # orbax and tensorstore raise a dozen kinds, bare ones among them
    altered = [name for name, value in checksums(state).items() if value != manifest.checksum.get(name)]
    if altered:
        raise _damaged(path, f"these arrays are not what was saved: {listed(altered)}")
    return state


def restore_last_good(
    directory: epath.PathLike, abstract: TrainState, accept: Callable[[Mapping[str, Any]], None]
) -> tuple[TrainState, list[DamagedCheckpointError]]:
    """The newest checkpoint that is whole, and what is wrong with those that are newer; see `move_aside`.

    Args:
      directory, abstract: as for `restore`.
      accept: raises for the identity of another run.

    Raises:
      CheckpointError: as `restore`, or if all are damaged.
    """
    damaged: list[DamagedCheckpointError] = []
    for step in reversed(saved_steps(directory)):
        try:
            accept(read_identity(directory, step=step))
            return restore(directory, abstract, step=step), damaged
        except DamagedCheckpointError as error:
            damaged.append(error)
    if not damaged:
        _step_path(directory, None)  # says that there is none
    raise CheckpointError(
        f"none of the checkpoints in {directory} is whole: {'; '.join(map(str, damaged))}. They are left as they are: "
        "bring them back from a copy, or start afresh in another workdir"
    )


def move_aside(directory: epath.PathLike, step: int) -> epath.Path:
    """Moves a damaged checkpoint out of the way of the next save, deleting nothing; returns where it is now."""
    folder = _absolute(directory).parent / "damaged_checkpoints"  # inside, orbax would clear it up
    folder.mkdir(exist_ok=True)
    names = (str(step) if not number else f"{step}-{number}" for number in itertools.count())
    aside = next(path for name in names if not (path := folder / name).exists())
    return (_absolute(directory) / str(step)).rename(aside)


def _absolute(directory: epath.PathLike) -> epath.Path:
    return epath.Path(directory).absolute()


def _step_path(directory: epath.PathLike, step: int | None) -> epath.Path:
    steps = saved_steps(directory)
    if not steps:
        raise CheckpointError(f"there is no complete checkpoint in {directory}; train first, or check the workdir")
    if step is not None and step not in steps:
        raise CheckpointError(f"there is no checkpoint of step {step} in {directory}, only of the steps {steps}")
    return _absolute(directory) / str(steps[-1] if step is None else step)


def _read_manifest(path: epath.Path) -> Manifest:
    """To be called by all processes, in the same order."""
    return _read_everywhere(
        path,
        lambda: Manifest.from_json(ocp.JsonCheckpointHandler().restore(path / "manifest")),
        (OSError, ValueError, KeyError, TypeError),
        "its manifest cannot be read: ",
    )


def _read_everywhere(
    path: epath.Path, read: Callable[[], Read], kinds: type[Exception] | tuple[type[Exception], ...], what: str = ""
) -> Read:
    """What `read` gives, if it does in all processes: none goes on with what another one lacks.

    Args:
      path: of the checkpoint.
      read: reads a part of it.
      kinds: of its errors that are the checkpoint's matter.
      what: was read, for the message.
    """
    found: Any = None
    failure = None
    try:
        found = read()
    except kinds as error:
        failure = _unread(path, error, what)
        failure.__cause__ = error
    _require_whole_everywhere(path, failure)
    return found


def _require_whole_everywhere(path: epath.Path, failure: CheckpointError | None) -> None:
    """Raises in all processes alike when one could not read its part: none goes on with a state that another lacks."""
    grave = 0 if failure is None else 1 if isinstance(failure, DamagedCheckpointError) else 2
    all_graves = distributed.of_all(grave)
    gravest = max(all_graves)
    if failure is not None and grave == gravest:
        raise failure
    if gravest:
        cause = f"process {all_graves.index(gravest)} could not read its part of it"
        raise _damaged(path, cause) if gravest == 1 else CheckpointError(f"{path}: {cause}; its own error says why")


def _unread(path: epath.Path, error: Exception, what: str = "") -> CheckpointError:
    """What a read that failed says of a checkpoint: that it is damaged, unless the reader itself was hindered."""
    cause = f"{what}{_first_line(error)}"
    hindered = isinstance(error, PermissionError | TimeoutError | ConnectionError | MemoryError)
    if hindered or any(word in str(error) for word in _HINDRANCES):
        return CheckpointError(
            f"the checkpoint of step {path.name} could not be read ({cause}); that is no damage: try again when "
            f"{path} can be reached"
        )
    return _damaged(path, cause)


def _damaged(path: epath.Path, cause: str) -> DamagedCheckpointError:
    earlier = [step for step in saved_steps(path.parent) if step < int(path.name)]
    then = f"the one before it is of step {earlier[-1]}" if earlier else "there is no earlier one"
    return DamagedCheckpointError(
        f"the checkpoint of step {path.name} is damaged ({cause}), {then}", step=int(path.name)
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
