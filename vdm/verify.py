"""Check a card: read it without trusting it, compare this environment with the card's, and run its first steps again.

Printed is every input (config, data, code, lock, versions, devices, mesh, CPU threads, flags), the same or different,
and then: bitwise equal, equal within the stated tolerance (of 20 steps; records/replay.py has it with its reason), or
different from step K. Where the run's own curve begins after the card's steps, --steps=N goes on to it. XLA repeats
bits on one kind of device with one number of CPU threads, the same versions and flags; on a GPU it needs
--xla_gpu_deterministic_ops=true. Packages that are not those of the card's lock make the environment foreign: that is
said, and not refused. Weights must have the held-out losses of the record. --full then trains all steps in a scratch
folder and compares curves and scores, by the card's protocols, within tolerances of their own; where no input differs
and the first steps are the same bits, the rest must be too.

The data must be at hand: those of a folder or of TFDS are looked for in --data, never where the card says. Extractors
from a user's own file are not part of a card, and their scores are not taken again. Of a config, `run` is taken from
here but for what the numbers depend on. Exit codes: 0 equal, bitwise or within tolerance; 1 different; 2 refused.

Example: python -m vdm verify cards/shapes --steps=5
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import jax

from configs import base
from vdm import build, evaluate, likelihoods, publish, train, validation
from vdm.measures import METRICS
from vdm.metrics.protocol import Protocol
from vdm.records import card as cards
from vdm.records import identity, lock, replay, schema, weights
from vdm.records.card import Card
from vdm.records.record import OWN, Metric, Record
from vdm.records.replay import DIFFERENT, Agreement
from vdm.runtime import mesh as meshes
from vdm.types import MESH_AXES, Config

TAKES = ("card",)
OPTIONS = (
    ("steps", 0, "run the first N steps again, at most to where the run's curve begins; 0: all that the card has"),
    ("full", False, "then train all steps and compare curves and scores; only if the first ones agree"),
    ("data", "", "the folder of the data, where the card's are videos of a folder or a TFDS set"),
)
RUN_TAKEN = ("num_steps", "num_microbatches", "remat", "log_every_steps", "validate_every_steps")  # from a card's run
PLACES = {"folder": ("path", "cache"), "tfds": ("data_dir",)}  # source -> its options that name a place
LevelLosses = Mapping[str, Sequence[tuple[float, float]]]  # name -> (log_snr, loss)
DETERMINISTIC = ("xla_gpu_deterministic_ops=true", "xla_gpu_exclude_nondeterministic_ops=true")


@dataclasses.dataclass(frozen=True)
class Score:
    """A score, or a loss on held-out clips, of the card and of here, and how far they may be apart."""

    name: str
    there: float
    here: float
    allowed: float

    @property
    def verdict(self) -> replay.Verdict:
        if self.there == self.here:
            return replay.BITWISE
        return replay.WITHIN if abs(self.there - self.here) <= self.allowed else DIFFERENT


@dataclasses.dataclass(frozen=True)
class Whole:
    """What became of all steps.

    Attributes:
      first: step of the first point of any curve that is not the same to the last bit; None if all are.
      beyond: step of the first point of a curve of losses that is beyond its tolerance; None if none is.
      largest: relative difference of all points of the training loss.
      left_out: curves and scores of the card that here has none of, by that name and protocol.
    """

    first: int | None
    beyond: int | None
    largest: float
    scores: tuple[Score, ...]
    left_out: tuple[str, ...]

    @property
    def verdict(self) -> replay.Verdict:
        verdicts = {score.verdict for score in self.scores}
        if self.beyond is not None or DIFFERENT in verdicts:
            return DIFFERENT
        return replay.BITWISE if self.first is None and verdicts <= {replay.BITWISE} else replay.WITHIN


@dataclasses.dataclass(frozen=True)
class Verification:
    """What a check of a card found.

    Attributes:
      inputs: see `replay.compare_inputs`; foreign: packages that are not the lock's.
      num_steps: of the card's that were run again; steps: of their losses and gradient norms.
      same_parameters: after them; None where fewer steps were run than the card has.
      points: steps of the points of the recorded curve that these steps reach; met: how well they do.
      weights: losses of the card's weights on held-out clips; empty where it has none, or the steps are different.
      whole: None where it was not asked for, or the first steps are different.
    """

    inputs: tuple[replay.Compared, ...]
    foreign: tuple[str, ...]
    num_steps: int
    steps: Agreement
    same_parameters: bool | None
    points: tuple[int, ...]
    met: Agreement
    weights: tuple[Score, ...] = ()
    whole: Whole | None = None

    @property
    def verdict(self) -> replay.Verdict:
        verdicts = {self.steps.verdict, self.met.verdict, *(score.verdict for score in self.weights)}
        verdicts |= set() if self.whole is None else {self.whole.verdict}
        if DIFFERENT in verdicts:
            return DIFFERENT
        return replay.BITWISE if verdicts == {replay.BITWISE} and self.same_parameters is not False else replay.WITHIN

    @property
    def differs_from(self) -> int | None:
        """The first step beyond the tolerance, or the first point whose mean is."""
        steps = [] if self.steps.beyond is None else [self.steps.beyond + 1]
        steps += [] if self.met.beyond is None else [self.points[self.met.beyond]]
        steps += [] if self.whole is None or self.whole.beyond is None else [self.whole.beyond]
        return min(steps, default=None)


def main(card: str, *, steps: int, full: bool, data: str) -> int:
    found = verify(Path(card), steps=steps, full=full, data=data)
    return 1 if found.verdict == DIFFERENT else 0


def verify(folder: Path, *, steps: int = 0, full: bool = False, data: str = "") -> Verification:
    """Checks the card in a folder and prints what it finds as it finds it.

    Raises:
      ValueError: a card that is refused, or one that cannot be run here: more steps than it has, data that are not
        here, a config that this code does not know.
    """
    card = cards.read(folder)
    num_steps, begins = steps or len(card.replay.losses), curve_begins(card.record)
    if not 1 <= num_steps <= max(len(card.replay.losses), begins):
        raise ValueError(
            f"--steps is {steps}; the card has {len(card.replay.losses)} steps, 0: all"
            + (f", and the run's curve begins at step {begins}" if begins > len(card.replay.losses) else "")
            + ". --full runs all"
        )
    config = config_of(card, data)
    experiment = build.experiment(config)
    there, here = sides(experiment, card)
    inputs, foreign = replay.compare_inputs(there, here), lock.foreign(card.pins)
    print_inputs(inputs, foreign, identity.differences(card.record.config, card.config))
    print_determinism(there, here)
    found = steps_again(experiment, card, num_steps, inputs, foreign)
    print_steps(found, publish.tolerance_of(config))
    print_points(found, begins)
    if card.weights is not None and found.verdict != DIFFERENT:
        found = dataclasses.replace(found, weights=weights_again(experiment, card.weights, card.record))
        print_scores(found.weights)
    if full and found.verdict != DIFFERENT:
        whole = all_again(config, card, exact=must_be_bitwise(found, card, there, here))
        found = dataclasses.replace(found, whole=whole)
        print_whole(whole)
    print(f"{found.verdict}{reason(found)}")
    return found


def config_of(card: Card, data: str) -> Config:
    """The card's config, with a `run` of this machine and data of this machine.

    Raises:
      ValueError: a config that is not of this code; data that are not here.
    """
    config = publish.config_of(card.config)
    run = config.run
    taken = {name: run[name] for name in RUN_TAKEN}
    run.update(base.get_config().run)
    run.update(taken, sample_every_steps=0, checkpoint_every_steps=0)
    if _fits(card.replay.inputs.mesh):
        run.mesh.update({axis: card.replay.inputs.mesh[axis] for axis in MESH_AXES})
    places = PLACES.get(config.data.name, ())
    if bool(places) != bool(data):
        raise ValueError(
            f"the card's data are {config.data.name}: "
            + ("give --data=DIR, the folder where you have them" if places else "they are simulated; leave --data out")
        )
    if config.data.name == "tfds":
        require_inside(config.data.tfds.dataset)
    for name, place in zip(places, (data, ""), strict=False):
        config.data[config.data.name][name] = place
    return config


def require_inside(name: str) -> None:
    """Raises ValueError for a TFDS name that is a path out of --data: a data set names the classes that read it."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the card's config.data.tfds.dataset is {name!a}, a path; it must be the name of a data set")


def _fits(mesh: dict[str, int]) -> bool:
    if set(mesh) != set(MESH_AXES):
        return False
    try:
        meshes.complete(tuple(mesh[axis] for axis in MESH_AXES), jax.device_count())
    except ValueError:
        return False
    return True


def sides(experiment: build.Experiment, card: Card) -> tuple[replay.Inputs, replay.Inputs]:
    """What the numbers depend on, there and here. Here's config is the card's: where data lie is no difference."""
    there, ours = card.replay.inputs, identity.identity_hash(card.config)
    if card.record.identity_hash != ours:
        there = dataclasses.replace(there, identity_hash=card.record.identity_hash)
    return there, dataclasses.replace(publish.inputs_of(experiment), identity_hash=ours)


def curve_begins(done: Record) -> int:
    """The step of the first point of a run's curve of the loss; 0 where it has none."""
    return min((step for step, _ in publish.curve_of(done)), default=0)


def steps_again(
    experiment: build.Experiment,
    card: Card,
    num_steps: int,
    inputs: tuple[replay.Compared, ...],
    foreign: tuple[str, ...],
) -> Verification:
    """Runs the first steps again, perhaps more than the card has, to reach the run's curve."""
    there, here = card.replay, publish.replay_steps(experiment, num_steps)
    tolerance = publish.tolerance_of(experiment.config)
    agreement = replay.both(
        replay.agreement(there.losses, here.losses, tolerance),
        replay.agreement(there.gradient_norms, here.gradient_norms, tolerance),
    )
    same_parameters = None
    if min(num_steps, replay.NUM_STEPS) == len(there.losses):
        same_parameters = here.parameters_sha256 == there.parameters_sha256
    # elsewhere the tolerance ends with the steps that it is stated for
    goes_on = num_steps > replay.NUM_STEPS and not all(each.same for each in inputs)
    points, met = publish.met_points(card.record, here.losses, replay.WHOLE_TOLERANCE if goes_on else tolerance)
    num_compared = min(num_steps, len(there.losses))
    return Verification(inputs, foreign, num_compared, agreement, same_parameters, tuple(points), met)


def must_be_bitwise(found: Verification, card: Card, there: replay.Inputs, here: replay.Inputs) -> bool:
    """Whether all that follows the first steps must be the card's to the last bit: no input differs, and nothing that
    is not recorded (a CPU of another make) has shown in them; nor has it between the run and its card.
    """
    of_the_run = card.replay.of_the_run
    return (
        found.verdict == replay.BITWISE
        and all(each.same for each in found.inputs)
        and (of_the_run is None or of_the_run.verdict == replay.BITWISE)
        and repeats_bits(there, here)
    )


def weights_again(experiment: build.Experiment, path: Path, there: Record) -> tuple[Score, ...]:
    """The losses on held-out clips that the record has, taken again with the card's weights."""
    average = weights.read(path, experiment.abstract_state().ema)
    with jax.set_mesh(experiment.mesh):
        losses = validation.make_validation(experiment)(average)
    found, _ = losses_apart(there.level_losses, losses, publish.tolerance_of(experiment.config))
    return tuple(dataclasses.replace(score, name=f"weights' {score.name}") for score in found)


def all_again(config: Config, card: Card, *, exact: bool) -> Whole:
    """Trains all steps that the card's scores are of, in a folder that is deleted, and scores the result.

    Args:
      exact: nothing but the same bits is allowed.
    """
    done = card.record
    config.run.num_steps = done.evaluated_step or done.num_steps
    ask_again(config, done.metrics)
    build.samplings(build.experiment(config))  # refuses what a stranger's card asks for before all steps are trained
    with tempfile.TemporaryDirectory(prefix="vdm_verify_") as folder:
        here = train.train(config, folder)
        if done.evaluated_step is not None:
            here = evaluate.evaluate(config, folder)
    scores, lacking = scores_apart(done, here, exact=exact)
    left_out = (*sorted(done.curves.keys() - here.curves.keys()), *lacking)
    return Whole(*curves_apart(done, here, publish.tolerance_of(config), exact=exact), scores, left_out)


def ask_again(config: Config, metrics: Iterable[Metric]) -> None:
    """Sets `config.scores` to the protocols of a card's metrics, but for those of a user's own extractor.

    Raises:
      ValueError: the split is none of the config's.
    """
    titles = {title: name for name, (title, _, _) in METRICS.items()}
    options = config.scores
    metrics = [_without_sampling(metric, options) for metric in metrics]
    options.metrics = tuple(dict.fromkeys(titles[metric.name] for metric in metrics if metric.name in titles))
    for metric in metrics:
        if metric.name in likelihoods.TITLES.values():
            likelihoods.ask_again(config, metric.protocol)
        if metric.name not in titles:
            continue
        fields = [field.name for field in dataclasses.fields(Protocol)]
        protocol = {name: value for name, value in metric.protocol.items() if name in fields}
        asked = schema.read(Protocol, protocol, f"the protocol of {metric.name!r}")
        options.update({name: getattr(asked, name) for name in ("num_samples", "num_real", "repeats", "clip_rule")})
        options.resize = asked.resize or options.resize  # empty where the extractor has no size
        options.estimator = asked.estimator or options.estimator  # and where the distance has none
        options.split = build.lookup(_splits(config), asked.split, "scores.split")
        if "preset" in metric.protocol:
            options.preset = schema.read(str, metric.protocol["preset"], "a protocol's preset")
            options.assumed = schema.read(tuple[str, ...], metric.protocol.get("assumed"), "what a protocol assumes")


def _without_sampling(metric: Metric, options: Config) -> Metric:
    """The metric by its own name; `options` then have the sampling that its clips were drawn by."""
    sampling = schema.read(str, metric.protocol.get("sampling", OWN), f"the sampling of {metric.name!r}")
    if sampling == OWN:
        return metric
    if sampling not in options.samplings:
        changes = schema.read(dict[str, Any], metric.protocol.get("sampler"), f"the sampler of {metric.name!r}")
        with options.unlocked():
            options.sampling[sampling] = changes
        options.samplings = (*options.samplings, sampling)
    return dataclasses.replace(metric, name=metric.quantity)


def _splits(config: Config) -> dict[str, str]:
    """What a protocol calls a split -> what `config.scores` does."""
    source = config.data[config.data.name]
    names = {split: f"{split}_split" for split in ("train", "validation")}
    return {(source[name] if name in source else split): split for split, name in names.items()}  # noqa: SIM401


def curves_apart(there: Record, here: Record, tolerance: float, *, exact: bool) -> tuple[int | None, int | None, float]:
    """`Whole.first`, `beyond` and `largest`; `tolerance` is that of the first steps, and where `exact` there is none.

    Where a run was stopped, the mean over the steps since the line before is of other steps: such points are left out.
    """
    begins = [publish.window_begins(done) for done in (there, here)]
    firsts, beyonds, largest = [], [], 0.0
    for name, curve in there.curves.items():
        again = dict(here.curves[name]) if name in here.curves else {}
        for step, value in curve:
            windows = {begin.get(step) for begin in begins}
            if step not in again or (name.startswith("train/") and len(windows) > 1):
                continue
            apart = replay.relative_difference(value, again[step])
            firsts += [step] if apart else []
            if name == publish.LOSS or name.startswith("validation/"):
                allowed = 0.0 if exact else tolerance if step <= replay.NUM_STEPS else replay.WHOLE_TOLERANCE
                beyonds += [] if apart <= allowed else [step]
            largest = max(largest, apart) if name == publish.LOSS else largest
    return min(firsts, default=None), min(beyonds, default=None), largest


def scores_apart(there: Record, here: Record, *, exact: bool) -> tuple[tuple[Score, ...], tuple[str, ...]]:
    """Every metric by its protocol and every loss on held-out clips; and the names of those that here lacks.

    The tolerance of a metric is that of here: the interval of the card is a stranger's word.
    """
    again = {_of_one_protocol(metric): metric for metric in here.metrics}
    tolerance = 0.0 if exact else replay.WHOLE_TOLERANCE
    found, lacking = losses_apart(there.level_losses, here.level_losses, tolerance)
    for metric in there.metrics:
        key = _of_one_protocol(metric)
        if key not in again:
            lacking.append(metric.name)
            continue
        allowed = 0.0 if exact else replay.score_tolerance(again[key], metric.value)
        found.append(Score(metric.name, metric.value, again[key].value, allowed))
    return tuple(found), tuple(lacking)


def losses_apart(there: LevelLosses, here: LevelLosses, tolerance: float) -> tuple[list[Score], list[str]]:
    """Losses by name and level, within a relative tolerance; and the names of those that here lacks."""
    losses = {(name, level): loss for name, points in here.items() for level, loss in points}
    found, lacking = [], []
    for name, points in there.items():
        for level, loss in points:
            shown = f"{name} at log-SNR {level:g}"
            if (name, level) not in losses:
                lacking.append(shown)
                continue
            found.append(Score(shown, loss, losses[name, level], tolerance * abs(loss)))
    return found, lacking


def _of_one_protocol(metric: Metric) -> tuple[str, str]:
    return metric.name, identity.canonical_json(metric.protocol)


def print_inputs(inputs: Sequence[replay.Compared], foreign: Sequence[str], differences: Sequence[str]) -> None:
    for each in inputs:
        print(f"{each.name:<12} " + ("same" if each.same else f"different: {each.there} -> {each.here}"))
        for line in differences if each.name == "config" and not each.same else ():
            print(f"  {_plain(line)}")
    if foreign:
        print(f"foreign environment: not the packages of the card's lock: {', '.join(foreign)}")


def repeats_bits(there: replay.Inputs, here: replay.Inputs) -> bool:
    """False on a GPU that was not told to, there or here."""
    flags = [" ".join(side.environment.flags.values()) for side in (there, here)]
    return jax.default_backend() != "gpu" or all(any(word in side for word in DETERMINISTIC) for side in flags)


def print_determinism(there: replay.Inputs, here: replay.Inputs) -> None:
    """On a GPU, what its bits ask for."""
    if not repeats_bits(there, here):
        print(f"a GPU repeats its bits only with XLA_FLAGS=--{DETERMINISTIC[0]}, there and here")


def print_steps(found: Verification, tolerance: float) -> None:
    steps = found.steps
    if steps.first is None:
        print(f"steps 1 to {found.num_steps}: losses and gradient norms are the same to the last bit")
    else:
        print(
            f"steps 1 to {found.num_steps}: losses or gradient norms differ from step {steps.first + 1} on, by at most "
            f"{steps.largest:.2g} of their value; {tolerance:g} is allowed"
        )
    if found.same_parameters is not None:
        print(f"parameters after them: {'the same to the last bit' if found.same_parameters else 'not the same bits'}")


def print_points(found: Verification, begins: int) -> None:
    """How well the run's own curve is met, where these steps reach it at all; `begins` as `curve_begins`."""
    if found.points:
        told = f"{len(found.points)} points in these steps, {found.met.verdict}"
    else:
        told = f"not reached; it begins at step {begins}, --steps={begins} goes on to it" if begins else "it has none"
    print(f"the run's own curve: {told}")


def print_whole(whole: Whole) -> None:
    if whole.first is None:
        print("curves of all steps: the same to the last bit")
    else:
        print(
            f"curves of all steps: they differ from step {whole.first} on, the training loss by at most "
            f"{whole.largest:.2g} of its value"
            + ("" if whole.beyond is None else f"; from step {whole.beyond} on by more than is allowed")
        )
    print_scores(whole.scores)
    if whole.left_out:
        print(
            f"not compared, since nothing here is of that name and protocol: {', '.join(map(_plain, whole.left_out))}"
        )


def print_scores(scores: Sequence[Score]) -> None:
    for score in scores:
        allowed = "" if score.verdict == replay.BITWISE else f", {score.allowed:.2g} is allowed"
        print(f"{_plain(score.name)}: {score.there:.6g} -> {score.here:.6g}: {score.verdict}{allowed}")


def reason(found: Verification) -> str:
    """What follows the verdict: from which step on, which input it may come from, and what was not looked at."""
    unseen = "later steps and scores" if found.points else "the run's own curve, later steps and scores"
    scope = "" if found.whole is not None else f"; {unseen} were not checked, --full does"
    if found.whole is not None and found.whole.left_out:
        scope = "; not all was compared"
    if found.verdict == replay.BITWISE:
        return scope
    scores = (*found.weights, *(() if found.whole is None else found.whole.scores))
    unlike = [score.name for score in scores if score.verdict == DIFFERENT]
    differs = [each.name for each in found.inputs if not each.same]
    return (
        (f" from step {found.differs_from}" if found.differs_from is not None else "")
        + (f" in {', '.join(map(_plain, unlike))}" if unlike else "")
        + f"; what differs: {', '.join(differs) or 'nothing that was recorded'}"
        + (scope if found.verdict != DIFFERENT else "")
    )


def _plain(text: str) -> str:
    """In ASCII: a terminal obeys some characters, and the words are a stranger's."""
    return ascii(text)[1:-1]
