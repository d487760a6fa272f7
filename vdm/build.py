"""Config -> objects. A choice is looked up in one literal table; what cannot work is refused here and in `refusals.py`,
before any compute is spent.

To add a schedule, target, weighting, measure, sampler, network, source or optimiser: write it in its room, give it a
line in its table (below; targets and weightings have theirs beside them) and, where it has options, a sub-dict of them
in configs/base.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from data.clips import ClipSampler
from data.sources import Splits, folder, moving_digits, moving_shapes, simulated, tfds
from data.sources.part import set_aside
from vdm import refusals
from vdm.diffusion import noise_priors, objectives, proposals, samplers, schedules, times
from vdm.diffusion.guidance import GUIDANCE, THRESHOLDS, Guide, Threshold
from vdm.diffusion.noise_priors import NoisePrior
from vdm.diffusion.objectives import Objective, Predict
from vdm.diffusion.proposals import Proposal
from vdm.diffusion.samplers import grids
from vdm.diffusion.targets import TARGETS
from vdm.diffusion.weightings import WEIGHTINGS
from vdm.metrics.oracles import ShapeOracle
from vdm.nets.sharding import UNET_RULES, Rule
from vdm.nets.unet3d import UNet3DConfig, unet3d
from vdm.records.record import OWN
from vdm.runtime import mesh as meshes
from vdm.runtime import optimizer as optimizers
from vdm.runtime import random, state
from vdm.runtime.optimizer import Optimizer
from vdm.runtime.random import Purpose
from vdm.runtime.state import TrainState
from vdm.tasks import completion
from vdm.tasks.completion import Task
from vdm.tasks.conditioning import CONDITIONINGS, Conditioning, Unaware
from vdm.tasks.training import DISTRIBUTIONS, TaskDistribution
from vdm.types import (
    Condition,
    Config,
    Denoiser,
    ExampleKeys,
    FrameIndex,
    Key,
    Level,
    LogSnr,
    Network,
    Params,
    Prediction,
    Video,
)


@dataclasses.dataclass(frozen=True)
class Model:
    """All that a config names but its data: what a step of training is made of.

    Attributes:
      rules: where the network's parameters rest on the mesh.
      tasks: which frames of a training clip are given.
      frame_shape: (height, width, channels) of a frame.
      num_classes: None if the network is told no class.
    """

    config: Config
    mesh: Mesh
    network: Network
    rules: tuple[Rule, ...]
    tasks: TaskDistribution
    objective: Objective
    proposal: Proposal
    optimizer: Optimizer
    sampler: Sampler
    frame_shape: tuple[int, int, int]
    num_classes: int | None

    @property
    def learns_schedule(self) -> bool:
        return isinstance(self.objective.schedule, schedules.Learned)

    def init(self, key: Key) -> Params:
        """The network's first parameters, and at "schedule" those of a schedule that is learned."""
        params = self.network.init(key)
        return params | {"schedule": self.objective.schedule} if self.learns_schedule else params

    def abstract_state(self) -> TrainState:
        """Shapes, types and resting places of the state that training begins with; see `state.abstract_state`."""
        return state.abstract_state(self.init, self.optimizer, self.mesh, self.rules, self.proposal.first())

    def first_state(self) -> TrainState:
        """The state that training begins with, in its resting places."""
        key, memory = self.key(Purpose.INIT), self.proposal.first()
        return state.init_state(self.init, self.optimizer, key, self.mesh, self.rules, memory)

    def average_of(self, train_state: TrainState) -> Params:
        """The average of the parameters that is judged and drawn with."""
        return state.averages(train_state)[self.config.evaluation.average]

    def seed_of(self, part: str) -> int:
        """The seed of a part of `config.vary`; that of the config where nothing is varied."""
        return seed_of(self.config, part)

    def key(self, purpose: Purpose, step: Int[Array, ""] | int = 0) -> Key:
        """The key of one purpose in one step; see `random.key`."""
        return random.key(self.seed_of(PARTS[purpose]), purpose, step)

    def objective_of(self, params: Params) -> Objective:
        """The objective, with the schedule as it has been learned."""
        if not self.learns_schedule:
            return self.objective
        return objectives.with_schedule(self.objective, schedules.between_fixed_ends(params["schedule"]))

    def times_of(self, params: Params, log_snrs: Sequence[float]) -> Float[Array, "levels"]:
        """Where the schedule reaches log-SNRs; between the steps of a chain too, so that all objectives are compared at
        the same noise.

        Raises:
          ValueError: a schedule that is not learned does not reach one.
        """
        if self.learns_schedule:
            return schedules.time_of_unchecked(self.objective_of(params).schedule, jnp.array(log_snrs))
        with jax.ensure_compile_time_eval():
            return schedules.time_of(self.objective.schedule, jnp.array(log_snrs))

    def predict(
        self,
        params: Params,
        condition: Condition,
        keys: ExampleKeys | None = None,
        frame_index: FrameIndex | None = None,
    ) -> Predict:
        """The network with its parameters, condition and frame positions bound.

        Args:
          keys: draw the dropout; None: none.
          frame_index: None: the frames follow each other.
        """

        def predict(xt: Video, log_snr: LogSnr) -> Prediction:
            index = jnp.broadcast_to(jnp.arange(xt.shape[1]), xt.shape[:2]) if frame_index is None else frame_index
            return self.network.apply(params, xt, log_snr, index, condition, keys=keys)

        return predict


@dataclasses.dataclass(frozen=True)
class Experiment(Model):
    """A model with its data, ready to run."""

    splits: Splits


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A step rule, the times it is carried over (from 1 down), what is done to the denoiser before it, and which frames
    are given.
    """

    step: samplers.Sampler
    times: Float[Array, "num_times"]
    threshold: Threshold
    guide: Guide | None
    task: Task
    conditioning: Conditioning

    @property
    def num_evaluations(self) -> int | None:
        """Calls of the network for a clip: two for every estimate that is guided, and those of reconstruction guidance
        have a backward pass besides. None where a solver decides.
        """
        estimates = samplers.num_evaluations(self.step, self.times)
        return None if estimates is None else estimates * (1 if self.guide is None else 2)

    def prepared(
        self, conditional: Denoiser, unconditional: Denoiser | None, x0: Video | None, noise_prior: NoisePrior
    ) -> tuple[Denoiser, samplers.Sampler]:
        """The denoiser with guidance, where there is some, and its threshold, and the step rule.

        Args:
          x0: clips of which both know the frames that the task gives; None where it gives none.
        """
        unaware = Unaware(conditional, unconditional, self.guide, self.threshold, self.step, noise_prior)
        if x0 is None:
            return self.threshold(unaware.guided()), self.step
        return self.conditioning(unaware, self.task.is_given(len(x0)), x0)


def experiment(config: Config) -> Experiment:
    """Builds and checks everything.

    Raises:
      ValueError: a name that is in no table, an option out of its range, or parts that do not fit together.
    """
    make_splits = lookup(SOURCES, config.data.name, "data.name")
    # any channels, no class: what can be refused without the data is, before a folder's videos are decoded
    made = model(config, meshes.make_mesh(**config.run.mesh), num_channels=3, num_classes=None)
    splits = set_aside(make_splits(config.data), config.data.num_selection)
    refusals.check_splits(config, splits)
    num_channels, num_classes = splits.train.num_channels, _num_classes(config, splits)
    parts = vars(made) | _network_parts(config, num_channels, num_classes)
    return Experiment(**parts, splits=splits)


def model(config: Config, mesh: Mesh, *, num_channels: int, num_classes: int | None) -> Model:
    """Builds and checks what needs no data.

    Args:
      mesh: of any devices, absent ones too.
      num_channels: of the videos.
      num_classes: None if the network is told no class.

    Raises:
      ValueError: as `experiment`.
    """
    refusals.check_config(config, mesh)
    parts = _network_parts(config, num_channels, num_classes)
    schedule = make_schedule(config.schedule)
    objective = make_objective(config.objective, schedule)
    tasks = _tasks(config, mesh, objective)
    schedules.time_of(schedule, jnp.array(config.evaluation.log_snrs))  # refuses levels that it does not reach
    return Model(
        config=config,
        mesh=mesh,
        tasks=tasks,
        objective=objective,
        proposal=_proposal(config.objective.proposal, objective),
        optimizer=_optimizer(config.optimizer),
        sampler=_sampler(config, objective, tasks),
        **parts,
    )


def _network_parts(config: Config, num_channels: int, num_classes: int | None) -> dict[str, Any]:
    make_network = lookup(NETWORKS, config.network.name, "network.name")
    frame_shape = config.data.height, config.data.width, num_channels
    network, rules = make_network(config.network, frame_shape, num_classes, config.run.remat)
    return {
        "network": network,
        "rules": (*rules, _SCHEDULE_RULE),
        "frame_shape": frame_shape,
        "num_classes": num_classes,
    }


def make_schedule(config: Config) -> schedules.Schedule:
    """The schedule of `config.schedule` with its wrappers.

    Raises:
      ValueError: a name that is in no table, or numbers that make no schedule.
    """
    schedule = choose(SCHEDULES, config, "schedule")
    if config.log_snr_shift:
        schedule = schedules.shifted(schedule, config.log_snr_shift)
    if config.discretise:
        schedule = schedules.discretised(schedule, config.discretise)
    return schedules.zero_terminal(schedule) if config.zero_terminal_snr else schedule


def make_objective(config: Config, schedule: schedules.Schedule) -> Objective:
    """The objective of `config.objective` on a schedule. Raises ValueError as `Objective` and `choose`."""
    data_std = config.data_std
    made = Objective(
        schedule=schedule,
        target=lookup(TARGETS, config.target, "objective.target")(data_std),
        weighting=choose(WEIGHTINGS, config.weighting, "objective.weighting", data_std=data_std),
        times=choose(TIMES, config.times, "objective.times"),
        data_std=data_std,
        noise_prior=choose(NOISE_PRIORS, config.noise_prior, "objective.noise_prior"),
        variance_weight=config.variance_weight,
    )
    return objectives.normalised(made) if config.normalise else made


def seed_of(config: Config, part: str) -> int:
    """The seed of a part of `config.vary`; that of the config where nothing is varied."""
    return random.varied(config.seed, config.vary[part])


def samplings(made: Experiment) -> dict[str, Experiment]:
    """The experiment with each sampler of `config.scores.samplings` in place of its own, by name.

    Raises:
      ValueError: a sampling that is nowhere described, changes a key that a sampler does not have, or cannot work.
    """
    found = {}
    for name, changed in sampling_configs(made.config).items():
        try:
            sampler = _sampler(changed, made.objective, made.tasks)
            if sampler.task != made.sampler.task:
                raise ValueError("it changes sampler.task: a run's scores are of one task, that of config.sampler.task")
            found[name] = dataclasses.replace(made, config=changed, sampler=sampler)
        except (TypeError, ValueError) as error:
            raise ValueError(f"config.scores.sampling.{name}: {error}") from error
    return found


def sampling_configs(config: Config) -> dict[str, Config]:
    """The config with the changes of each of `config.scores.samplings`, by name. Raises ValueError as `samplings`."""
    found = {}
    for name in config.scores.samplings:
        changed = config.copy_and_resolve_references()
        changes = lookup(dict(changed.scores.sampling), name, "scores.samplings")
        if not name.isidentifier() or name == OWN:
            raise ValueError(f"config.scores.sampling has {name!r}: it is part of names of files, so it must be a word")
        try:
            changed.sampler.update(changes)
        except (KeyError, TypeError, AttributeError) as error:  # the last: a value in place of a dict
            raise ValueError(f"config.scores.sampling.{name}: {error}") from error
        found[name] = changed
    return found


def oracle(config: Config) -> ShapeOracle | None:
    """Who reads the data's state back from samples; None where nobody can, or the world has more than plain motion."""
    lookup(SOURCES, config.data.name, "data.name")
    if config.data.name != "moving_shapes":
        return None
    world = _world(config.data)
    if world.gravity or world.trail or world.cue or world.action_probability:
        return None
    return ShapeOracle(**world.oracle_facts())


def choose(table: Mapping[str, Callable[..., Any]], choice: Config, where: str, **shared: Any) -> Any:
    """Calls the function that `choice.name` names with the options of its sub-dict, and with `shared`.

    Raises:
      ValueError: the table has no such name.
    """
    make = lookup(table, choice.name, f"{where}.name")
    options = choice[choice.name] if choice.name in choice else {}  # noqa: SIM401  # configs have no defaults here
    return make(**shared, **options)


def lookup(table: Mapping[str, Any], name: str, where: str) -> Any:
    """The table's entry. Raises ValueError, with the names there are, for a name that it lacks."""
    if name not in table:
        raise ValueError(f"config.{where} is {name!r}; it must be one of: {', '.join(table)}")
    return table[name]


def _num_classes(config: Config, splits: Splits) -> int | None:
    if not config.network.class_conditional:
        return None
    if not splits.train.class_names:
        raise ValueError(
            f"config.network.class_conditional is True, but the data {config.data.name!r} have no labels; "
            "set it to False"
        )
    return len(splits.train.class_names)


def _proposal(config: Config, objective: Objective) -> Proposal:
    where = "objective.proposal"
    if lookup(PROPOSALS, config.name, f"{where}.name") is not proposals.as_measure:
        return choose(PROPOSALS, config, where)
    other = choose(TIMES, config.measure.times, f"{where}.measure.times")
    return proposals.as_measure(objective.schedule, objective.times, other, config.measure.own_share)


def _optimizer(config: Config) -> Optimizer:
    rate = optimizers.warmup_cosine(
        config.learning_rate, warmup_steps=config.warmup_steps, decay_steps=config.decay_steps
    )
    betas = {"beta1": config.beta1, "beta2": config.beta2, "epsilon": config.epsilon}
    transform = choose(OPTIMIZERS, config, "optimizer", learning_rate=rate, **betas)
    return Optimizer(transform, rate, config.clip_norm, config.ema_decay, config.ema_decay_short)


def _tasks(config: Config, mesh: Mesh, objective: Objective) -> TaskDistribution:
    made = choose(DISTRIBUTIONS, config.task, "task")
    made.check(config.data.num_frames)
    refusals.check_tasks(config, mesh, made, objective)
    return made


def _sampler(config: Config, objective: Objective, tasks: TaskDistribution) -> Sampler:
    options, schedule = config.sampler, objective.schedule
    grid = choose(grids.GRIDS, options.spacing, "sampler.spacing", schedule=schedule, num_steps=options.num_steps)
    step = choose(SAMPLERS, options, "sampler")
    samplers.check_start(step, schedule, grid)
    guide = choose(GUIDANCE, options.guidance, "sampler.guidance")
    task = task_of(config)
    conditioning = choose(CONDITIONINGS, options.conditioning, "sampler.conditioning")
    threshold = choose(THRESHOLDS, options.threshold, "sampler.threshold")
    made = Sampler(step, grid, threshold, guide, task, conditioning)
    refusals.check_sampler(config, objective, step, is_guided=guide is not None)
    refusals.check_completion(config, tasks, task, conditioning)
    x0 = jnp.zeros((1, task.num_frames, 1, 1, 1)) if task.given else None
    made.prepared(_nothing, _nothing, x0, objective.noise_prior)  # refuses options out of their range
    return made


def task_of(config: Config) -> Task:
    """Which frames a sampler is given, of those that the network sees at a time."""
    tasks = choose(DISTRIBUTIONS, config.task, "task")
    num_frames = tasks.seen(config.data.num_frames)
    return choose(completion.TASKS, config.sampler.task, "sampler.task", num_frames=num_frames)


def _nothing(xt: Video, level: Level) -> Video:
    return xt


def _world(config: Config) -> Any:
    options = {name: value for name, value in config[config.name].items() if name not in _SPLIT_SIZES}
    return WORLDS[config.name](config.num_frames, config.height, config.width, **options)


def _simulated(config: Config) -> Splits:
    sizes = {name: config[config.name][name] for name in _SPLIT_SIZES}
    return simulated.splits(_world(config), **sizes, seed=config.seed)


def _folder(config: Config) -> Splits:
    return folder.splits(height=config.height, width=config.width, **_clips(config, config.folder))


def _tfds(config: Config) -> Splits:
    return tfds.splits(height=config.height, width=config.width, **_clips(config, config.tfds))


def _clips(config: Config, options: Config) -> dict[str, Any]:
    """The options of a source of longer videos, with stride and flip as the sampler of its clips."""
    rest = dict(options)
    return rest | {"clips": ClipSampler(config.num_frames, stride=rest.pop("frame_stride"), flip=rest.pop("flip"))}


def _unet3d(
    config: Config, frame_shape: tuple[int, int, int], num_classes: int | None, remat: str
) -> tuple[Network, tuple[Rule, ...]]:
    height, width, channels = frame_shape
    network = unet3d(
        UNet3DConfig(
            channels_in=channels,
            channels_out=channels,
            num_classes=num_classes,
            learned_variance=config.learned_variance,
            remat=remat,
            **config.unet3d,
        )
    )
    network.check(height, width)
    return network, UNET_RULES


PARTS = {  # purpose -> the part of `config.vary` that draws it anew
    Purpose.INIT: "init",
    **dict.fromkeys(
        (
            Purpose.TIME,
            Purpose.NOISE,
            Purpose.DROPOUT,
            Purpose.LABEL_DROPOUT,
            Purpose.DEQUANTISATION,
            Purpose.TASK,
        ),
        "train",
    ),
    **dict.fromkeys((Purpose.SAMPLE_PRIOR, Purpose.SAMPLE_NOISE), "sample"),
    **dict.fromkeys(
        (
            Purpose.VALIDATION_NOISE,
            Purpose.VALIDATION_DEQUANTISATION,
            Purpose.VALIDATION_TASK,
            Purpose.LIKELIHOOD_NOISE,
            Purpose.LIKELIHOOD_LEVEL,
            Purpose.LIKELIHOOD_PROBE,
            Purpose.LIKELIHOOD_DEQUANTISATION,
            Purpose.SELECTION_NOISE,
            Purpose.SELECTION_LEVEL,
            Purpose.SELECTION_TASK,
            Purpose.SELECTION_DEQUANTISATION,
        ),
        "evaluation",
    ),
}
_SCHEDULE_RULE = (r"(^|/)schedule/", PartitionSpec())  # a few numbers, whole on every device
_SPLIT_SIZES = ("num_train", "num_validation")
WORLDS = {"moving_shapes": moving_shapes.World, "moving_digits": moving_digits.World}
SOURCES = {**dict.fromkeys(WORLDS, _simulated), "folder": _folder, "tfds": _tfds}
NETWORKS = {"unet3d": _unet3d}
SCHEDULES = {
    "ddpm_linear": schedules.ddpm_linear,
    "ddpm_cosine": schedules.ddpm_cosine,
    "smld": schedules.smld,
    "vp_linear": schedules.vp_linear,
    "sub_vp": schedules.sub_vp,
    "ve": schedules.ve,
    "edm": schedules.edm,
    "cosine": schedules.cosine,
    "flow": schedules.flow,
    "learned": schedules.learned,
}
TIMES = {
    "uniform": times.Uniform,
    "grid": times.Grid,
    "logit_normal": times.LogitNormal,
    "log_snr_uniform": times.LogSnrUniform,
    "log_normal_sigma": times.LogNormalSigma,
}
PROPOSALS = {
    "independent": proposals.Independent,
    "stratified": proposals.Stratified,
    "loss_aware": proposals.LossAware,
    "measure": proposals.as_measure,
}
NOISE_PRIORS = {
    "independent": noise_priors.Independent,
    "shared": noise_priors.Shared,
    "mixed": noise_priors.Mixed,
    "progressive": noise_priors.Progressive,
    "base_residual": noise_priors.BaseResidual,
}
SAMPLERS = {
    "ancestral": samplers.Ancestral,
    "learned_ancestral": samplers.LearnedAncestral,
    "ddim": samplers.Ddim,
    "euler_maruyama": samplers.EulerMaruyama,
    "reverse_diffusion": samplers.ReverseDiffusion,
    "euler": samplers.Euler,
    "heun": samplers.Heun,
    "adaptive": samplers.AdaptiveFlow,
    "stochastic_heun": samplers.StochasticHeun,
    "predictor_corrector": samplers.PredictorCorrector,
    "annealed_langevin": samplers.AnnealedLangevin,
    "dpm_solver": samplers.DpmSolver,
    "unipc": samplers.UniPC,
}
OPTIMIZERS = {"adam": optimizers.adam, "adamw": optimizers.adamw}
