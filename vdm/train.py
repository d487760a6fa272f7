"""Train one config, or go on where its work directory stopped.

The work directory holds checkpoints/, metrics/ (JSONL and TensorBoard event files), samples/ (contact sheets while it
trains) and record.json (what ran, where, and its curves). The order of the data, noise and augmentation are functions
of the step, config.seed and config.vary: a run that was stopped, by SIGTERM or a kill, and started again ends with the
same parameters, bit for bit, as one that was not. A loss that is not finite stops the run; what is saved is always
finite.

Example: python -m vdm train --config=configs/demo.py --workdir=runs/shapes --config.run.num_steps=500
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from clu import parameter_overview
from etils import epath
from jaxtyping import Array, Bool

from data import video_io
from vdm import build, forensics, sample, steps, validation
from vdm.costs import profiling
from vdm.diffusion import objectives
from vdm.records import checks, identity, record
from vdm.records.record import Record
from vdm.runtime import checkpoints, distributed, processes, watchdog, writers
from vdm.runtime.progress import Progress
from vdm.runtime.state import TrainState
from vdm.runtime.step import NO_STEP, Window
from vdm.types import Config, Params

OPTIONS = (
    ("replay_step", -1, "do this step of a run (from 0) again, and write what it sees to DIR/failure.json; -1: train"),
    (
        "overfit",
        0,
        "train on the first N clips only, to check that a setting can learn at all; sample and evaluate then need "
        "--config.data.overfit=N",
    ),
    (
        "profile",
        0,
        f"trace N steps after the first {profiling.SKIPPED} and tell by block where their time goes; 0: none",
    ),
)


def main(config: Config, workdir: str, *, overfit: int, replay_step: int = -1, profile: int = 0) -> int:
    if overfit:
        config.data.overfit = overfit
    if replay_step >= 0:
        if profile:
            raise ValueError(f"--profile={profile} is of training; --replay_step={replay_step} does one step: give one")
        print(f"what step {replay_step} sees: {replay(config, workdir, replay_step)}")
        return 0
    return 0 if train_or_tell(config, workdir, profile).status == "finished" else processes.STOPPED


def train_or_tell(config: Config, workdir: epath.PathLike, num_profiled: int = 0) -> Record:
    """`train`, which after a step that was not finite leaves failure.json, and then raises as it would."""
    try:
        return train(config, workdir, num_profiled)
    except forensics.NotFiniteError as error:
        path = replay(config, workdir, error.step)
        print(f"{path} tells what step {error.step} saw; `train` with --replay_step={error.step} does it again")
        raise


def replay(config: Config, workdir: epath.PathLike, step: int) -> epath.Path:
    """Does a step of a run again and returns the file that tells what it saw.

    Raises:
      ValueError: the work directory holds no record of this config.
    """
    folder = epath.Path(workdir)
    if record.read_same(folder, config) is None:
        raise ValueError(f"{folder} holds no run: there is no step to do again. Train first, without --replay_step")
    return forensics.leave(build.experiment(config), folder, step)


def train(config: Config, workdir: epath.PathLike, num_profiled: int = 0) -> Record:
    """Trains to `config.run.num_steps`, saves, and returns the record; its status is "stopped" after a SIGTERM.

    Args:
      config: of the run.
      workdir: of the run.
      num_profiled: steps that are traced, see `vdm.costs.profiling`.

    Raises:
      ValueError: what cannot work, before any compute; a work directory of another run, or one without any checkpoint
        that is whole.
      NotFiniteError: a loss or gradient that is not finite; names its step and the last checkpoint.
    """
    folder = epath.Path(workdir)
    before = record.read_same(folder, config)
    require_checkpoint(before, folder)
    experiment = build.experiment(config)
    run = config.run
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(experiment.mesh))
        watch = stack.enter_context(distributed.watch())
        dog = stack.enter_context(watchdog.Watchdog(run.stuck_after_seconds))
        train_state, damaged = start(experiment, folder)
        first = int(train_state.step)
        require_more(max([first, *(error.step for error in damaged)]), run.num_steps, folder)
        profiling.require_calls(num_profiled, run.num_steps - first, "ask for more steps with --config.run.num_steps")
        log = stack.enter_context(contextlib.closing(Log(experiment, folder, before, train_state, dog.beat)))
        make_way(damaged, folder)  # all that may refuse this start is behind us
        saver = stack.enter_context(
            checkpoints.CheckpointWriter(
                folder / "checkpoints",
                identity.identity(config),
                max_to_keep=run.max_checkpoints,
                keep_every_steps=run.keep_every_steps,
            )
        )
        step = profiling.watch(steps.make_step(experiment), num_profiled, folder, train_state.params)
        advance = stack.enter_context(step)
        batches = stack.enter_context(contextlib.closing(steps.device_batches(experiment, first)))
        window = log.empty_window()
        for done in range(first + 1, run.num_steps + 1):
            dog.beat()
            saver.check()
            batch = next(batches)
            with jax.transfer_guard("disallow"):  # no copy to or from the host hides in a step
                train_state, window = advance(train_state, window, batch)
            if done == first + 1:
                log.compiled(window)
            stops = watch.stops_after(done)
            if stops or due(done, run.log_every_steps, run):
                window = log.window(window, done)
                dog.beat()
                require_finite(window, train_state, saver, folder)
            if due(done, run.validate_every_steps, run):
                log.validation(experiment.average_of(train_state), done)
            if due(done, run.sample_every_steps, run):
                log.samples(experiment.average_of(train_state), done)
            if due(done, run.checkpoint_every_steps, run):
                log.flush()  # before the save: a run that goes on from it does not do these steps again
                require_finite(window, train_state, saver, folder)
                saver.save(train_state)
            if stops:
                break
        log.flush()
        require_finite(window, train_state, saver, folder)
        saver.save(train_state)
        dog.beat()
        saver.wait()
        return log.finish(int(train_state.step))


def due(done: int, every_steps: int, run: Config) -> bool:
    """Whether what happens every so many steps, and after the last one, happens now; 0: after the last one only."""
    return done == run.num_steps or (every_steps > 0 and done % every_steps == 0)


def require_checkpoint(before: Record | None, folder: epath.Path) -> None:
    """Raises ValueError where steps are recorded that no checkpoint holds: redoing them would look like going on."""
    if before is not None and before.num_steps and not checkpoints.saved_steps(folder / "checkpoints"):
        raise ValueError(
            f"{folder} has a record of {before.num_steps} steps and no checkpoint; bring its checkpoints/ back, or "
            "start afresh in another --workdir"
        )


def make_way(damaged: Sequence[checkpoints.DamagedCheckpointError], folder: epath.Path) -> None:
    """Moves damaged checkpoints out of the way of the saves to come, and says so."""
    for error in damaged if distributed.is_writer() else ():
        aside = checkpoints.move_aside(folder / "checkpoints", error.step)
        print(f"warning: {error}; it was moved to {aside}", flush=True)


def require_more(done: int, asked: int, folder: epath.Path) -> None:
    """Raises ValueError where more steps are done than are asked for."""
    if done > asked:
        raise ValueError(
            f"{folder} has done {done} steps, but config.run.num_steps is {asked}; ask for more, or "
            "sample and evaluate an older checkpoint with --checkpoint_step"
        )


def start(
    experiment: build.Experiment, folder: epath.Path
) -> tuple[TrainState, list[checkpoints.DamagedCheckpointError]]:
    """The newest checkpoint that is whole and says which, and the damaged ones that are newer; where there is none, the
    first parameters.
    """
    directory = folder / "checkpoints"
    if not checkpoints.agreed_steps(directory):
        return experiment.first_state(), []
    restored, damaged = checkpoints.restore_last_good(
        directory,
        experiment.abstract_state(),
        lambda saved: identity.require_same_identity(saved, experiment.config, str(folder)),
    )
    digest = checkpoints.digest(directory, step=int(restored.step))
    print(f"going on from step {int(restored.step)} in {directory}, digest {digest}", flush=True)
    return restored, damaged


def require_finite(
    window: Window, train_state: TrainState, saver: checkpoints.CheckpointWriter, folder: epath.Path
) -> None:
    """Called with every line of the log and before every save.

    Raises:
      NotFiniteError: something in the state or in the steps of the window is not finite; names the step and the
        last good checkpoint.
    """
    bad = int(window.first_bad_step)
    if bad == NO_STEP and all_finite(train_state.params):
        return
    bad = min(bad, int(train_state.step) - 1)
    saver.wait()
    saved = checkpoints.saved_steps(folder / "checkpoints")
    good = f"the last good checkpoint is step {saved[-1]}" if saved else "there is no checkpoint yet"
    raise forensics.NotFiniteError(
        bad,
        f"loss, gradient or parameters were not finite in step {bad}; {good} in {folder}. "
        "Lower config.optimizer.learning_rate or clip_norm, or take another weighting, in another workdir",
    )


@jax.jit
def all_finite(params: Params) -> Bool[Array, ""]:
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


class Log:
    """What a run tells while it trains: progress line, metrics, sample sheets, and its record with seconds spent."""

    def __init__(
        self,
        experiment: build.Experiment,
        folder: epath.Path,
        before: Record | None,
        first: TrainState,
        beat: Callable[[], None],
    ):
        self._experiment, self._folder = experiment, folder
        self._validate = validation.make_validation(experiment, beat)
        self._draw = sample.make_draw(experiment, beat)
        self._empty_window = steps.make_window(experiment.mesh)
        self._writer = writers.Writer(folder, first_step=int(first.step))
        self._progress = Progress(int(first.step), experiment.config.run.num_steps)
        self._record = dataclasses.replace(_begin(experiment, before, first), checks=checks.read(folder))
        self._since = time.monotonic()
        if distributed.is_writer():
            record.write(folder, self._record)
            record.write_diff(folder)

    def compiled(self, window: Window) -> None:
        """After the first step of this start, which the compiler has most of."""
        jax.block_until_ready(window)
        self._spend("compile")

    def window(self, window: Window, done: int) -> Window:
        """Writes the means since the last call; returns the window to sum up from now on."""
        scalars = window.scalars()
        self._spend("train")
        self._writer.scalars(done, scalars)
        self._progress.show(done, scalars["train/loss"])
        return dataclasses.replace(self.empty_window(), first_bad_step=window.first_bad_step)

    def empty_window(self) -> Window:
        """A window of no steps, laid out as the step returns it, lest it be compiled for both."""
        return self._empty_window()

    def validation(self, params: Params, done: int) -> None:
        losses = self._validate(params)
        points = {f"{name} log_snr {level:g}": loss for name, row in losses.items() for level, loss in row}
        self._writer.scalars(done, points)
        self._record = dataclasses.replace(
            self._record, level_losses={name: tuple(row) for name, row in losses.items()}
        )
        self._spend("validate")

    def samples(self, params: Params, done: int) -> None:
        clips = self._draw(params, self._experiment.config.run.num_grid_samples)
        sheet = video_io.contact_sheet(clips, marked=self._experiment.sampler.task.given)
        if distributed.is_writer():
            path = self._folder / "samples" / f"sheet_{done:08d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(video_io.encode_png(sheet))
        self._writer.image(done, "samples", sheet)
        self._spend("sample")

    def flush(self) -> None:
        """Before a checkpoint: what was measured up to it is not lost with the process."""
        self._writer.flush()

    def finish(self, done: int) -> Record:
        self._spend("train")
        self._record = dataclasses.replace(
            self._record,
            num_steps=done,
            status="finished" if done == self._experiment.config.run.num_steps else "stopped",
            curves=curves_of(self._folder),
        )
        if done != self._record.evaluated_step:
            self._record = dataclasses.replace(self._record, metrics=(), evaluated_step=None)
        if distributed.is_writer():
            record.write(self._folder, self._record)
        self._progress.finish(self._record.status)
        return self._record

    def close(self) -> None:
        self._writer.close()

    def _spend(self, what: str) -> None:
        now = time.monotonic()
        self._record = record.spend(self._record, what, now - self._since)
        self._since = now


def _begin(experiment: build.Experiment, before: Record | None, first: TrainState) -> Record:
    config, mesh = experiment.config, dict(experiment.mesh.shape)
    if not int(first.step):  # not where there is no record: processes may see its first lines at different times
        of_network = {name: leaves for name, leaves in first.params.items() if name != "schedule"}
        print(parameter_overview.get_parameter_overview(of_network, include_stats="global"))
    fingerprint = experiment.splits.train.fingerprint
    if before is not None:
        return record.resume(before, config, mesh=mesh, step=int(first.step), data_fingerprint=fingerprint)
    log_snrs = jnp.array(config.evaluation.log_snrs)
    weights = objectives.effective_weight(experiment.objective, log_snrs)
    return record.begin(
        config,
        mesh=mesh,
        data_fingerprint=fingerprint,
        seeds={"config": config.seed} | {part: experiment.seed_of(part) for part in config.vary},
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(first.params)),
        effective_weight=record.EffectiveWeight(tuple(log_snrs.tolist()), tuple(weights.tolist())),
    )


def curves_of(folder: epath.Path) -> dict[str, record.Curve]:
    """Every scalar that was written, by name, from the first step on."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in writers.read_scalars(folder):
        for name in sorted(row.keys() - {"step"}):
            curves.setdefault(name, []).append((int(row["step"]), row[name]))
    return {name: tuple(points) for name, points in curves.items()}
