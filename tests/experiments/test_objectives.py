"""The studies of objectives are what they say, and their tables say what the records hold."""

import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from scipy.special import logsumexp
from scipy.stats import norm

from configs import entries
from data.sources import moving_shapes
from data.sources.simulated import Simulated
from experiments.objectives import __main__ as study
from experiments.objectives import entropy, figures, gradients, grid, records, tables
from tests import tiny
from tests.records import examples
from vdm import arms, build, compare, sample, steps, train
from vdm.diffusion import objectives, schedules
from vdm.records import comparison, identity, record, schema
from vdm.runtime import mesh as meshes

LOG_SNRS = np.linspace(-7.5, 8.5, 33)


def models_of(study, names=None):
    config = grid.get_config(study)
    cells = [cell for cell in arms.cells(config, epath.Path("x")) if not cell.seed]
    cells = [cell for cell in cells if names is None or cell.arm in names]
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


@pytest.mark.parametrize("study", ["factorial", "density"])
def test_arms_differ_in_what_is_asked_and_in_nothing_else(study):
    config = grid.get_config(study)
    cells = [cell.config for cell in arms.cells(config, epath.Path("x")) if not cell.seed]
    differing = {key.split(".")[1] for key in identity.differing_keys(cells) if key != "name"}
    asked = {"factorial": {"target", "weighting", "times", "proposal"}, "density": {"proposal"}}[study]
    assert differing == asked
    assert len(cells) == {"factorial": 12, "density": 3}[study]


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
    world = moving_shapes.World(2, 6, 6, ("disk", "square"), ("white",), 2, radius=2.0, background=0.4, noise=0.06)
    source = Simulated(world, "validation", 3, seed=3)
    found = entropy.bits_per_dim(source, 3)
    starts = 2.0 + 2.0 * (np.arange(120) + 0.5) / 120
    std = world.noise * 127.5
    for index in range(3):
        video, state = source[index]["video"].astype(float), source.state(index)
        log_prob = []
        for shape, direction in itertools.product(range(2), range(2)):
            like = dataclasses.replace(state, shape=shape, direction=direction)
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
            runs[-1]["environment"] = len(runs) % 2
            runs[-1]["num_parameters"] = 7
            runs[-1]["timings"] = {"train": 60.0 * (1 + seed), "evaluate": 30.0}
    environment = {"num_cpus": 2, "versions": {"jax": "0"}, "code": {"commit": "0123456789abcdef"}}
    environments = [environment | {"affinity": [core]} for core in (0, 1)]
    return {"runs": runs, "seeds_asked_for": [0, 1, 2], "environments": environments}


def test_main_effects_are_those_that_were_planted():
    """x0 has 10 points more than the others, whatever the weight; a weight moves bits/dim by its place."""
    rng = np.random.default_rng(0)
    weights = [title for title, _ in grid.WEIGHTS.values()]

    def value(title, seed, metric):
        target, weight = title.split(", ")
        chance = 1e-3 * rng.normal()
        effect = 0.1 * (target == "x0") if metric == tables.VALID else 0.2 * weights.index(weight)
        return 0.3 + 0.05 * seed + effect + chance

    made = planted((0, 1, 2), value)
    found = {(one.metric, one.first, one.second): one for one in tables.main_effects(made)}
    assert found[tables.VALID, "noise", "x0"].difference.estimate == pytest.approx(-0.1, abs=3e-3)
    assert found[tables.VALID, "noise", "v"].verdict == "not separated"
    assert found[tables.BITS, "w = 1", "w = EDM"].difference.estimate == pytest.approx(-0.6, abs=3e-3)
    assert found[tables.BITS, "w = 1", "w = EDM"].verdict == "separated"
    lines = tables.factorial(made).splitlines()
    assert any(line.startswith("| x0 | 45.") for line in lines)
    assert any(
        "3 of 3 seeds" in line and "2.0 minutes of training (the longest 3.0) and 0.5 of" in line for line in lines
    )
    assert any("p, by which a pair is separated or not, is corrected for all 18." in line for line in lines)
    assert any("2 CPU cores, one for each of two runs at a time" in line for line in lines)
    made["environments"] = made["environments"][:1] * 2
    assert "2 CPU cores, the runs of a seed on the same one of them" in tables.factorial(made)


def a_seed(seed, titles, rate=1e-3):
    """One seed of all arms as a comparison leaves them, with made numbers."""
    made = []
    for index, title in enumerate(titles):
        done = examples.a_record(index % 2)
        levels = {record.PER_LOG_SNR: ((-2.0, 0.1 + index), (0.0, 0.2 + 0.01 * seed))}
        curves = {f"{records.ERROR}log_snr {level}": ((500, level + 1.0), (1000, 0.5)) for level in (0, 2)}
        scores = [(name, 0.1 * index + 0.01 * seed, "%") for name in ("valid clips", *COMMON)]
        scores += [(name, 4.0 + index * (1 + 1e-3 * seed) + 0.1 * seed, "") for name in BOUNDS]
        metrics = [
            record.Metric(name, value, value, value, unit, True, {"of": name, "seed": seed})
            for name, value, unit in scores
        ]
        done = dataclasses.replace(done, level_losses=levels, curves=curves, metrics=tuple(metrics))
        done = dataclasses.replace(done, seeds={"config": seed})
        (start,) = done.starts
        code = dataclasses.replace(start.environment.code, commit=f"{seed}" * 40)
        start = dataclasses.replace(start, environment=dataclasses.replace(start.environment, code=code))
        done = dataclasses.replace(done, starts=(start,))
        made.append(comparison.Arm(f"{title}_{seed}", title, "", done, examples.clips(2, 1), 1e9, title))
    tried = tuple(comparison.Tried(factor, rate * factor, {"long": abs(factor - 1)}) for factor in (0.5, 1.0, 2.0))
    return comparison.Report(
        title="",
        question="",
        command="",
        arms=tuple(made),
        real=examples.clips(2, 9),
        selections=tuple(comparison.Selection(title, tried) for title in titles),
    )


COMMON = tuple(f"valid clips, common_{count}" for count in grid.EVALUATIONS)
BOUNDS = ("bits/dim (bound)", "bits/dim (flow)")


def test_the_worth_of_pairing_is_the_arms_correlation():
    """The outcome rises and falls with the seed in all arms, or in one of three the other way round."""
    together = {"a": [1.0, 2.0, 4.0], "b": [2.0, 3.0, 5.0], "c": [1.0, 2.0, 4.0]}
    apart = together | {"a": [-1.0, -2.0, -4.0]}
    pairs = [*comparison.paired(tables.VALID, together, "%"), *comparison.paired(tables.BITS, apart, "")]
    (line,) = tables.worth_of_pairing(pairs)
    assert f"by 1.00 in {tables.VALID} and -1.00 in {tables.BITS}" in line
    few = [*comparison.paired(tables.VALID, {"a": [1.0, 2.0], "b": [2.0, 1.0]}, "%")]
    assert not list(tables.worth_of_pairing(few)) and not list(tables.worth_of_pairing(()))


@pytest.fixture(scope="module")
def recorded():
    """What is kept of two seeds of two arms."""
    first, second = (a_seed(seed, ("Continuous", "Discrete")) for seed in (0, 1))
    kept = records.joined(records.joined({}, first), second) | {"seeds_asked_for": [0, 1, 2]}
    return json.loads(schema.dumps(kept, "x"))


def test_a_report_is_kept_and_told(recorded):
    lines = tables.presets(recorded).splitlines()
    (row,) = (line for line in lines if line.startswith("| Discrete |"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1] == "0.001, long" and cells[2].startswith("10.5 (") and cells[8].startswith("5.050 (")
    assert cells[-2:] == ["all", "none"], "ten points in both seeds say nothing; 1.000 and 1.001 bits do"
    assert any(f"commit {'0' * 12}, {'1' * 12}." in line for line in lines)
    assert any("2 of 3 seeds of 412,345 parameters" in line for line in lines)
    assert recorded["runs"][0]["noise_error"] == [[500, 2.0], [1000, 0.5]]
    for points in recorded["weights"].values():
        log_snr, weight = np.array(points).T
        assert np.trapezoid(weight, log_snr) == pytest.approx(1.0)
        assert grid.RANGE[0] <= log_snr.min() < -7 and 8 < log_snr.max() <= grid.RANGE[1]


def test_an_arm_has_one_colour_in_the_figure(recorded):
    above, below = figures.panels(recorded).axes
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in (above, below)]
    assert colours[0] == colours[1] and len(set(colours[0].values())) == 2


def test_a_study_goes_on_from_its_record_alone(monkeypatch, tmp_path):
    """Two arms' rates at a time, then seed by seed with these; no work directory is needed."""
    titles = [title for title, _ in grid.PRESETS.values()]
    tried, asked = [], []

    def select(config, folder, chosen):
        tried.append(config.compare.arms)
        if len(tried) == 3:
            return None
        of_title = {
            one.arm: one for one in a_seed(0, [config.compare.arm[name].title for name in tried[-1]]).selections
        }
        return {name: of_title[config.compare.arm[name].title] for name in tried[-1]}

    def compared(config, folder, chosen):
        (seed,) = config.compare.seeds
        asked.append((seed, chosen))
        asked_for = [config.compare.arm[name].title for name in config.compare.arms]
        return a_seed(seed, asked_for) if seed < stop_at else None

    monkeypatch.setattr(records, "HERE", tmp_path)
    monkeypatch.setattr(study.compare, "compare", compared)
    monkeypatch.setattr(study.compare, "checked", lambda *given: [])
    monkeypatch.setattr(study.compare, "select", select)
    monkeypatch.setattr(study.command, "draw", lambda *pages: None)
    stop_at = 2
    assert not study.compute("presets"), "stopped while rates are tried"
    assert "presets" not in records.complete()
    assert list(records.missing("presets")) == [0, 1, 2, 3, 4]
    assert not study.compute("presets"), "stopped"
    assert list(records.missing("presets")) == [2, 3, 4]
    stop_at = 5
    assert study.compute("presets")
    assert [seed for seed, _ in asked] == [0, 1, 2, 2, 3, 4]
    names = list(grid.PRESETS)
    assert [list(arms) for arms in tried] == [names[:2], names[2:4], names[4:6], names[4:6], names[6:]]
    for _, chosen in asked:
        assert list(chosen) == list(grid.PRESETS)
        assert all((one.chosen.rate, one.average, one.is_interior) == (1e-3, "long", True) for one in chosen.values())
    found = records.kept("presets")
    assert tables.seeds(found) == [0, 1, 2, 3, 4] and len(found["runs"]) == 5 * len(titles)
    for run in found["runs"]:
        assert found["environments"][run["environment"]]["code"]["commit"] == f"{run['seed']}" * 40
        for metric in run["metrics"]:
            assert found["protocols"][metric["protocol"]] == {"of": metric["name"], "seed": run["seed"]}


def test_what_an_arm_was_recorded_with_is_no_longer_so(monkeypatch, tmp_path):
    """Another setting of one arm: it is missing, the others are kept, and no table is of a seed that it lacks."""
    titles = [title for title, _ in grid.PRESETS.values()]
    monkeypatch.setattr(records, "HERE", tmp_path)
    for seed in (0, 1):
        records.write("presets", a_seed(seed, titles), {})
    changed = records.keys("presets") | {"EDM": "another"}
    monkeypatch.setattr(records, "keys", lambda study: changed)
    assert records.missing("presets") == {0: ["edm"], 1: ["edm"]} | {seed: list(grid.PRESETS) for seed in (2, 3, 4)}
    assert set(records.chosen("presets")) == set(grid.PRESETS) - {"edm"}
    records.write("presets", a_seed(1, ["EDM"], rate=2e-3), {})
    assert list(records.missing("presets")[0]) == ["edm"] and 1 not in records.missing("presets")
    assert records.chosen("presets")["edm"].chosen.rate == 2e-3
    found = records.complete()["presets"]
    assert tables.seeds(found) == [1] and tables.arms(found) == titles


@pytest.mark.slow
def test_what_is_recorded_is_of_the_studies_as_they_stand_in_the_grid():
    for name, found in records.records().items():
        assert found["keys"] == records.keys(name), name


def test_a_key_is_of_what_an_arm_does_and_of_what_is_measured(monkeypatch):
    before = records.keys("floor")
    config_of = grid.get_config

    def key_of(change):
        def changed(study):
            config = config_of(study)
            change(config)
            return config

        monkeypatch.setattr(grid, "get_config", changed)
        return records.keys.__wrapped__("floor")

    assert key_of(lambda config: None) == before
    assert key_of(lambda config: config.scores.update(num_samples=77)) == before, "no score of it is asked for"
    for change in (
        lambda config: config.scores.update(num_likelihood=77),
        lambda config: config.scores.chain.update(variance_interpolation=0.5),
        lambda config: config.optimizer.update(decay_steps=7),
        lambda config: config.compare.select.update(factors=(0.5, 1.0, 2.0)),
    ):
        assert all(key_of(change)[title] != key for title, key in before.items())


def test_the_floor_is_measured_once(monkeypatch, tmp_path):
    """Also where rates were chosen and recorded before anything was measured."""
    report = a_seed(0, ["DDPM, L_simple", "DDPM, L_vlb"])
    monkeypatch.setattr(records, "HERE", tmp_path)
    monkeypatch.setattr(entropy, "bits_per_dim", lambda source, count: np.array([4.0, 5.0]))
    records.write_chosen("floor", report.selections)
    assert study.floor(grid.get_config("floor"), []) == {"floor": 4.5}
    records.write("floor", report, {"floor": 4.7})
    assert study.floor(grid.get_config("floor"), []) == {"floor": 4.7}


def rows_of(text):
    """Of the tables of a page, by their cells."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


def test_routes_are_told_and_compared(recorded):
    """The discrete bound is 0.1 above the others; the second objective 1.00 and, in seed 1, 1.01 above the first."""

    def metrics(run):
        of_arm = (1.0 + 0.01 * run["seed"]) * (run["arm"] == "Discrete")
        above = dict(zip(tables.ROUTES, (0.1, 0.0, 0.0), strict=True))
        whole = {name: 4.8 + of_arm + more + 1e-4 * run["seed"] * more for name, more in above.items()}
        return [
            {"name": name, "value": value, "low": value, "high": value, "unit": ""} for name, value in whole.items()
        ]

    runs = [run | {"metrics": metrics(run)} for run in recorded["runs"]]
    told = tables.floor(recorded | {"runs": runs, "floor": 4.75})
    rows = rows_of(told)
    assert sum(row[2] == "4.800 (all equal)" and row[4].startswith("+0.050") for row in rows) == 2
    found = {tuple(row[:3]): row for row in rows if row[-1].endswith("separated")}
    assert len(found) == 2 * 3 + 3 and "corrected for all 9." in told
    assert found["Discrete", "discrete bound", "flow"][3].startswith("+0.1000 (")
    assert found["Discrete", "discrete bound", "flow"][-1] == "separated"
    assert found["Continuous", "continuous bound", "flow"][-1] == "not separated"
    assert found["flow", "Continuous", "Discrete"][3].startswith("-1.0050 (")


def test_densities_are_told_and_compared_by_what_was_declared(recorded):
    even = grid.DENSITIES[grid.EVEN][0]
    errors = {0: ((500, 0.1), (1000, 0.05)), 1: ((500, 0.1002), (1000, 0.0502))}

    def changed(run):
        is_even = run["arm"] == "Continuous"
        error = [(step, value + (0.0 if is_even else 0.02 + 1e-5 * run["seed"])) for step, value in errors[run["seed"]]]
        return run | {"arm": even if is_even else "other", "noise_error": error}

    variances = {str(seed): {even: 2.0, "other": 1.0 + 0.01 * seed} for seed in (0, 1, 2)}  # seed 2 lacks a run
    made = recorded | {"runs": [changed(run) for run in recorded["runs"]], "gradient_variance": variances}
    rows = rows_of(tables.density(made))
    (other,) = (row for row in rows if row[0] == "other")
    assert other[1].startswith("0.50 (") and other[2].startswith("0.1201 (")
    pairs = {row[0]: row for row in rows if row[1:3] == [even, "other"]}
    assert list(pairs) == list(grid.OUTCOMES["density"][:3]), "and no other outcome"
    assert pairs[grid.VARIANCE][3].startswith("+0.4975 (")
    assert pairs["noise error, step 1000"][3].startswith("-0.0200 (")
    assert {row[-1] for row in pairs.values()} == {"separated"}


def test_what_the_page_says_of_perfect_networks_is_so():
    """On Gaussian pixels of the sensor's standard deviation every posterior is known: a network that gives its mean
    loses in a step of the chain what the step's variance is wrong by, and in the last one what its Gaussian of the
    level's own variance is too wide by.
    """
    page = tables.PAGE.read_text()
    variance = grid.SENSOR_NOISE**2
    chain, ve = (
        models_of(study_name, (name,))[name].objective
        for study_name, name in (("floor", "ddpm"), ("presets", "ve_sde"))
    )

    def last_step(log_snr):
        share = variance / (variance + math.exp(-log_snr))  # of the level's variance, what the posterior has
        return (share - 1.0 - math.log(share)) / 2 / math.log(2)

    cleanest = schedules.log_snr(ve.schedule, jnp.array(ve.times.ends(ve.schedule)[0]))
    told = {"last step would cost": last_step(grid.RANGE[1]), "where it costs": last_step(float(cleanest))}
    steps = jnp.arange(1, chain.schedule.num_steps + 1) / chain.schedule.num_steps
    log_snr = np.asarray(schedules.log_snr(chain.schedule, steps), np.float64)
    alpha2, sigma2 = 1 / (1 + np.exp(-log_snr)), 1 / (1 + np.exp(log_snr))
    upper = sigma2[1:] - alpha2[1:] / alpha2[:-1] * sigma2[:-1]
    lower = upper * sigma2[:-1] / sigma2[1:]
    left = variance * sigma2 / (variance * alpha2 + sigma2)  # of x0, given x_t
    true = lower + alpha2[:-1] * (upper / sigma2[1:]) ** 2 * left[1:]
    for words, taken in (("that costs", upper), ("the lower one", lower)):
        steps_lose = (true / taken - 1.0 - np.log(true / taken)).sum() / 2
        told[words] = steps_lose / math.log(2) + last_step(log_snr[0])
    for words, bits in told.items():
        assert f"{words} {bits:.3f}" in page.replace("\n", " "), words


def test_what_is_declared_is_what_the_studies_and_their_tables_compare():
    for study_name, outcomes in grid.OUTCOMES.items():
        config = grid.get_config(study_name)
        asked = set(config.compare.outcomes)
        assert asked == set(outcomes if study_name != "density" else grid.SCORES)
    steps = range(config.run.validate_every_steps, config.run.num_steps + 1, config.run.validate_every_steps)
    assert grid.OUTCOMES["density"] == (grid.VARIANCE, *(f"noise error, step {step}" for step in steps))
    found = records.complete()
    compared = {"factorial": tables.main_effects, "presets": tables.over_seeds}
    for study_name, pairs in compared.items():
        assert {one.metric for one in pairs(found[study_name])} == set(grid.OUTCOMES[study_name])
    assert set(tables.of_densities(found["density"])) == set(grid.OUTCOMES["density"])
    assert set(tables.ROUTES) == set(grid.OUTCOMES["floor"])


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


def test_the_variance_of_the_gradient_is_taken_at_one_network_for_all_arms(monkeypatch, tmp_path):
    """Over the batches that would have come next, each arm with what its own proposal remembers."""
    config = tiny.get_config()
    config.run.num_steps = 2
    with config.unlocked():
        config.compare.arm[grid.EVEN] = entries.arm("even", "", {})
        config.compare.arm.adaptive = entries.arm("adaptive", "", {"objective": {"proposal": {"name": "loss_aware"}}})
    config.compare.arms, config.compare.seeds = (grid.EVEN, "adaptive"), (3,)
    cells = list(arms.cells(config, epath.Path(tmp_path)))
    for cell in cells:
        train.train(cell.config, cell.folder)
    _, trained, _ = sample.restore(cells[0].config, cells[0].folder)
    seen = []

    def make_gradient(experiment, state):
        seen.append((experiment.config.objective.proposal.name, int(state.step), state))
        return lambda i, batch: np.array([i, 2.0 * i])

    monkeypatch.setattr(gradients, "make_gradient", make_gradient)
    monkeypatch.setattr(gradients, "NUM_BATCHES", 4)
    monkeypatch.setattr(records, "HERE", tmp_path)
    found = study.gradient_variances(config, cells)
    assert found == {"gradient_variance": {"3": {"even": pytest.approx(25 / 3), "adaptive": pytest.approx(25 / 3)}}}
    assert [(name, step) for name, step, _ in seen] == [("stratified", 2), ("loss_aware", 2)]
    for _, _, state in seen:
        for one, two in zip(jax.tree.leaves(state.params), jax.tree.leaves(trained), strict=True):
            np.testing.assert_array_equal(one, two)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(seen[1][2].proposal)), "nothing is remembered"
