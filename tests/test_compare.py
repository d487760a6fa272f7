"""A comparison as a whole: the same work for every arm, nothing done twice, and a report that can be opened alone."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from scipy import stats

from configs import demo, entries
from tests import tiny
from tests.test_train import REPOSITORY, assert_bitwise_equal, saved_state
from vdm import arms, assembly, build, compare, evaluate, likelihoods, sample, steps, train
from vdm.__main__ import main as run_main
from vdm.diffusion import objectives
from vdm.records import record
from vdm.records.comparison import OverSeeds
from vdm.runtime import checkpoints, processes

CHILDREN = "/proc/{pid}/task/{pid}/children"


def read_record(folder):
    found = record.read(folder)
    assert found is not None
    return found


def grid():
    config = tiny.get_config()
    config.run.num_steps = 2
    with config.unlocked():
        config.compare.arm.ddpm = entries.arm(
            "Discrete DDPM",
            "t in {1..T}/T",
            {"schedule": {"name": "ddpm_linear"}, "objective": {"times": {"name": "grid"}}},
            at_least={"valid clips": 0.4},
        )
        config.compare.arm.vp = entries.arm("VP-SDE", "t in (0, 1]", {}, at_most={"direction total variation": 0.25})
        config.compare.arm.untrained = entries.arm("Untrained", "no step", {"run": {"num_steps": 0}})
    config.compare.arms = ("ddpm", "vp", "untrained")
    return config


def grid_of_samplings():
    config = grid()
    config.compare.parallel = 2
    config.compare.vary.update(parts=("train", "sample"), repeats=1)
    config.scores.samplings = ("common_2", "common_4")
    with config.unlocked():
        for count in (2, 4):
            config.scores.sampling[f"common_{count}"] = entries.common_sampling(count, -6.0, 6.0)
    return config


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return folder, compare.compare(grid_of_samplings(), folder)


@pytest.mark.smoke
@pytest.mark.feature("O20")
def test_the_report_holds_every_arm_and_opens_alone(compared):
    folder, done = compared
    assert [arm.name for arm in done.arms] == ["ddpm", "vp", "untrained"]
    numbers = json.loads((folder / "report.json").read_text())
    assert [arm["record"]["num_steps"] for arm in numbers["arms"]] == [2, 2, 0]
    page = (folder / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:|//)", page), "the page must not reach for the network"


@pytest.mark.feature("O20")
def test_every_arm_is_sampled_by_its_own_sampler_and_by_those_that_all_share(compared):
    folder, done = compared
    for arm in done.arms:
        counts = {
            metric.sampling: metric.protocol["network_evaluations"]
            for metric in arm.record.metrics
            if metric.quantity == "valid clips"
        }
        assert counts == {"own": 5, "common_2": 2, "common_4": 4}
    cell = next(arms.cells(grid(), epath.Path(folder)))
    clips = [sample.read(arms.samples_of(cell) / name) for name in ("common_2", "common_4")]
    assert clips[0].shape == clips[1].shape and (clips[0] != clips[1]).any()
    page = (folder / "report.html").read_text()
    own, shared = page.split("By samplers that the arms share")
    assert "common_2" not in own and shared.index("common_2: ddim, 2 network") < shared.index("common_4: ddim, 4")
    assert "valid clips, by network evaluations of ddim" in shared
    text = (folder / "report.md").read_text()
    assert "## Scores by common_4, which all arms share" in text
    rows = list(csv.DictReader((folder / "report.csv").open()))
    assert len(rows) == sum(len(arm.record.metrics) for arm in done.arms)
    for arm in done.arms:
        for metric in arm.record.metrics:
            (row,) = (
                row
                for row in rows
                if (row["arm"], row["metric"], row["sampling"]) == (arm.name, metric.quantity, metric.sampling)
            )
            assert float(row["value"]) == metric.value and json.loads(row["protocol"]) == metric.protocol


@pytest.mark.feature("O20")
def test_a_part_drawn_anew_is_a_run_of_its_own_and_what_comes_after_training_trains_nothing(compared):
    folder, done = compared
    base, trained, sampled = (
        read_record(folder / "ddpm" / name) for name in ("seed_0", "vary/train_1", "vary/sample_1")
    )
    assert trained.curves["train/loss"] != base.curves["train/loss"] == sampled.curves["train/loss"]
    assert trained.level_losses != base.level_losses == sampled.level_losses
    assert len({one.identity_hash for one in (base, trained, sampled)}) == 3
    assert not (folder / "ddpm" / "vary" / "sample_1" / "checkpoints").exists()
    seeds = [{one.protocol["seed"] for one in run.metrics if "seed" in one.protocol} for run in (base, sampled)]
    assert seeds[0] == {0} and len(seeds[1]) == 1 and 0 not in seeds[1]
    parts = [(entry.arm, entry.part, len(entry.values)) for entry in done.spreads]
    assert parts == [("Discrete DDPM", "train", 2), ("Discrete DDPM", "sample", 2)]
    assert done.spreads[0].values[0] == next(one.value for one in base.metrics if one.name == "valid clips")
    config = grid()
    config.compare.vary.parts = ("noise",)
    with pytest.raises(ValueError, match="has noise; the parts are: evaluation, init, sample, train"):
        compare.compare(config, folder)


@pytest.mark.feature("O20")
def test_all_arms_start_from_the_same_parameters_and_noise(compared):
    # the two objectives differ, so only what is drawn before training can be equal: parameters and the prior's noise
    folder, _ = compared
    clips = {
        cell.arm: sample.read(evaluate.folder_of(cell.folder, cell.config.run.num_steps))
        for cell in arms.cells(grid(), epath.Path(folder))
    }
    correlation = np.corrcoef(clips["ddpm"].ravel(), clips["vp"].ravel())[0, 1]
    other = np.corrcoef(clips["ddpm"].ravel(), np.roll(clips["vp"], 1, axis=0).ravel())[0, 1]
    assert correlation > 0.9 > other


def seen_in_step(config, step, monkeypatch):
    """What a step of an arm learns from: clips, noise and u of the batch, as the jitted step has them, and log-SNR."""
    experiment, given = build.experiment(config), []
    loss = objectives.loss

    def spy(objective, predict, x0, noise, t, given_frames):
        given[:] = x0, noise
        return loss(objective, predict, x0, noise, t, given_frames)

    monkeypatch.setattr(objectives, "loss", spy)

    @jax.jit
    def see(state, batch):
        examples, _ = steps.drawn(experiment, state, batch)
        _, log_snr = steps.losses_of(experiment, state.step, state.params, examples)
        return *given, examples[1], log_snr

    with jax.set_mesh(experiment.mesh), contextlib.closing(steps.device_batches(experiment, step)) as batches:
        state = dataclasses.replace(experiment.first_state(), step=jnp.asarray(step, jnp.int32))
        return *map(np.asarray, see(state, next(batches))), jax.tree.map(np.asarray, state.params)


def level_of_ddpm(u):
    """Of {1, ..., 1000}/1000 from the noisy end, on betas from 1e-4 to 0.02 (Ho et al. 2020, section 4)."""
    alpha_squared = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[999 - np.floor(u * 1000).astype(int)]
    return np.log(alpha_squared / (1 - alpha_squared))


def level_of_vp(u):
    """Of t uniform in (0.001, 1], from the noisy end (Song et al. 2021, equation 33)."""
    t = 1 - (1 - 1e-3) * u
    log_alpha = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
    return 2 * log_alpha - np.log(-np.expm1(2 * log_alpha))


def level_of_edm(u):
    """Of log sigma normal, -1.2 and 1.2, within 0.002 to 80 (Karras et al. 2022, table 1); log-SNR is -2 log sigma."""
    low, high = ((-2 * np.log(sigma) - 2.4) / 2.4 for sigma in (80, 0.002))
    return stats.truncnorm(low, high, loc=2.4, scale=2.4).ppf(u)


@pytest.mark.feature("O20")
def test_in_a_step_all_arms_see_the_same_clips_noise_and_u_and_each_its_own_level_of_it(monkeypatch):
    config = grid()
    changes = {"schedule": {"name": "edm"}, "objective": {"target": "edm", "times": {"name": "log_normal_sigma"}}}
    with config.unlocked():
        config.compare.arm.edm = entries.arm("EDM", "log sigma normal", changes)
    levels = {"ddpm": level_of_ddpm, "vp": level_of_vp, "edm": level_of_edm}
    seen = {name: seen_in_step(arms.config_of(config, name, 0), 3, monkeypatch) for name in levels}
    x0, noise, u, _, params = seen["vp"]
    assert x0.shape == noise.shape == (8, 4, 8, 8, 3) and len(set(np.floor(8 * u))) == 8, "u is spread over the batch"
    for name, level in levels.items():
        for ours, theirs in zip(seen[name][:3], (x0, noise, u), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        jax.tree.map(np.testing.assert_array_equal, seen[name][4], params)
        np.testing.assert_allclose(seen[name][3], np.repeat(level(u.astype(float))[:, None], 4, axis=1), atol=2e-3)
    other = seen_in_step(arms.config_of(config, "vp", 1), 3, monkeypatch)
    assert all((one != two).any() for one, two in zip(other[:3], (x0, noise, u), strict=True))


def test_seeds_are_compared_seed_by_seed(compared):
    config = grid()
    config.compare.seeds = (3, 4)
    cells = list(arms.cells(config, epath.Path("nowhere")))
    names = [(arms.name_of(one, config), arms.name_of(two, config)) for one, two in assembly.pairs(cells)]
    assert names == [("ddpm_seed_3", "vp_seed_3"), ("ddpm_seed_4", "vp_seed_4")]
    ddpm, vp, untrained = (arm.record for arm in compared[1].arms)
    records = {
        "ddpm": [with_valid(ddpm, share) for share in (0.6, 0.5)],
        "vp": [with_valid(vp, share) for share in (0.5, 0.45)],
        "untrained": [untrained] * 2,
    }
    (found,) = assembly.over_seeds(config, records)
    assert (found.first, found.second, found.metric) == ("Discrete DDPM", "VP-SDE", "valid clips")
    assert found.by_seed == pytest.approx((0.1, 0.05))
    # of two numbers the standard error is half of their difference, and t(0.975) with 1 degree of freedom is 12.706
    assert [found.difference.low, found.difference.high] == pytest.approx([0.075 - 0.31766, 0.075 + 0.31766], abs=1e-4)
    # a single pair has nothing to be corrected for: t = 3 with 1 degree of freedom, whose tail is 1/2 - atan(3)/pi
    assert found.p_value == pytest.approx(2 * (0.5 - np.arctan(3) / np.pi))
    assert found.verdict == "not separated"
    assert not list(assembly.over_seeds(grid(), {"ddpm": [ddpm], "vp": [vp], "untrained": [untrained]}))


def test_runs_of_several_seeds_make_one_report(tmp_path):
    config = grid()
    config.compare.seeds, config.compare.arms = (3, 4), ("untrained",)  # without training, which is long
    done = compare.compare(config, tmp_path)
    assert [(arm.name, arm.title) for arm in done.arms] == [
        ("untrained_seed_3", "Untrained, seed 3"),
        ("untrained_seed_4", "Untrained, seed 4"),
    ]
    assert [arm.record.seeds["config"] for arm in done.arms] == [3, 4]
    assert "Every arm was run with 2 seeds." in done.notes


def with_valid(run, share):
    metrics = [
        dataclasses.replace(metric, value=share, low=share, high=share) if metric.name == evaluate.VALID else metric
        for metric in run.metrics
    ]
    return dataclasses.replace(run, metrics=tuple(metrics))


def test_lines_that_are_not_passed_are_marked(compared):
    _, done = compared
    passed = {(line.what, line.arm): line.passed for line in done.pass_lines}
    assert passed[("valid clips", "real clips")]
    assert not passed[("valid clips", "Discrete DDPM")]  # after two steps


def test_notes_say_what_the_trained_arms_share(compared):
    note, *_ = compared[1].notes
    assert note.startswith("The trained arms differ in objective.times.grid.num_steps, objective.times.name, ")
    assert note.endswith("network, optimiser, number of steps, sampler.")
    config = grid()
    config.compare.arm.vp.changes = {"optimizer": {"learning_rate": 1e-3}, "sampler": {"name": "euler"}}
    note, *_ = assembly.notes(config, list(arms.cells(config, epath.Path("nowhere"))))
    assert "optimizer.learning_rate" in note and note.endswith("drawn from, network, number of steps.")


def test_the_command_prints_the_question_and_every_line_and_fails_where_one_is_not_passed(compared, capsys, tmp_path):
    config = tmp_path / "config.py"
    config.write_text("from tests.test_compare import grid as get_config\n")
    asked = "--config.compare.question=Do they differ?"
    assert run_main(["vdm", "compare", f"--config={config}", f"--workdir={compared[0]}", asked]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "Do they differ?" in printed
    assert "│ valid clips │ Discrete DDPM │ 0.0% │ >= 40.0% │ NOT passed │" in printed
    for control in ("real clips │ 100.0% │ >= 99.0%", "frames shuffled", "frames of different clips"):
        assert control in printed
    assert "valid clips: ddpm minus vp is +0.0%" in printed and "over samples of these two networks" in printed
    assert "The report: " in printed and "report.html" in printed


def test_a_failed_arm_ends_the_command_with_its_log_and_no_traceback(capsys, tmp_path, monkeypatch):
    def fail(config, workdir):
        raise processes.JobFailed(f"vp, seed 0 failed; {workdir}/log.txt ends with: out of memory")

    monkeypatch.setattr(compare, "compare", fail)
    assert run_main(["vdm", "compare", "--config=configs/demo.py", f"--workdir={tmp_path}"]) == 1
    assert "log.txt ends with: out of memory" in capsys.readouterr().err


def test_samples_that_are_gone_are_drawn_again(compared, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(compared[0], folder)
    config = grid()
    config.compare.arms = ("untrained",)
    (cell,) = arms.cells(config, epath.Path(folder))
    before = assembly.read_samples(cell)
    (arms.samples_of(cell) / sample.ARRAYS).unlink()
    monkeypatch.setattr(train, "train", None)  # calling it would fail
    compare.compare(config, folder)
    np.testing.assert_array_equal(assembly.read_samples(cell), before)


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"moving_shapes": {"radius": 1.0}}},
        {"evaluation": {"num_samples": 4}},
        {"seed": 3},
        {"vary": {"train": 1}},
    ],
)
def test_an_arm_cannot_change_what_all_must_share(change, tmp_path):
    config = grid()
    config.compare.arm.vp.changes = change
    with pytest.raises(ValueError, match=rf"compare.arm.vp changes {next(iter(change))}: all arms .* share"):
        compare.compare(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_recorded_is_not_run_again(compared, monkeypatch):
    folder, before = compared
    monkeypatch.setattr(train, "train", None)  # calling it would fail
    again = compare.compare(grid(), folder)
    assert [arm.record for arm in again.arms] == [arm.record for arm in before.arms]


def test_what_was_measured_by_another_protocol_is_measured_again(compared):
    config = grid_of_samplings()
    (cell, *_) = arms.cells(config, epath.Path(compared[0]))
    done = read_record(cell.folder)
    assert arms.is_measured(cell, done)
    cell.config.scores.update(likelihoods=("bound",))
    assert not arms.is_measured(cell, done)
    protocol = likelihoods.protocol_of(build.experiment(cell.config), "bound")
    bits = record.Metric(likelihoods.TITLES["bound"], 4.0, 3.9, 4.1, "", False, protocol)
    done = dataclasses.replace(done, metrics=(*done.metrics, bits))
    assert arms.is_measured(cell, done)
    for change in ({"num_likelihood": 5}, {"num_levels": 7}, {"sampling": {"common_2": {"num_steps": 3}}}):
        changed = dataclasses.replace(cell, config=cell.config.copy_and_resolve_references())
        changed.config.scores.update(change)
        assert not arms.is_measured(changed, done), change


@pytest.mark.feature("O20")
def test_an_arm_is_run_alone_by_one_command_and_the_report_comes_after(tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.py"
    config.write_text("from tests.test_compare import grid as get_config\n")
    command = ["vdm", "compare", f"--config={config}", f"--workdir={tmp_path / 'runs'}"]
    assert run_main([*command, "--only=nobody"]) == 2
    assert "'nobody'; it must be one of: ddpm, vp, untrained" in capsys.readouterr().err
    assert run_main([*command, "--only=untrained"]) == 0
    assert "untrained is done" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"untrained"}
    monkeypatch.setattr(evaluate, "evaluate", None)  # calling it would fail
    alone = grid()
    alone.compare.arms = ("untrained",)
    assert compare.compare(alone, tmp_path / "runs").arms[0].record.evaluated_step == 0
    assert (tmp_path / "runs" / "report.html").exists()


@pytest.mark.feature("O20")
def test_a_run_of_another_process_is_left_alone(tmp_path):
    config = grid()
    config.compare.arms = ("untrained",)
    (cell,) = arms.cells(config, epath.Path(tmp_path))
    holder = (
        "import pathlib, sys, time; from vdm.runtime import processes\n"
        f"with processes.claimed(pathlib.Path({str(cell.folder)!r})):\n    print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(processes.JobFailed, match=f"seed_0 is being run by process {other.pid} on "):
            compare.compare(config, tmp_path)
        assert not record.read(cell.folder)
        other.kill()  # which lets go of it
    assert compare.run_arm(config, tmp_path, "untrained")


def test_differences_are_told_in_their_unit():
    def told(unit):
        return compare.told(OverSeeds("bits/dim (bound)", "DDPM", "EDM", (-0.1, -0.102), unit))

    assert "DDPM minus EDM is -0.101 (95 %: -0.1137 to -0.08829)" in told("")  # t(0.975) = 12.706, standard error 0.001
    assert "DDPM minus EDM is -10.1% (95 %: -11.4% to -8.8%)" in told("%")


def test_two_arms_of_one_title_are_refused(tmp_path):
    config = grid()
    config.compare.arm.vp.title = "Untrained"
    with pytest.raises(ValueError, match=r"titles are \['Discrete DDPM', 'Untrained', 'Untrained'\]; each needs"):
        compare.compare(config, tmp_path)


def test_an_arm_that_changes_an_unknown_key_is_refused_before_any_is_trained(tmp_path):
    config = grid()
    with config.unlocked():
        config.compare.arm.wrong = entries.arm("wrong", "", {"objective": {"targets": "v"}})
    config.compare.arms = ("vp", "wrong")
    with pytest.raises(ValueError, match=r"compare.arm.wrong"):
        compare.compare(config, tmp_path)
    assert record.read(tmp_path / "vp" / "seed_0") is None


@pytest.mark.feature("R7")
@pytest.mark.skipif(not Path(CHILDREN.format(pid=os.getpid())).exists(), reason="it looks for orphans in Linux's /proc")
@pytest.mark.parametrize("of", ["tiny", pytest.param("demo", marks=pytest.mark.slow)])
def test_a_comparison_that_was_stopped_and_killed_ends_with_the_same_bits(of, tmp_path):
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    interrupt(of, killed, signal.SIGTERM, processes.STOPPED)
    interrupt(of, killed, signal.SIGKILL, -signal.SIGKILL)
    places = places_of(of, killed)
    # how far the arms came depends on the machine: both go on beyond either
    config = pair(of, num_steps=4 + max(checkpoints.saved_steps(place / "checkpoints")[-1] for place in places))
    assert compare.compare(config, killed) is not None
    grid = list(arms.cells(config, epath.Path(straight)))
    assert compare.run_all(grid)  # in processes of as many cores: their number may change the sums' bits
    for cell, place in zip(grid, places, strict=True):
        steps = [start.step for start in read_record(place).starts]
        assert 0 == steps[0] < steps[1] < steps[2], "a start did not go on from the one before"
        assert_bitwise_equal(saved_state(cell.config, place), saved_state(cell.config, cell.folder))


def pair(of, num_steps):
    """Both trained arms of a config, beside each other."""
    config = {"tiny": grid, "demo": demo.get_config}[of]()
    config.run.num_steps, config.run.checkpoint_every_steps = num_steps, 20
    config.compare.arms, config.compare.parallel = config.compare.arms[:2], 2
    return config


def places_of(of, folder):
    return [folder / arm / "seed_0" for arm in pair(of, 1).compare.arms]


def interrupt(of, folder, how: signal.Signals, code: int) -> None:
    """Starts the comparison in a process, and ends it once both arms have a checkpoint that they had not before."""
    places = places_of(of, folder)
    script = (
        "import sys\nfrom tests import test_compare\nfrom vdm import compare\n"
        "if __name__ == '__main__':\n"
        f"    sys.exit(compare.main(test_compare.pair({of!r}, num_steps=10**6), sys.argv[1], only=''))\n"
    )
    program = folder.parent / "program.py"
    program.write_text(script)

    def saved():
        return [checkpoints.saved_steps(place / "checkpoints") for place in places]

    before = saved()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, str(program), str(folder)], cwd=REPOSITORY, env=environment)
    try:
        wait_until(
            lambda: process.poll() is not None or all(now != old for now, old in zip(saved(), before, strict=True)),
            lambda: f"no checkpoint; the arms said: {[processes.last_line(place / 'log.txt') for place in places]}",
        )
        assert process.poll() is None, f"it ended by itself, with {process.returncode}"
        running = children(process.pid)
        assert len(running) >= len(places)
        process.send_signal(how)
        assert process.wait(timeout=120) == code
    finally:
        process.kill()  # the arms end with it
        process.wait()
    wait_until(lambda: not any(alive(arm) for arm in running), lambda: "an arm outlived its parent")


def wait_until(condition, failure) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, failure()
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(CHILDREN.format(pid=pid)).read_text().split()]


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and is not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_that_fails_in_its_process_says_why(tmp_path):
    log = tmp_path / "log.txt"
    assert processes.run([processes.Job("wrong", functools.partial(int, "x"), log)], at_once=1) == {"wrong": 1}
    assert "invalid literal" in processes.last_line(log)


def test_arms_twice_and_lines_about_nothing_are_refused(tmp_path):
    config = grid()
    config.compare.arms = ("vp", "vp")
    with pytest.raises(ValueError, match="each of them once"):
        compare.compare(config, tmp_path)
    config = grid()
    config.compare.arm.vp.at_least = {"valid": 0.4}
    with pytest.raises(ValueError, match="draws a line for 'valid'"):
        compare.compare(config, tmp_path)
    assert not list(tmp_path.iterdir())
