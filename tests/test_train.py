"""Training as a whole: it learns, stops, goes on, and refuses what cannot work."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import pipeline
from data.sources import Splits
from tests import eight_devices, tiny, toy_extractor
from vdm import build, evaluate, forensics, sample, steps, train, validation
from vdm.costs import profiling
from vdm.metrics import frechet, moments
from vdm.records import record
from vdm.runtime import checkpoints, processes, watchdog, writers
from vdm.runtime.state import TrainState, abstract_state

REPOSITORY = Path(__file__).parents[1]
ON_EIGHT_DEVICES = (
    "the_train_step_is_the_same_on_every_mesh",
    "samples_and_validation_are_the_same_on_every_mesh",
    "scores_are_the_same_on_every_mesh",
    "the_check_of_a_machine_passes_on_a_mesh_and_sees_a_wrong_one",
)


def saved_state(config, folder) -> TrainState:
    experiment = build.experiment(config)
    parts = experiment.init, experiment.optimizer
    abstract = abstract_state(*parts, experiment.mesh, experiment.rules, experiment.proposal.first())
    return checkpoints.restore(Path(folder) / "checkpoints", abstract)


def assert_bitwise_equal(one: TrainState, two: TrainState) -> None:
    assert int(one.step) == int(two.step)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = train.train(tiny.get_config(), folder)
    return folder, done


@pytest.mark.smoke
@pytest.mark.feature("R9")
def test_a_run_leaves_its_record_its_curves_and_its_samples(uninterrupted):
    folder, done = uninterrupted
    assert done == record.read(folder)
    assert (done.status, done.num_steps) == ("finished", 6)
    steps = [step for step, _ in done.curves["train/loss"]]
    assert steps == [2, 4, 6]
    rows = writers.read_scalars(folder)
    assert {row["step"] for row in rows} == {2, 4, 6}
    assert list((folder / "samples").glob("sheet_*.png"))
    assert set(done.level_losses) == {"validation/loss", "validation/x0_error", "validation/noise_error"}


def test_errors_of_x0_and_noise_differ_by_the_snr(uninterrupted):
    # two routes to one number: the validation reports both, and ||noise error||^2 = SNR ||x0 error||^2 (field.md 2.2)
    _, done = uninterrupted
    x0, noise = done.level_losses["validation/x0_error"], done.level_losses["validation/noise_error"]
    for (log_snr, x0_error), (_, noise_error) in zip(x0, noise, strict=True):
        np.testing.assert_allclose(noise_error, np.exp(log_snr) * x0_error, rtol=1e-4)


@pytest.mark.feature("M2")
def test_a_run_is_scored_as_asked_and_stays_the_same_run(uninterrupted, tmp_path):
    folder, done = uninterrupted
    shutil.copytree(folder, tmp_path / "run")
    config = tiny.get_config()
    toy_extractor.ask_for(config, *toy_extractor.write(tmp_path), num_samples=20, num_real=20)
    with pytest.raises(ValueError, match=r"num_real is 20, and the validation split has 16"):
        evaluate.evaluate(config, tmp_path / "run")
    config.scores.split = "train"
    scored = evaluate.evaluate(config, tmp_path / "run")
    assert scored.identity_hash == done.identity_hash
    metric = record.read(tmp_path / "run").metrics[-1]
    assert metric.name == "frechet of toy" and metric.value > 5 * metric.floor, "six steps make no model"
    assert len(sample.read(evaluate.folder_of(tmp_path / "run", 6))) == config.evaluation.num_samples
    clips = sample.make_draw(build.experiment(config))(saved_state(config, folder).ema, 20)
    taken = np.random.default_rng(0).permutation(64)[:20]  # of the split, in an order of its own
    real = np.stack([build.experiment(config).splits.train[int(row)]["video"] for row in taken])
    both = (moments.of(toy_extractor.seen(some)) for some in (clips, real))
    assert metric.value == pytest.approx(frechet.distance(*both), rel=1e-4)


@pytest.mark.feature("R7")
def test_a_longer_run_goes_on_as_if_it_had_not_stopped(uninterrupted, tmp_path):
    first = tiny.get_config()
    first.run.num_steps = 4
    train.train(first, tmp_path)
    train.train(tiny.get_config(), tmp_path)
    assert_bitwise_equal(saved_state(tiny.get_config(), tmp_path), saved_state(tiny.get_config(), uninterrupted[0]))


@pytest.mark.feature("R7")
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(uninterrupted, tmp_path, capsys):
    folder, _ = uninterrupted
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "6" / "manifest" / "metadata").write_text("{")
    train.train(tiny.get_config(), tmp_path / "run")
    said = capsys.readouterr().out
    assert "warning: the checkpoint of step 6 is damaged" in said and "going on from step 4 in" in said
    assert (tmp_path / "run" / "damaged_checkpoints" / "6" / "state").is_dir()
    assert checkpoints.digest(tmp_path / "run" / "checkpoints") == checkpoints.digest(folder / "checkpoints")
    assert_bitwise_equal(*(saved_state(tiny.get_config(), run) for run in (tmp_path / "run", folder)))


@pytest.fixture(scope="module")
def on_eight_devices():
    return eight_devices.outcomes("tests.on_eight_devices", ON_EIGHT_DEVICES)


@pytest.mark.feature("R5", "M2")
@pytest.mark.parametrize("name", ON_EIGHT_DEVICES)
def test_on_eight_devices(name, on_eight_devices):
    assert on_eight_devices[name] is None, on_eight_devices[name]


@pytest.mark.feature("R7")
def test_a_run_that_was_killed_twice_ends_with_the_same_bits(tmp_path):
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    train_until_a_new_checkpoint(killed, signal.SIGKILL, -signal.SIGKILL)
    train_until_a_new_checkpoint(killed, signal.SIGTERM, processes.STOPPED)
    assert record.read(killed).status == "stopped"
    longer = tiny.get_config()
    longer.run.num_steps = checkpoints.saved_steps(killed / "checkpoints")[-1] + 3
    train.train(longer, killed)
    train.train(longer, straight)
    assert_bitwise_equal(saved_state(longer, killed), saved_state(longer, straight))
    starts = [start.step for start in record.read(killed).starts]
    assert 0 == starts[0] < starts[1] < starts[2], "a start did not go on from the one before"
    assert record.read(killed).curves["train/loss"][-1] == record.read(straight).curves["train/loss"][-1]


def train_until_a_new_checkpoint(folder: Path, how: signal.Signals, code: int) -> None:
    script = (
        "import sys; from tests import tiny; from vdm import train\n"
        "config = tiny.get_config(); config.run.num_steps = 100_000\n"
        "sys.exit(train.main(config, sys.argv[1], overfit=0))"
    )
    before = checkpoints.saved_steps(folder / "checkpoints")
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=REPOSITORY)
    deadline = time.monotonic() + 240
    try:
        while checkpoints.saved_steps(folder / "checkpoints") == before and process.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.05)
        process.send_signal(how)
        assert process.wait(timeout=120) == code
    finally:
        process.kill()
        process.wait()


def test_it_validates_draws_saves_and_profiles_as_told_and_lists_its_parameters(tmp_path, capsys, monkeypatch):
    config = tiny.get_config()
    config.run.update(num_steps=5, log_every_steps=1, validate_every_steps=2, sample_every_steps=3)
    config.run.update(checkpoint_every_steps=1, max_checkpoints=1, keep_every_steps=2, stuck_after_seconds=1234.0)
    beats = []

    class Watchdog(watchdog.Watchdog):
        def beat(self):
            beats.append(self._seconds)

    monkeypatch.setattr(watchdog, "Watchdog", Watchdog)
    done = train.train(config, tmp_path, num_profiled=2)
    assert len(beats) > 2 * 5 and set(beats) == {1234.0}
    assert checkpoints.saved_steps(tmp_path / "checkpoints") == [2, 4, 5]
    validated = [name for name in done.curves if name.startswith("validation/loss ")]
    assert len(validated) == len(config.evaluation.log_snrs)
    for name in validated:
        assert [step for step, _ in done.curves[name]] == [2, 4, 5]
    sheets = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert sheets == ["sheet_00000003.png", "sheet_00000005.png"]
    printed = capsys.readouterr().out  # the profile's table, and clu's
    assert (tmp_path / "profile" / profiling.TABLE).read_text() in printed
    assert f"Total: {done.num_parameters:,}" in printed and "down_0/block_0/conv_1/kernel" in printed


def test_overfitting_sees_the_first_eight_clips_only_and_all_of_them():
    config = tiny.get_config()
    config.data.overfit = 8
    experiment = build.experiment(config)
    first = {experiment.splits.train[index]["video"].tobytes() for index in range(8)}
    with contextlib.closing(steps.device_batches(experiment, 0)) as batches:
        seen = [np.asarray(next(batches)["video"]) for _ in range(3)]
    assert {clip.tobytes() for batch in seen for clip in batch} == first


def test_validation_is_on_held_out_clips_with_noise_that_stays(uninterrupted):
    config = tiny.get_config()
    experiment = build.experiment(config)
    params = saved_state(config, uninterrupted[0]).ema
    validate = validation.make_validation(
        dataclasses.replace(experiment, splits=Splits(None, experiment.splits.validation))
    )
    losses = validate(params)
    assert losses == validate(params)
    recorded = {name: list(row) for name, row in uninterrupted[1].level_losses.items()}
    assert losses == recorded, "another run of the validation drew other noise, or saw other clips"


def test_labels_are_dropped_as_often_as_configured():
    config = tiny.get_config()
    config.network.update(class_conditional=True, label_dropout=0.25)
    experiment = build.experiment(config)
    batch = {"label": jnp.arange(10_000) % experiment.num_classes}
    u = jnp.asarray(np.random.default_rng(0).random(10_000, np.float32))
    label = np.asarray(steps.drop_labels(experiment, batch, u))
    dropped = label == experiment.num_classes
    np.testing.assert_array_equal(label[~dropped], batch["label"][~dropped])
    assert abs(dropped.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 10_000)
    assert steps.drop_labels(build.experiment(tiny.get_config()), batch, u) is None


FULL_DISK = """
    import resource, sys
    from vdm.__main__ import main
    from vdm.runtime.checkpoints import CheckpointWriter
    really_save = CheckpointWriter.save
    def save(self, state):
        if int(state.step) == 4:  # from here on no file may grow beyond 4 kB, as if the disk were full
            self.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        if int(state.step) <= 4:  # what follows must not wait for a later save to find out
            really_save(self, state)
    CheckpointWriter.save = save
    sys.exit(main(["vdm", "train", "--config=tests/tiny.py", f"--workdir={sys.argv[1]}", *sys.argv[2:]]))
"""


@pytest.mark.feature("R7")
def test_a_full_disk_stops_the_run_at_once_and_leaves_the_last_good_checkpoint(uninterrupted, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path), "--config.run.num_steps=300"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 1, done.stderr
    (told,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert told.startswith("error: a checkpoint could not be saved") and "File too large" in told
    assert "Event loop is closed" not in done.stderr, "pages of traces that say nothing"
    assert "the last good one is of step 2" in told and "start the same command again" in told
    after = [int(line.split()[1].split("/")[0]) for line in done.stdout.splitlines() if line.startswith("step ")]
    assert max(after) < 300, "the run went on without saving"
    assert checkpoints.saved_steps(tmp_path / "checkpoints") == [2]
    train.train(tiny.get_config(), tmp_path)  # there is room again
    assert_bitwise_equal(saved_state(tiny.get_config(), tmp_path), saved_state(tiny.get_config(), uninterrupted[0]))


@pytest.mark.feature("R1")
def test_it_overfits_eight_clips(tmp_path):
    config = tiny.get_config()
    config.optimizer.update(learning_rate=1e-2, warmup_steps=10)
    config.network.unet3d.channels = 16
    config.run.update(num_steps=500, log_every_steps=50, checkpoint_every_steps=0)
    config.data.overfit = 8
    curve = [loss for _, loss in train.train(config, tmp_path).curves["train/loss"]]
    assert curve[-1] < 0.6 * curve[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    config = tiny.get_config()
    config.optimizer.update(learning_rate=1e25, warmup_steps=0)
    config.run.checkpoint_every_steps = 1
    with pytest.raises(FloatingPointError, match=r"not finite in step 1; the last good checkpoint is step 1"):
        train.train(config, tmp_path)
    state = saved_state(config, tmp_path)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.feature("R9")
def test_a_step_that_fails_leaves_what_it_saw_and_can_be_done_again(tmp_path, capsys):
    config = tiny.get_config()
    config.optimizer.update(learning_rate=1e25, warmup_steps=0)
    config.run.checkpoint_every_steps = 0  # the steps before it must be done again as well
    with pytest.raises(forensics.NotFiniteError, match="not finite in step 1; there is no checkpoint yet"):
        train.main(config, str(tmp_path), overfit=0)
    assert "--replay_step=1 does it again" in capsys.readouterr().out
    text = (tmp_path / forensics.FILE_NAME).read_text()
    found = json.loads(text)
    assert (found["step"], found["replayed_from"], found["seed"]) == (1, 0, config.seed)
    # the examples are those that the run was given in that step
    experiment = build.experiment(config)
    with contextlib.closing(steps.device_batches(experiment, 1)) as batches:
        given = np.asarray(next(batches)["index"]).tolist()
    assert sorted(row["example"] for row in found["examples"]) == given
    for row in found["examples"]:
        clip = experiment.splits.train[row["clip"]]["video"]
        assert any((clip == other).all() for other in pipeline_clips(config, 1))
        assert row["loss"] is None and row["log_snr"] is not None
    broken = [row for row in found["layers"] if row["gradient"]["not_finite"]]
    assert broken and found["layers"][: len(broken)] == broken
    assert max(abs(row["parameters"]["max"]) for row in found["layers"]) > 1e15  # what the first step made of them
    (tmp_path / forensics.FILE_NAME).unlink()
    with pytest.raises(ValueError, match="--profile=1 is of training; --replay_step=1 does one step"):
        train.main(config, str(tmp_path), overfit=0, replay_step=1, profile=1)
    assert train.main(config, str(tmp_path), overfit=0, replay_step=1) == 0
    assert (tmp_path / forensics.FILE_NAME).read_text() == text


def pipeline_clips(config, step):
    """The clips of a step of training."""
    source = build.experiment(config).splits.train
    batches = pipeline.batches(source, config.seed, config.data.batch_size, start_step=step)
    with contextlib.closing(batches):
        return next(batches)["video"]


@pytest.mark.feature("R8")
def test_no_copy_from_the_host_hides_in_a_step(tmp_path, monkeypatch):
    """On a CPU only the way to the device can be seen."""
    monkeypatch.setattr(steps, "device_batches", lambda *_: (batch for batch in [{}]))
    monkeypatch.setattr(steps, "make_step", lambda _: lambda state, window, batch: (state, jnp.add(np.ones(3), 1)))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train.train(tiny.get_config(), tmp_path)


@pytest.mark.feature("R9")
def test_a_work_directory_of_another_run_is_refused(uninterrupted):
    other = tiny.get_config()
    other.optimizer.learning_rate = 1e-4
    with pytest.raises(ValueError, match=r"optimizer.learning_rate: 0.002 -> 0.0001"):
        train.train(other, uninterrupted[0])


def test_what_may_change_when_a_run_resumes_does_not_name_it_anew(uninterrupted):
    same = tiny.get_config()
    same.run.log_every_steps = 3
    assert train.train(same, uninterrupted[0]).status == "finished"
