"""The studies of objectives are what they say, and their tables say what the records hold."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from scipy.special import logsumexp
from scipy.stats import norm

from data.sources import moving_shapes
from data.sources.simulated import Simulated
from experiments.objectives import entropy, figures, gradients, grid, tables
from tests import tiny
from vdm import arms, build, compare, steps
from vdm.diffusion import objectives, schedules
from vdm.runtime import mesh as meshes

LOG_SNRS = np.linspace(-7.5, 8.5, 33)


def models_of(study, names=None):
    config = grid.get_config(study)
    cells = [cell for cell in arms.cells(config, epath.Path("x")) if not cell.seed and cell.arm in (names or cell.arm)]
    mesh = meshes.make_mesh()
    return {cell.arm: build.model(cell.config, mesh, num_channels=3, num_classes=None) for cell in cells}


@pytest.mark.slow
@pytest.mark.parametrize("study", list(grid.STUDIES))
def test_nothing_is_left_to_be_refused_later(study, tmp_path):
    """All arms, their samplers and their scores, before any is trained."""
    config = grid.get_config(study)
    assert {cell.arm for cell in compare.checked(config, epath.Path(tmp_path))} == set(config.compare.arms)


def test_a_study_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="there are: factorial, density, presets, floor"):
        grid.get_config("nothing")


@pytest.mark.feature("O20")
def test_the_factorial_is_of_targets_and_weights_and_nothing_else():
    """Effective weights by their formulas, whatever is predicted; levels of one density."""
    cells = [("noise", name) for name in grid.WEIGHTS] + [("x0", "min_snr"), ("v", "edm")]
    made = models_of("factorial", [f"{target}_{name}" for target, name in cells])
    data_std = grid.get_config("factorial").objective.data_std
    formulas = {
        "uniform": np.ones_like(LOG_SNRS),
        "exponential": np.exp(-LOG_SNRS / 2),
        "min_snr": np.minimum(1.0, 5.0 * np.exp(-LOG_SNRS)),
        "edm": norm.pdf(LOG_SNRS, 2.4, 2.4) * (1.0 + np.exp(-LOG_SNRS) / data_std**2),
    }
    row, uniform = jnp.arange(64), jnp.full(64, 0.3)
    for target, name in cells:
        model, formula = made[f"{target}_{name}"], formulas[name]
        objective = model.objective
        assert objective.target.name == target
        found = np.asarray(objectives.effective_weight(objective, jnp.asarray(LOG_SNRS, jnp.float32)))
        np.testing.assert_allclose(found / found.sum(), formula / formula.sum(), rtol=2e-3)
        u, _ = model.proposal.draw(model.proposal.first(), uniform, row)
        log_snr = schedules.log_snr(objective.schedule, objective.times.time(objective.schedule, u))
        apart = np.diff(np.sort(np.asarray(log_snr))) * 64 / (grid.RANGE[1] - grid.RANGE[0])
        np.testing.assert_allclose(apart, 1.0, atol=0.15)


@pytest.mark.feature("O17", "O20")
def test_densities_share_their_weight():
    made = models_of("density")
    weights = [np.asarray(objectives.effective_weight(one.objective, jnp.asarray(LOG_SNRS))) for one in made.values()]
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])
    drawn = {}
    for name, experiment in made.items():
        row, uniform = jnp.arange(4096), jnp.full(4096, 0.3)
        drawn[name], importance = experiment.proposal.draw(experiment.proposal.first(), uniform, row)
        assert float(jnp.mean(importance)) == pytest.approx(1.0, rel=0.02)
    assert float(jnp.std(drawn["log_normal"])) < 0.8 * float(jnp.std(drawn["uniform"]))


def test_a_clip_costs_what_the_sum_over_all_its_causes_gives():
    """A world small and noisy enough to sum over every object and a fine grid of every start."""
    world = moving_shapes.World(2, 6, 6, ("disk",), ("white",), 2, radius=2.0, background=0.4, noise=0.06)
    source = Simulated(world, "validation", 3, seed=3)
    found = entropy.bits_per_dim(source, 3)
    starts = 2.0 + 2.0 * (np.arange(120) + 0.5) / 120
    std = world.noise * 127.5
    for index in range(3):
        video, state = source[index]["video"].astype(float), source.state(index)
        log_prob = []
        for direction in range(2):
            like = dataclasses.replace(state, direction=direction)
            clips = np.array([[entropy.clean(world, like, np.array([x, y])) for y in starts] for x in starts])
            log_prob.append((norm.logpdf((video - clips) / std) - np.log(std)).sum((-1, -2, -3, -4)))
        bits = -(logsumexp(log_prob) - math.log(np.size(log_prob))) / math.log(2) / video.size
        assert found[index] == pytest.approx(bits, abs=2e-4)


def test_a_clean_clip_is_the_sources_own():
    world = moving_shapes.World(8, 12, 12, background=0.0)
    source = Simulated(world, "train", 32)
    for index in range(32):
        state = source.state(index)
        levels = entropy.clean(world, state, state.position[0])
        assert np.abs(levels - source[index]["video"]).max() < 0.51  # rounding


def planted(seeds, value):
    """A record with a value for (arm, seed, metric)."""
    config = grid.get_config("factorial")
    runs = []
    for seed in seeds:
        for name in config.compare.arms:
            title = config.compare.arm[name].title
            metrics = [
                {"name": metric, "value": value(title, seed, metric), "low": 0.0, "high": 1.0, "unit": unit}
                for metric, unit in ((tables.VALID, "%"), (tables.BITS, ""))
            ]
            runs.append({"arm": title, "seed": seed, "metrics": metrics, "num_steps": 1, "flops": 1e9})
            runs[-1]["timings"] = {"train": 60.0 * (1 + seed)}
    environment = {"num_cpus": 2, "versions": {"jax": "0"}, "code": {"commit": "0123456789abcdef"}}
    return {"runs": runs, "seeds_asked_for": [0, 1, 2], "environment": environment}


def test_main_effects_are_those_that_were_planted():
    """x0 has 10 points more than the others, whatever the weight; a weight moves bits/dim by its place."""
    rng = np.random.default_rng(0)
    weights = [title for title, _ in grid.WEIGHTS.values()]

    def value(title, seed, metric):
        target, weight = title.split(", ")
        chance = 1e-3 * rng.normal()
        effect = 0.1 * (target == "x0") if metric == tables.VALID else 0.2 * weights.index(weight)
        return 0.3 + 0.05 * seed + effect + chance

    record = planted((0, 1, 2), value)
    found = {(one.metric, one.first, one.second): one for one in tables.main_effects(record)}
    assert found[tables.VALID, "noise", "x0"].difference.estimate == pytest.approx(-0.1, abs=3e-3)
    assert found[tables.VALID, "noise", "v"].verdict == "not separated"
    assert found[tables.BITS, "w = 1", "w = EDM"].difference.estimate == pytest.approx(-0.6, abs=3e-3)
    assert found[tables.BITS, "w = 1", "w = EDM"].verdict == "separated"
    lines = tables.factorial(record).splitlines()
    assert any(line.startswith("| x0 | 45.") for line in lines)
    assert any("12 runs" in line or "3 of 3 seeds" in line for line in lines)


def test_the_excess_is_above_the_best_arm_where_an_arm_was_trained():
    def run(arm, seed, points):
        return {"arm": arm, "seed": seed, "bits_per_log_snr": points}

    runs = [run("a", 0, [[0.0, 1.0], [1.0, 5.0]]), run("a", 1, [[0.0, 3.0], [1.0, 5.0]]), run("b", 0, [[1.0, 4.0]])]
    found = figures.excess({"runs": runs})
    np.testing.assert_allclose(np.array(found["a"]), [[0.0, 1.0], [-1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(np.array(found["b"])[:, 0], [1.0, 0.0, 0.0, 0.0])


def test_the_pages_are_of_the_records_alone(monkeypatch, tmp_path):
    for name in ("PAGE", "FRONT_PAGE"):
        page = tmp_path / name
        blocks = (*grid.STUDIES, "objectives")
        page.write_text("\n".join(f"<!-- {block}:begin -->\n\n<!-- {block}:end -->" for block in blocks))
        monkeypatch.setattr(tables, name, page)
    made = tables.pages({"factorial": planted((0,), lambda title, seed, metric: 0.25)})
    assert made[tmp_path / "PAGE"].count(tables.MISSING) == 3
    assert "| noise | 25.0 | 25.0 | 25.0 | 25.0 |" in made[tmp_path / "PAGE"]
    assert "1 of 3 seeds" in made[tmp_path / "PAGE"]


def test_the_gradient_is_that_of_the_step():
    """Of the batch that comes next, levels as the proposal draws them."""
    config = tiny.get_config()
    config.objective.proposal.name = "measure"
    config.objective.proposal.measure.times.name = "log_normal_sigma"
    experiment = build.experiment(config)
    state = experiment.first_state()
    batch = next(batches := steps.device_batches(experiment, 0))
    batches.close()
    gradient = gradients.make_gradient(experiment, state)
    found = float(jnp.linalg.norm(gradient(0, batch)))
    other = float(jnp.linalg.norm(gradient(1, batch)))
    _, window = steps.make_step(experiment)(state, steps.make_window(experiment.mesh)(), batch)
    assert found == pytest.approx(float(window.gradient_norm), rel=1e-5)
    assert other != pytest.approx(found, rel=1e-3), "the next step has levels of its own"
