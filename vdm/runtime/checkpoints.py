"""Checkpoints: everything that resume needs, saved beside the running steps, refused when it is not what was asked for.

A checkpoint is the folder `<directory>/<step>`: the train state and its manifest (`manifest.py`). A save is written
under another name and renamed when it is complete, so a killed save does not count. The mesh is not part of it: a
restore places every array as the abstract state says. (That later steps may be donated the buffers of a state that is
still being written rests on orbax's host copy, which on a CPU is a view, whose memory the runtime does not give away; a
test and the checksums watch over it.)
"""

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from vdm.runtime import event_loops
from vdm.runtime.manifest import Manifest, checksums, differences, layout, listed
from vdm.runtime.state import TrainState


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another network; the message says which, and what to do."""


class DamagedCheckpointError(CheckpointError):
    """A file of a checkpoint is missing, cut short or altered."""


class CheckpointWriter:
    """Saves the train state of one run; a context manager, which waits for the last save when it is left.

    Args:
      directory: of all checkpoints of the run; may be a bucket. What killed saves left in it is removed.
      identity: of the run, as JSON (`records.identity.identity(config)`), stored in every checkpoint.
      max_to_keep: number of checkpoints that are kept, the newest ones; at least 1.
      keep_every_steps: those of its multiples are kept besides, for good; 0: none.

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
        self._manager = ocp.CheckpointManager(_absolute(directory), options=options)
        self._identity = identity

    def save(self, state: TrainState) -> None:
        """Starts a save of the state and returns as soon as the state may be donated to the next step.

        The step is read off the state. A step that is there already is left alone: one identity and step is one state.

        Raises:
          Exception: what an earlier save failed with in the background.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        manifest = dataclasses.asdict(Manifest.of(state, self._identity))
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), manifest=ocp.args.JsonSave(manifest))
        # force: a run that goes on from an older step must not have its saves passed over
        self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Returns when every save is complete; raises what one of them failed with."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._manager.close()


def saved_steps(directory: epath.PathLike) -> list[int]:
    """The steps of all complete checkpoints, ascending; empty if the folder is empty or not there."""
    return sorted(ocp.utils.checkpoint_steps(_absolute(directory)))


def read_identity(directory: epath.PathLike, *, step: int | None = None) -> Mapping[str, Any]:
    """Whose a checkpoint is, without reading any array; arguments and errors as `restore`.

    Compare it (`records.identity.require_same_identity`) before a run goes on: any config with the same arrays fits.
    """
    return _read_manifest(_step_path(directory, step)).identity


def digest(directory: epath.PathLike, *, step: int | None = None) -> str:
    """Eight hexadecimal digits of the checksums of all arrays: two checkpoints that agree in it hold the same numbers.
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
      CheckpointError: if there is none, or if it is of another network (names the arrays that differ).
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
    try:
        with event_loops.finishing(), ocp.StandardCheckpointer() as reader:
            state: TrainState = reader.restore(path / "state", abstract)
    except Exception as error:  # orbax and tensorstore raise a dozen kinds, bare Exception among them
        raise _damaged(path, str(error)) from error
    altered = [name for name, value in checksums(state).items() if value != manifest.checksum[name]]
    if altered:
        raise _damaged(path, f"these arrays are not what was saved: {listed(altered)}")
    return state


def restore_last_good(
    directory: epath.PathLike, abstract: TrainState, accept: Callable[[Mapping[str, Any]], None]
) -> tuple[TrainState, list[str]]:
    """The newest checkpoint that is whole. Damaged ones that are newer are moved to `damaged/<step>`, out of the way.

    Args:
      directory, abstract: as for `restore`.
      accept: raises for the identity of another run.

    Returns:
      The state, and what was wrong with each one that was passed over.

    Raises:
      DamagedCheckpointError: if none is whole; all stay where they are.
      CheckpointError: as `restore`.
    """
    damaged: dict[int, DamagedCheckpointError] = {}
    for step in reversed(saved_steps(directory) or [None]):
        try:
            accept(read_identity(directory, step=step))
            state = restore(directory, abstract, step=step)
        except DamagedCheckpointError as error:
            damaged[int(step or 0)] = error
            continue
        return state, [_move_aside(_absolute(directory), step, error) for step, error in damaged.items()]
    raise next(iter(damaged.values()))


def _move_aside(directory: epath.Path, step: int, error: DamagedCheckpointError) -> str:
    aside = directory / "damaged" / str(step)
    if aside.exists():
        aside.rmtree()
    aside.parent.mkdir(exist_ok=True)
    (directory / str(step)).rename(aside)
    return f"{str(error).partition('. To ')[0]}; it was moved to {aside}"


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
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            return Manifest.from_json(reader.restore(path / "manifest"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"its manifest cannot be read: {error}") from error


def _damaged(path: epath.Path, cause: str) -> DamagedCheckpointError:
    earlier = [step for step in saved_steps(path.parent) if step < int(path.name)]
    then = f"go on from step {earlier[-1]}" if earlier else "start again from step 0, for there is no earlier one"
    first_line = cause.partition("\n")[0][:300]
    return DamagedCheckpointError(
        f"the checkpoint of step {path.name} is damaged ({first_line}). To {then}, delete the folder {path}"
    )
