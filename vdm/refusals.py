"""What cannot work, and is no single part's own business: parts of a config that do not fit together or the data.

Every function raises ValueError, which says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import numpy as np
from jax.sharding import AbstractMesh, Mesh

from data.sources import Splits
from vdm.diffusion import noise_priors, objectives, samplers, schedules
from vdm.diffusion.objectives import Objective
from vdm.runtime import mesh as meshes
from vdm.runtime.state import AVERAGES
from vdm.tasks.completion import Task
from vdm.tasks.conditioning import Conditioning
from vdm.tasks.training import TaskDistribution
from vdm.types import BATCH_AXES, FRAME_AXES, Config

_MEASURED_CLIPS = 64
_DATA_STD_TOLERANCE = 1.5  # factor; clips of one data set differ


def check_config(config: Config, mesh: Mesh | AbstractMesh) -> None:
    """Counts that are no counts, batches that the mesh does not divide, labels dropped that nobody is told."""
    _check_ranges(config)
    _check_batches(config, mesh)
    _check_microbatches(config, mesh)
    _check_label_dropout(config)
    _check_average(config)


def check_splits(config: Config, splits: Splits) -> None:
    """More clips than there are, and data of another scale than the config says."""
    _check_counts(config, splits)
    _check_data_std(config, splits)


def check_tasks(config: Config, mesh: Mesh | AbstractMesh, tasks: TaskDistribution, objective: Objective) -> None:
    """Given frames under an objective or a mesh that cannot do with them."""
    if not tasks.gives:
        return
    if isinstance(objective.schedule, schedules.Learned):
        raise ValueError(
            f"config.task.name is {config.task.name} and config.schedule.name learned: a given frame has no level that"
            " could be learned; take another schedule, or task.name generation"
        )
    objectives.require_apart(objective)
    seen, ways = tasks.seen(config.data.num_frames), meshes.ways(mesh, FRAME_AXES)
    if seen % ways:
        raise ValueError(
            f"the mesh splits frames {ways} ways, which does not divide the {seen} that the network sees of a clip"
            f" (config.task.{config.task.name}): see a multiple, or set run.mesh.frames to 1"
        )
    if seen != config.data.num_frames and not isinstance(objective.noise_prior, noise_priors.Independent):
        raise ValueError(
            f"config.objective.noise_prior.name is {config.objective.noise_prior.name}, of frames that follow each"
            f" other, and config.task.name {config.task.name}, which shows some that lie apart: take independent"
        )


def check_completion(config: Config, tasks: TaskDistribution, task: Task, conditioning: Conditioning) -> None:
    """A task that the network was not trained for, or one without a way to make given frames known."""
    if task.given and config.sampler.name == "learned_ancestral":
        raise ValueError(
            f"config.sampler.name is learned_ancestral, and config.sampler.task.name {config.sampler.task.name}: a"
            " learned variance does not pass through given frames; take ancestral"
        )
    trained, asked, way = config.task.name, config.sampler.task.name, config.sampler.conditioning.name
    if not conditioning.learned and tasks.gives:
        raise ValueError(
            f"config.sampler.conditioning.name is {way}, for networks that were never given frames, and"
            f" config.task.name {trained}: set sampler.conditioning.name to given"
        )
    if conditioning.learned and not tasks.draws(task):
        raise ValueError(
            f"config.sampler.task.name is {asked} and gives frames {task.given} of {task.num_frames}, which config.task"
            f" ({trained}) never draws: ask for a task of the training, train with one that draws it, or take"
            " sampler.conditioning.name replacement or reconstruction for a network trained with generation"
        )


def check_sampler(config: Config, objective: Objective, step: samplers.Sampler, *, is_guided: bool) -> None:
    """What a sampler's options, the network and the objective cannot be together."""
    options = config.sampler
    if is_guided and not (config.network.class_conditional and config.network.label_dropout):
        raise ValueError(
            f"config.sampler.guidance.name is {options.guidance.name}, but the network has no null condition: set"
            " network.class_conditional=True and network.label_dropout (0.1, say), or the name to none"
        )
    low, high = options.threshold.static.low, options.threshold.static.high
    if options.threshold.name == "static" and not (low <= -1.0 and high >= 1.0):
        raise ValueError(
            f"config.sampler.threshold.static clips to [{low:g}, {high:g}], but the data lie in [-1, 1]: widen it"
        )
    has_variance = config.network.learned_variance and not is_guided and options.threshold.name == "none"
    if isinstance(step, samplers.LearnedAncestral) and not has_variance:
        raise ValueError(
            "config.sampler.name is learned_ancestral: it needs network.learned_variance=True, no guidance and no"
            " threshold, which do not pass a variance on"
        )
    if config.network.learned_variance != bool(objective.variance_weight):
        raise ValueError(
            f"config.network.learned_variance is {config.network.learned_variance} and objective.variance_weight"
            f" {objective.variance_weight:g}: a variance is learned where both are set"
        )
    if isinstance(objective.schedule, schedules.Learned) and options.spacing.name not in ("uniform", "trailing"):
        raise ValueError(
            f"config.sampler.spacing.name is {options.spacing.name}, but a learned schedule's log-SNRs are not known"
            " beforehand: take uniform or trailing, which are spaced in t"
        )
    if isinstance(step, samplers.PredictorCorrector | samplers.AnnealedLangevin):
        noise_priors.require_regular(objective.noise_prior, config.data.num_frames, "a Langevin step")
    if objective.variance_weight and config.objective.dequantise:
        raise ValueError(
            "config.objective.dequantise is True, but the decoder of a learned variance takes pixels at 2 k/255 - 1:"
            " set it to False, or objective.variance_weight and network.learned_variance to 0 and False"
        )


def _check_batches(config: Config, mesh: Mesh | AbstractMesh) -> None:
    for key, batch_size in (
        ("data.batch_size", config.data.batch_size),
        ("evaluation.batch_size", config.evaluation.batch_size),
    ):
        if batch_size < 1:
            raise ValueError(f"config.{key} is {batch_size}; it must be at least 1")
        meshes.check_divides(mesh, batch_size=batch_size, num_frames=config.data.num_frames)


def _check_microbatches(config: Config, mesh: Mesh | AbstractMesh) -> None:
    count, ways = config.run.num_microbatches, meshes.ways(mesh, BATCH_AXES)
    if config.data.batch_size % (count * ways):
        raise ValueError(
            f"a batch of {config.data.batch_size} clips on {ways} devices cannot be done in {count} microbatches: each"
            f" needs the same number of clips on every device; set data.batch_size to a multiple of {count * ways}, or"
            " run.num_microbatches to fewer"
        )
    if count > 1 and config.schedule.name == "learned":
        raise ValueError(
            "a learned schedule is trained on the variance of the losses over the whole batch: set"
            " run.num_microbatches to 1"
        )


def _check_ranges(config: Config) -> None:
    for key, value, smallest in (
        ("run.num_steps", config.run.num_steps, 0),
        ("run.max_checkpoints", config.run.max_checkpoints, 1),
        ("run.keep_every_steps", config.run.keep_every_steps, 0),
        ("run.log_every_steps", config.run.log_every_steps, 1),
        ("run.num_grid_samples", config.run.num_grid_samples, 1),
        ("run.num_microbatches", config.run.num_microbatches, 1),
        ("run.num_workers", config.run.num_workers, 0),
        ("run.stuck_after_seconds", config.run.stuck_after_seconds, 0),
        ("evaluation.num_samples", config.evaluation.num_samples, 1),
        ("evaluation.num_validation", config.evaluation.num_validation, 0),
    ):
        if value < smallest:
            raise ValueError(f"config.{key} is {value}; it must be at least {smallest}")
    kept, saved = config.run.keep_every_steps, config.run.checkpoint_every_steps
    if kept and (saved < 1 or kept % saved):
        raise ValueError(
            f"config.run.keep_every_steps is {kept}, but checkpoints are saved every {saved} steps: make it a multiple"
        )


def _check_label_dropout(config: Config) -> None:
    dropout = config.network.label_dropout
    if dropout and not config.network.class_conditional:
        raise ValueError(
            f"config.network.label_dropout is {dropout} for a network that is told no label; "
            "set config.network.class_conditional=True or the dropout to 0"
        )
    if not 0 <= dropout <= 1:
        raise ValueError(f"config.network.label_dropout is {dropout}; it is a probability in [0, 1]")


def _check_average(config: Config) -> None:
    average = config.evaluation.average
    if average not in AVERAGES:
        raise ValueError(f"config.evaluation.average is {average!r}; it must be one of: {', '.join(AVERAGES)}")
    if average == "short" and not config.optimizer.ema_decay_short:
        raise ValueError(
            "config.evaluation.average is short, and config.optimizer.ema_decay_short 0: there is no such average; "
            "set the decay, or the average to long"
        )


def _check_counts(config: Config, splits: Splits) -> None:
    for key, count, split, name in (
        ("data.overfit", config.data.overfit, splits.train, "training"),
        ("evaluation.num_validation", config.evaluation.num_validation, splits.validation, "validation"),
    ):
        if not 0 <= count <= len(split):
            raise ValueError(f"config.{key} is {count}; the {name} split has {len(split)} clips, 0: all")


def _check_data_std(config: Config, splits: Splits) -> None:
    """The network's input has unit variance only if the config says what the data's root mean square is."""
    count = min(_MEASURED_CLIPS, len(splits.train))
    clips = np.stack([splits.train[index]["video"] for index in range(count)])
    measured = float(np.sqrt(np.mean((clips / 127.5 - 1) ** 2)))
    given = config.objective.data_std
    if not given / _DATA_STD_TOLERANCE <= measured <= given * _DATA_STD_TOLERANCE:
        raise ValueError(
            f"config.objective.data_std is {given:g}, but the data as fed have a root mean square of {measured:.3g} "
            f"(the first {count} clips, in [-1, 1]); set it to that, or no two objectives see inputs of one scale"
        )
