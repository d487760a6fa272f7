"""Learning rates and averages: chosen by an arm's own loss on clips that nothing else sees, and the grid grows."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest
from etils import epath

from configs import entries
from tests import tiny
from vdm import arms, build, compare, effort, selection, train, validation
from vdm.records import record
from vdm.records.comparison import Selection, Tried
from vdm.runtime import random
from vdm.runtime.random import Purpose

FACTORS = (0.5, 1.0, 2.0)
NONE = record.EffectiveWeight((), ())


def config_of(**select):
    config = tiny.get_config()
    config.run.num_steps, config.data.num_selection = 2, 8
    config.optimizer.ema_decay_short = 0.5
    with config.unlocked():
        config.compare.arm.vp = entries.arm("VP-SDE", "t in (0, 1]", {})
        config.compare.arm.untrained = entries.arm("Untrained", "no step", {"run": {"num_steps": 0}})
    config.compare.arms = ("vp", "untrained")
    config.compare.select.update({"factors": FACTORS, "max_more": 0} | select)
    return config


def found(**losses):
    """By name: x1_5 is a factor of 1.5."""
    return [
        Tried(float(name[1:].replace("_", ".")), 1.0, {"long": loss} if loss else {}) for name, loss in losses.items()
    ]


@pytest.mark.feature("O20")
@pytest.mark.parametrize(
    ("losses", "more"),
    [
        ({"x0_5": 3.0, "x1": 2.0, "x2": 3.0}, None),  # the optimum is interior
        ({"x0_5": 1.0, "x1": 2.0, "x2": 3.0}, 0.25),
        ({"x0_5": 3.0, "x1": 2.0, "x2": 1.0}, 4.0),
        ({"x0_5": 3.0, "x1": 2.0, "x2": 1.5, "x4": 1.0}, 8.0),
        ({"x0_5": 3.0, "x1": 2.0, "x2": 1.5, "x4": 1.0, "x8": 0.5}, None),  # two were added: it ends there
        ({"x0_5": 3.0, "x1": 2.0, "x2": 1.0, "x4": None}, None),  # beyond it training diverges
        ({"x0_25": 0.5, "x0_5": 1.0, "x1": 2.0, "x2": None}, 0.125),
    ],
)
def test_the_grid_grows_until_the_optimum_is_interior(losses, more):
    assert selection.next_factor(found(**losses), FACTORS, 2) == more


def test_rates_that_all_diverge_are_an_error():
    with pytest.raises(ValueError, match=r"every learning rate that was tried diverged \(1, 1\)"):
        selection.next_factor(found(x1=None, x2=None), FACTORS, 2)


def test_the_lowest_loss_of_any_average_decides():
    one, two = Tried(1.0, 3e-3, {"long": 2.0, "short": 1.0}), Tried(2.0, 6e-3, {"long": 1.5, "short": 1.6})
    chosen = Selection("arm", (one, two))
    assert (chosen.chosen.rate, chosen.average, chosen.is_interior) == (3e-3, "short", False)
    assert Selection("arm", (Tried(0.5, 1e-3, {}), one, two)).is_interior
    assert Tried(1.0, 1e-3, {}).best == math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.compare.select.update(factors=(1.0, 2.0)), "give at least 3, each 2 to 3 times"),
        (lambda config: config.compare.select.update(factors=(1.0, 2.0, 8.0)), "each 2 to 3 times the one before"),
        (lambda config: config.compare.select.update(factors=(0.0, 1.0, 2.0)), "each 2 to 3 times the one before"),
        (lambda config: config.data.update(num_selection=0), "data.num_selection is 0: set clips aside"),
        (lambda config: config.compare.select.update(seed=0), "select.seed is 0, which is one of compare.seeds"),
        (lambda config: config.data.update(num_selection=16), "num_selection is 16, and the validation split has 16"),
    ],
)
def test_a_selection_that_cannot_be_is_refused_before_anything_is_trained(change, message, tmp_path):
    config = config_of()
    change(config)
    with pytest.raises(ValueError, match=message):
        compare.compare(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("selected")
    return folder, compare.compare(config_of(), folder)


@pytest.mark.feature("O20")
def test_every_trained_arm_is_compared_with_the_rate_and_average_of_the_lowest_loss(compared):
    folder, done = compared
    (chosen,) = done.selections
    assert [one.factor for one in chosen.tried] == list(FACTORS)
    losses = {(one.rate, name): loss for one in chosen.tried for name, loss in one.losses.items()}
    assert len(losses) == 6 and len(set(losses.values())) == 6, "two trials or two averages are one"
    rate, average = min(losses, key=lambda key: losses[key])
    config = done.arms[0].record.config
    assert (config["optimizer"]["learning_rate"], config["evaluation"]["average"]) == (rate, average)
    trial = record.read(folder / "vp" / "select" / "rate_x2")
    assert trial.seeds["config"] == 1_000_000 != done.arms[0].record.seeds["config"]
    assert trial.config["optimizer"]["learning_rate"] == 2 * config_of().optimizer.learning_rate
    assert not (folder / "untrained" / "select").exists()
    page = (folder / "report.html").read_text()
    assert ("Learning rates" in page and f"{rate:.3g}, the last" in page) or chosen.is_interior
    assert (
        f"| VP-SDE | {rate:.3g} | {'yes' if chosen.is_interior else 'NO'} | {average} |"
        in (folder / "report.md").read_text()
    )


def test_what_was_tried_is_not_tried_again(compared, monkeypatch):
    folder, before = compared
    monkeypatch.setattr(train, "train", None)  # calling it would fail
    again = compare.compare(config_of(), folder)
    assert again.selections == before.selections and again.arms[0].record == before.arms[0].record


def test_what_was_chosen_elsewhere_is_not_tried(tmp_path, monkeypatch):
    """The rate and average of another comparison, in a folder that holds no trial."""
    monkeypatch.setattr(selection, "run", None)  # calling it would fail
    chosen = Selection("VP-SDE", (Tried(3.0, 3e-4, {"long": 2.0, "short": 1.0}),))
    done = compare.compare(config_of(), tmp_path, {"vp": chosen})
    config = done.arms[0].record.config
    assert (config["optimizer"]["learning_rate"], config["evaluation"]["average"]) == (3e-4, "short")
    assert done.selections == (chosen,) and not (tmp_path / "vp" / "select").exists()


@pytest.mark.feature("O20")
def test_a_rate_that_diverges_loses_and_is_not_trained_again(tmp_path, monkeypatch):
    (cell,) = selection.trials(config_of(), epath.Path(tmp_path), "vp", [1e33])
    assert selection.run(cell) is not None
    assert selection.tried(cell) == Tried(1e33, cell.config.optimizer.learning_rate, {})
    assert (cell.folder / "failure.json").exists()
    monkeypatch.setattr(train, "train", None)  # calling it would fail
    assert selection.run(cell) is not None


def test_a_third_is_the_end_that_was_asked_for():
    """Its folder's name has six digits of it, and 0.333333 is less."""
    factors = (1 / 3, 1.0, 3.0)
    cells = list(selection.trials(config_of(factors=factors), epath.Path("nowhere"), "vp", factors))
    found = [Tried(cell.factor, 1.0, {"long": cell.factor}) for cell in cells]
    assert selection.next_factor(found, factors, 1) == pytest.approx(1 / 9)
    selection.check(config_of(factors=(0.7, 2.1, 6.3)))  # 2.1 / 0.7 is a little more than 3


def test_clips_that_are_set_aside_are_seen_by_no_other_number():
    """The clips that are left are those of a split without the others, so all that is measured must be equal."""
    whole, short = config_of(), tiny.get_config()
    short.data.moving_shapes.num_validation = 8
    losses = []
    for config in (whole, short):
        experiment = build.experiment(config)
        params = experiment.init(random.key(0, Purpose.INIT))
        losses.append(validation.make_validation(experiment)(params))
        assert len(experiment.splits.validation) == 8
    assert losses[0] == losses[1]


@pytest.mark.feature("O20")
def test_the_own_loss_is_that_of_training_over_all_levels():
    """A network that gives zero has the mean square of its target: of v, alpha^2 + sigma^2 E[x0^2]."""
    config = config_of()
    config.objective.target, config.objective.weighting.name = "v", "unit"
    experiment = build.experiment(config)
    source = experiment.splits.selection
    params = jax.tree.map(np.zeros_like, experiment.init(random.key(0, Purpose.INIT)))
    found = validation.make_own_loss(experiment, source, 64)(params)
    power = np.mean([(source[i]["video"] / 127.5 - 1) ** 2 for i in range(len(source))])
    t = 1 - (1 - 1e-3) * (np.arange(10_000) + 0.5) / 10_000  # uniform in (0.001, 1]
    log_alpha = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1  # Song et al. 2021, equation 33
    alpha_squared = np.exp(2 * log_alpha)
    assert found == pytest.approx(np.mean(alpha_squared + (1 - alpha_squared) * power), rel=0.01)


@pytest.mark.feature("O20")
def test_arms_of_one_budget_spend_the_same_flops():
    config = config_of(factors=())
    with config.unlocked():
        config.compare.arm.wide = entries.arm("Wide", "", {"network": {"unet3d": {"channels": 16}}})
    config.compare.arms = ("vp", "wide")
    of_step = {name: arms.step_flops(arms.config_of(config, name, 0)) for name in config.compare.arms}
    assert of_step["wide"] > 2 * of_step["vp"]
    config.compare.budget.name, config.compare.budget.flops.total = "flops", 20.5 * of_step["wide"]
    steps = {name: arms.config_of(config, name, 0).run.num_steps for name in config.compare.arms}
    assert steps["wide"] == 20
    for name, count in steps.items():
        assert 0 <= config.compare.budget.flops.total - count * of_step[name] < of_step[name]
    config.compare.budget.flops.total = 0.5 * of_step["wide"]
    with pytest.raises(ValueError, match=r"budget.flops.total is .*, and a step of tiny/wide takes .*; raise it"):
        arms.config_of(config, "wide", 0)
    config.compare.budget.name = "hours"
    with pytest.raises(ValueError, match=r"budget\.name is 'hours'; it must be one of: steps, flops"):
        arms.config_of(config, "wide", 0)


def test_it_is_said_beforehand_how_much_it_will_be(compared):
    folder, done = compared
    flops = {"vp": 3e6, "untrained": 3e6}
    plan = compare.checked(config_of(), epath.Path(folder / "nowhere"))
    assert len(plan) == 3 + 2  # trials, and the grid
    said = "5 runs or more, 2.4e+07 FLOPs of the model, of which 0 are done: about 0.013 hours to go of training, by 3 "
    # four runs that compile for 10 s, and 8 steps of 1 s
    timed = next(cell for cell in plan if cell.arm == "vp"), effort.Timed(10.0, 1.0)
    assert effort.words(plan, flops, timed) == said + "steps of vp timed now; evaluation comes on top"
    dear = flops | {"untrained": 3e9}  # which takes no step
    assert effort.words(plan, dear, timed) == effort.words(plan, flops, timed)
    config = config_of()
    config.compare.parallel = 4
    at_once = compare.checked(config, epath.Path(folder / "nowhere"))
    assert "about 0.0033 hours" in effort.words(at_once, flops, timed)
    # where all trials and the arm are done, nothing is left
    assert "of which 2.4e+07 are done: about 0 hours" in effort.words(
        compare.checked(config_of(), epath.Path(folder)), flops
    )
    config = config_of(factors=())
    config.compare.vary.update(parts=("init", "sample"), repeats=2)
    plan = compare.checked(config, epath.Path(folder / "nowhere"))
    assert effort.words(plan, flops).startswith("4 runs, 1.8e+07 FLOPs")  # another draw of samples trains nothing
    # a third of it done, the rest takes twice as long
    third = next(cell for cell in plan if cell.arm == "vp" and cell.folder.name == "seed_0")
    third.folder.mkdir(parents=True)
    record.write(third.folder, done.arms[0].record)
    hours = float(effort.words(plan, flops).split("about ")[1].split()[0])
    assert hours == pytest.approx(2 * sum(done.arms[0].record.timings.values()) / 3600, rel=0.06)


@pytest.mark.feature("O20")
@pytest.mark.parametrize("parallel", [1, 2])
def test_hours_are_said_before_the_first_run_and_anew_after_it(tmp_path, capsys, monkeypatch, parallel):
    """Of one arm alone, whose trials here do nothing but leave the record of a run of an hour or two."""
    config = config_of()
    config.compare.parallel = parallel

    def run_all(cells, run, after_first):
        *_, told = capsys.readouterr().out.splitlines()
        assert "4 runs or more, " in told and "hours to go of training, by 3 steps of vp timed now" in told
        assert 0 < float(told.split("about ")[1].split()[0]) < 1
        done = record.begin(
            cells[0].config, mesh={}, data_fingerprint="", seeds={}, num_parameters=0, effective_weight=NONE
        )
        record.write(cells[0].folder, dataclasses.replace(done, num_steps=2, timings={"train": 3600.0 * parallel}))
        after_first()
        return False

    monkeypatch.setattr(compare, "run_all", run_all)
    assert not compare.run_arm(config, tmp_path, "vp")
    assert capsys.readouterr().out.endswith(" are done: about 3 hours to go\n")
