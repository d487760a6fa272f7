"""Write a card of a trained and evaluated run: a folder that others can read, run again and check.

The card has a README with samples and scores (its top is what a model hub wants), the resolved config, the record with
curves and protocols, the lock file, and the first 20 steps: they are done again from the config, here and now, and
their losses and gradient norms are kept to the last bit with all that they depend on. So the data must be at hand, and
as many devices as the run's mesh needs; one process. Where the steps do not pass through the curve that the run has
left, it is not published. `python -m vdm verify CARD` checks a card.

Example: python -m vdm publish --workdir=runs/shapes --out=cards/shapes --weights
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, PyTree

from configs import base
from vdm import build, evaluate, sample, steps
from vdm.nets.sharding import path_of
from vdm.records import card, card_page, environment, identity, record, replay, schema, weights
from vdm.records.card import Card
from vdm.records.record import Curve, Record
from vdm.records.replay import Agreement, Inputs, OfTheRun, Replay
from vdm.runtime import watchdog
from vdm.types import Config

TAKES = ("workdir",)
OPTIONS = (
    ("out", "", "the card's folder, new or a card's already"),
    ("weights", False, "put the averaged parameters into the card, as safetensors"),
)
LOSS = "train/loss"  # the curve of means over the steps between two lines of the log


def main(workdir: str, *, out: str, weights: bool) -> int:
    if not out:
        raise ValueError("--out=... is missing; name the folder of the card, such as --out=cards/shapes")
    made = publish(workdir, Path(out), with_weights=weights)
    met = made.replay.of_the_run
    if met is not None:
        print(f"the first steps pass through {met.num_points} points of the run's curve: {met.verdict}")
    if made.replay.inputs.environment.code.dirty:
        print("warning: the code here differs from its commit: commit it and publish again, or nobody has the same")
    print(f"a card of run {made.record.identity_hash}: {out}")
    print(f"check it with: python -m vdm verify {out}")
    return 0


def publish(workdir: epath.PathLike, out: Path, *, with_weights: bool) -> Card:
    """Writes the card of the run in a work directory, and reads it back as a stranger would.

    Raises:
      ValueError: no run, or one without scores or a curve of the loss; a folder that holds other things; a run whose
        curve is not what its config gives here.
    """
    done = record.read(workdir)
    if done is None or done.evaluated_step is None:
        lacks = "record.json" if done is None else "scores"
        raise ValueError(f"{workdir} holds no {lacks}; run `python -m vdm {'train' if done is None else 'evaluate'}`")
    if not curve_of(done):
        raise ValueError(
            f"{workdir}: this run logged no training loss, which the card's first steps are held against; train it "
            "first: `python -m vdm train`"
        )
    card.require_vacant(out)
    lock = environment.lock_of()
    if lock is None:
        raise ValueError(
            f"{environment.REPOSITORY / card.LOCK} is not there: a card names the lock that its numbers were made with"
        )
    config = config_of(done.config)
    samples = evaluate.folder_of(workdir, done.evaluated_step)
    files = {
        card.CONFIG: schema.dumps(done.config, card.CONFIG).encode(),
        card.RECORD: schema.dumps(done, card.RECORD).encode(),
        card.LOCK: lock,
        **{name: (samples / name).read_bytes() for name in (card.SHEET, card.SAMPLES)},
    }
    again = replay_run(build.experiment(config), done)
    files[card.REPLAY] = schema.dumps(again, card.REPLAY).encode()
    if with_weights:
        _, average, _ = sample.restore(config, workdir, done.evaluated_step)
        files[card.WEIGHTS] = weights.dumps(average)
    page = card_page.render(done, again, files)
    card.write(out, files | {card.PAGE: page.encode()}, done)
    return card.read(out)


def config_of(resolved: dict) -> Config:
    """The config of a resolved one, for one process. Raises ValueError as `identity.rebuild`."""
    config = identity.rebuild(base.get_config(), resolved)
    if identity.identity_hash(config) != identity.identity_hash(resolved):
        raise ValueError(f"config {identity.identity_hash(resolved)} is {identity.identity_hash(config)} when rebuilt")
    config.update({"run": {"distributed": {"name": "none"}}})
    return config


def replay_run(experiment: build.Experiment, done: Record) -> Replay:
    """The first steps of a run, which must pass through the points of its curve on the way; there is one at least.

    Raises:
      ValueError: they do not.
    """
    num_steps = max(replay.NUM_STEPS, min(step for step, _ in done.curves[LOSS]))
    again = replay_steps(experiment, num_steps)
    steps, met = met_points(done, again.losses, tolerance_of(experiment.config))
    if met.beyond is not None:
        begun = done.starts[0]
        there = Inputs(done.identity_hash, done.data_fingerprint, begun.mesh, begun.environment)
        differs = [each.name for each in replay.compare_inputs(there, again.inputs) if not each.same]
        raise ValueError(
            f"the run's loss up to step {steps[met.beyond]} is not what its config gives here (relative difference "
            f"{met.largest:.2g}); what differs: {', '.join(differs) or 'nothing that was recorded'}. Publish where the "
            "run ran, at its commit"
        )
    return dataclasses.replace(again.first(replay.NUM_STEPS), of_the_run=OfTheRun(len(steps), met.verdict))


def met_points(done: Record, losses: Sequence[float], tolerance: float) -> tuple[list[int], Agreement]:
    """The steps of the points of a run's curve that its first steps reach, and how well their losses meet them."""
    begins = window_begins(done)
    points = [(step, loss) for step, loss in curve_of(done) if step <= len(losses)]
    means = [mean_of_window(losses[begins[step] : step]) for step, _ in points]
    return [step for step, _ in points], replay.agreement([loss for _, loss in points], means, tolerance)


def curve_of(done: Record) -> Curve:
    """Of the training loss; empty where it was never logged."""
    return done.curves.get(LOSS, ())


def replay_steps(experiment: build.Experiment, num_steps: int) -> Replay:
    """The first steps of a config, from its first parameters on, by the step that trains.

    Losses and norms are fetched after every step; the parameters' hash is taken after `replay.NUM_STEPS` steps, or
    after the last one where they are fewer.
    """
    config, mesh = experiment.config, experiment.mesh
    losses, norms, digest = [], [], ""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        dog = stack.enter_context(watchdog.Watchdog(config.run.stuck_after_seconds))
        batches = stack.enter_context(contextlib.closing(steps.device_batches(experiment, 0)))
        advance = steps.make_step(experiment)
        empty, now = steps.make_window(mesh), experiment.first_state()
        for done in range(1, num_steps + 1):
            now, window = advance(now, empty(), next(batches))
            losses.append(float(window.mean_loss))
            norms.append(float(window.gradient_norm))
            if done == min(num_steps, replay.NUM_STEPS):
                digest = hash_of(now.params)
            dog.beat()
    return Replay(replay.VERSION, inputs_of(experiment), tuple(losses), tuple(norms), digest)


def inputs_of(experiment: build.Experiment) -> Inputs:
    """What the numbers of an experiment depend on, here."""
    return Inputs(
        identity_hash=identity.identity_hash(experiment.config),
        data_fingerprint=experiment.splits.train.fingerprint,
        mesh=dict(experiment.mesh.shape),
        environment=environment.read_environment(),
    )


def tolerance_of(config: Config) -> float:
    """Of the config's type of compute; `records.replay` has its reason."""
    return replay.TOLERANCES[config.network[config.network.name].compute_dtype]


def hash_of(params: PyTree[Array]) -> str:
    """SHA-256 of the paths and bits of all arrays."""
    digest = hashlib.sha256()
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(path_of(key_path).encode() + b"\0" + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def window_begins(done: Record) -> dict[int, int]:
    """Step of a point of the training curves -> the step that its mean begins after: the point before, or a start."""
    steps = [step for step, _ in curve_of(done)]
    starts = [start.step for start in done.starts]
    lasting = [step for index, step in enumerate(starts) if step <= min(starts[index:])]  # not undone by a later one
    stops = [0, *steps, *lasting]
    return {step: max(stop for stop in stops if stop < step) for step in steps}


def mean_of_window(losses: Sequence[float]) -> float:
    """The mean as the log takes it (`runtime.step.Window`): the sum in float32, in order."""
    total = np.float32(0)
    for loss in losses:
        total += np.float32(loss)
    return float(total) / len(losses)
