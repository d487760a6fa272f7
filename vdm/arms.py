"""The grid of a comparison: its arms and seeds as configs, and what can be refused before any of them is trained."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence

import jax
from etils import epath

from configs import base
from vdm import build, evaluate, traces
from vdm.measures import measures_of
from vdm.records import identity
from vdm.records.comparison import Selection
from vdm.records.record import OWN, Record
from vdm.types import Config

BUDGETS = ("steps", "flops")
# sections of the config that no arm changes
SHARED = {"data", "evaluation", "scores", "seed", "vary", "name", "compare"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the grid, or one beside it.

    Attributes:
      factor: of the arm's own learning rate, in a run that tries it.
      part: of `config.vary`, in a repeat that draws it anew.
    """

    arm: str
    seed: int
    config: Config
    folder: epath.Path
    factor: float = 1.0
    part: str = ""


def cells(config: Config, folder: epath.Path, chosen: Mapping[str, Selection] | None = None) -> Iterator[Cell]:
    """The grid, seed by seed, so that one repetition of all arms is complete as early as possible.

    Args:
      chosen: arm -> the learning rate and average that it is compared with; those of its config where it is not there.

    Raises:
      ValueError: there are no arms, or one changes what all must share or a key that the config does not have.
    """
    arms, seeds = config.compare.arms, config.compare.seeds
    if not arms or not seeds or len(set(arms)) < len(arms) or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"config.compare needs arms and seeds, each of them once; given {arms} and {seeds}. See configs/demo.py"
        )
    titles = [build.lookup(dict(config.compare.arm), name, "compare.arms").title for name in arms]
    if len(set(titles)) < len(titles):
        raise ValueError(f"the arms' titles are {titles}; each needs its own, by which the report names it")
    if config.compare.parallel < 1:
        raise ValueError(f"config.compare.parallel is {config.compare.parallel}; it must be at least 1")
    for seed, name in itertools.product(seeds, arms):
        changed = config_of(config, name, seed)
        if chosen and name in chosen:
            changed.optimizer.learning_rate = chosen[name].chosen.rate
            changed.evaluation.average = chosen[name].average
        yield Cell(name, seed, changed, folder / name / f"seed_{seed}")


def config_of(config: Config, name: str, seed: int) -> Config:
    """The config of an arm's run.

    Raises:
      ValueError: as `cells`; a budget that pays for no step.
    """
    arm = build.lookup(dict(config.compare.arm), name, "compare.arms")
    changed = config.copy_and_resolve_references()
    shared = sorted(set(arm.changes) & SHARED)
    if shared:
        raise ValueError(
            f"config.compare.arm.{name} changes {', '.join(shared)}: all arms of a comparison share "
            f"{', '.join(sorted(SHARED))}; set it for all of them, or make two comparisons"
        )
    try:
        changed.update(arm.changes)
    except (KeyError, TypeError) as error:
        raise ValueError(f"config.compare.arm.{name}.changes: {error}. configs/base.py lists every key") from error
    changed.seed = seed
    changed.name = f"{config.name}/{name}"
    if changed.run.num_steps:
        changed.run.num_steps = num_steps(changed)
    return changed


def num_steps(config: Config) -> int:
    """Of an arm that is trained, in the budget that all arms have.

    Raises:
      ValueError: the budget pays for no step.
    """
    budget = config.compare.budget
    build.lookup(dict.fromkeys(BUDGETS), budget.name, "compare.budget.name")
    if budget.name == "steps":
        return config.run.num_steps
    of_step = step_flops(config)
    if budget.flops.total < of_step:
        raise ValueError(
            f"config.compare.budget.flops.total is {budget.flops.total:g}, and a step of {config.name} takes "
            f"{of_step:.3g}; raise it"
        )
    return int(budget.flops.total / of_step)


def step_flops(config: Config) -> float:
    """FLOPs of the model in a step of an arm's run, over all devices, with nothing computed twice."""
    changed = config.copy_and_resolve_references()
    plain = base.get_config()  # what changes no count is that of base, lest an arm be traced for each of its runs
    changed.update(name="", seed=plain.seed, vary=plain.vary, run=plain.run)
    changed.optimizer.update(learning_rate=1.0)
    return _flops_of(identity.canonical_json(identity.resolve(changed)))


@functools.cache
def _flops_of(resolved: str) -> float:
    experiment = build.experiment(identity.rebuild(base.get_config(), json.loads(resolved)))
    data = traces.Data(experiment.frame_shape[-1], experiment.num_classes)
    return traces.flops_a_clip(experiment.config, data) * experiment.config.data.batch_size


def at_once(config: Config) -> int:
    """Runs at a time: one run fills an accelerator."""
    return config.compare.parallel if jax.default_backend() == "cpu" else 1


def name_of(cell: Cell, config: Config) -> str:
    """The arm's name, with the seed where there are several."""
    return cell.arm if len(config.compare.seeds) == 1 else f"{cell.arm}_seed_{cell.seed}"


def samples_of(cell: Cell) -> epath.Path:
    return evaluate.folder_of(cell.folder, cell.config.run.num_steps)


def outcomes(config: Config) -> tuple[str, ...]:
    """The metrics that give the verdict; where none are named, the share of valid clips if the data have an oracle."""
    return config.compare.outcomes or ((evaluate.VALID,) if build.oracle(config) is not None else ())


def check_lines(config: Config, measured: Collection[str]) -> None:
    """Raises ValueError for a line about a metric that will not be `measured`."""
    for name in config.compare.outcomes:
        if name not in measured:
            raise ValueError(
                f"config.compare.outcomes names {name!r}; what will be measured is: "
                f"{', '.join(measured) or 'nothing'}. config.scores asks for more"
            )
    for arm in config.compare.arms:
        about = config.compare.arm[arm]
        for name in (*about.at_least, *about.at_most):
            if name not in measured:
                raise ValueError(
                    f"config.compare.arm.{arm} draws a line for {name!r}; what will be measured is: "
                    f"{', '.join(measured) or 'nothing, these data have no oracle'}"
                )


def is_measured(cell: Cell, done: Record) -> bool:
    """Whether a run has all the metrics that its config asks for now, by its protocols."""
    found = {metric.name: identity.canonical_json(metric.protocol) for metric in done.metrics}
    wanted = evaluate.expected(build.experiment(cell.config), measures_of(cell.config))
    return all(found.get(name) == identity.canonical_json(protocol) for name, protocol in wanted.items())


def check_validation(experiment: build.Experiment) -> None:
    """Raises ValueError where the validation split has too few clips to stand beside the samples."""
    wanted = experiment.config.evaluation.num_samples if build.oracle(experiment.config) is not None else 1
    held = len(experiment.splits.validation)
    if held < wanted:
        raise ValueError(
            f"the validation split has {held} clips, and the report needs {wanted} real ones beside the samples; hold "
            "more clips out, or lower config.evaluation.num_samples"
        )


def check_samplings(experiments: Sequence[build.Experiment]) -> None:
    """Refuses arms whose scores could not be compared, before any is trained.

    Raises:
      ValueError: own samplers that take unequal numbers of network evaluations, or one of `config.scores.samplings`
        that is not the same sampler for all.
    """
    first, *others = ({OWN: one} | build.samplings(one) for one in experiments)
    for other, (name, sampled) in itertools.product(others, first.items()):
        names = sampled.config.name, other[name].config.name
        counts = sampled.sampler.num_evaluations, other[name].sampler.num_evaluations
        lines = "; ".join(identity.differences(*({"sampler": one.config.sampler} for one in (sampled, other[name]))))
        if name != OWN and lines:
            raise ValueError(
                f"config.scores.sampling.{name} is another sampler in {names[0]} than in {names[1]} ({lines}); let it "
                "give these keys too"
            )
        if counts[0] != counts[1] or (counts[0] is None and lines):
            pairs = zip(counts, names, strict=True)
            taken = " and ".join(f"{count or 'what a solver wants'} in {name}" for count, name in pairs)
            raise ValueError(
                f"the arms' own samplers take unequal numbers of network evaluations a clip, {taken}; set "
                "sampler.num_steps of the arms so that they take equally many"
            )
