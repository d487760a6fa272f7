"""What `make demo` runs, without running it."""

import pytest
from etils import epath

from configs import base, demo
from vdm import build
from vdm.arms import cells
from vdm.records import report


@pytest.fixture(scope="module")
def arms():
    grid = cells(demo.get_config(), epath.Path("nowhere"))
    return {cell.arm: build.experiment(cell.config) for cell in grid}


def test_every_arm_can_be_built(arms):
    assert list(arms) == ["ddpm", "vp_sde", "untrained"]
    assert arms["ddpm"].objective.schedule.num_steps == 1000
    assert arms["vp_sde"].objective.schedule.num_steps is None


def test_the_arms_weigh_as_the_config_says(arms):
    expected = build.WEIGHTINGS["min_snr"](0.22, gamma=20.0, power=0.5)
    assert all(arm.objective.weighting == expected for arm in arms.values())


def test_the_healthy_run_is_of_this_config():
    config = demo.get_config()
    healthy = report.read_healthy(config.compare.healthy)
    assert [step for step, _, _ in healthy.bands["train/loss"]][-1] == config.run.num_steps
    (entry,) = healthy.over_seeds
    assert (entry.first, entry.second) == (config.compare.arm.ddpm.title, config.compare.arm.vp_sde.title)


@pytest.mark.parametrize("name", build.WEIGHTINGS)
def test_every_weighting_is_built_with_the_options_of_base(name):
    config = base.get_config()
    config.objective.weighting.name = name
    config.schedule.discretise = 100 if name == "vlb" else 0  # it belongs to steps
    assert build.experiment(config).objective.weighting.name == name


def test_the_learning_rate_ends_with_the_run():
    config = demo.get_config()
    assert config.optimizer.warmup_steps + config.optimizer.decay_steps == config.run.num_steps
