"""Verifying: each verdict, and the name of each input that differs, by planting the difference."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import entries
from tests import cards, tiny
from vdm import build, evaluate, publish, scoring, train, verify
from vdm.__main__ import main
from vdm.measures import measures_of
from vdm.records import card, identity, replay
from vdm.records.record import Metric

REPOSITORY = Path(__file__).parents[1]
INPUTS = ("config", "data", "code", "lock", "versions", "devices", "mesh", "CPU threads", "flags")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = tiny.get_config()
    train.train(config, folder)
    config.scores.samplings = ("common",)
    with config.unlocked():
        config.scores.sampling.common = entries.common_sampling(2, -6.0, 6.0)
    evaluate.evaluate(config, folder)
    publish.publish(folder, folder / "card", with_weights=True)
    return folder / "card"


@pytest.fixture(scope="module")
def here(published):
    """The first steps are run once: what is planted is in the card, not in them."""
    return publish.replay_steps(build.experiment(tiny.get_config()), replay.NUM_STEPS)


@pytest.fixture
def planted(published, tmp_path):
    """A copy to plant things in, without its weights: most tests are not about them."""
    folder = Path(shutil.copytree(published, tmp_path / "planted"))
    (folder / card.WEIGHTS).unlink()
    cards.reseal(folder)
    return folder


@pytest.fixture
def known(here, monkeypatch):
    """Uses the steps that were run once, for cards of the config that they are of."""
    monkeypatch.setattr(
        publish, "replay_steps", lambda _, num_steps: here if num_steps == 20 else here.first(num_steps)
    )


def said(capsys, *arguments: str, code: int) -> tuple[dict[str, str], str]:
    """Input -> what was printed of it, and the last line."""
    capsys.readouterr()
    assert main(["vdm", "verify", *map(str, arguments)]) == code
    lines = capsys.readouterr().out.splitlines()
    rows = {name: line[12:].strip() for name in INPUTS for line in lines if line.startswith(f"{name:<12} ")}
    assert set(rows) == set(INPUTS)
    return rows, lines[-1]


@pytest.mark.feature("R9")
def test_a_card_made_here_is_bitwise_equal_here(published, capsys):
    rows, verdict = said(capsys, published, code=0)
    assert set(rows.values()) == {"same"}
    assert verdict == "bitwise equal; later steps and scores were not checked, --full does"
    found = verify.verify(published, steps=3)
    assert (found.num_steps, found.verdict, found.same_parameters) == (3, replay.BITWISE, None)
    assert found.points == (2,) and found.foreign == ()
    assert len(found.weights) == 6 and {score.verdict for score in found.weights} == {replay.BITWISE}


def test_more_steps_than_a_card_has_are_refused(published, capsys):
    assert main(["vdm", "verify", str(published), "--steps=21"]) == 2
    assert "--steps is 21; the card has 20 steps" in capsys.readouterr().err


@pytest.mark.feature("R9")
@pytest.mark.parametrize(
    ("list_name", "step", "factor", "code", "verdict"),
    [
        ("losses", 5, 1 + 3e-7, 0, "equal within the stated tolerance; what differs: nothing that was recorded"),
        ("gradient_norms", 5, 1 + 9e-6, 0, "equal within the stated tolerance; what differs: nothing"),
        ("losses", 5, 1 + 2e-5, 1, "different from step 5; what differs: nothing that was recorded"),
        ("gradient_norms", 7, 0.5, 1, "different from step 7; what differs: nothing that was recorded"),
        ("losses", 1, 0.0, 1, "different from step 1; what differs: nothing that was recorded"),
    ],
)
def test_numbers_that_are_not_those_of_the_card(planted, known, capsys, list_name, step, factor, code, verdict):
    def change(values):
        values[list_name][step - 1] *= factor

    cards.edit(planted, card.REPLAY, change)
    rows, last = said(capsys, planted, code=code)
    assert last.startswith(verdict) and set(rows.values()) == {"same"}
    _, last = said(capsys, planted, f"--steps={step}", code=code)
    assert last.startswith(verdict)
    if step > 1:
        assert said(capsys, planted, f"--steps={step - 1}", code=0)[1].startswith("bitwise equal")


@pytest.mark.feature("R9")
def test_parameters_of_other_bits_after_the_same_losses_are_not_called_bitwise(planted, known, capsys):
    cards.edit(planted, card.REPLAY, lambda values: values.update(parameters_sha256="0" * 64))
    assert said(capsys, planted, code=0)[1].startswith("equal within the stated tolerance")


@pytest.mark.feature("R9")
def test_a_curve_of_the_record_that_the_steps_do_not_give_is_different_though_the_steps_are_not(planted, known, capsys):
    def change(values):
        values["curves"]["train/loss"][1][1] *= 0.9

    cards.edit(planted, card.RECORD, change)
    _, last = said(capsys, planted, code=1)
    assert last == "different from step 4; what differs: nothing that was recorded"


def _config(section, key, value):
    return lambda folder: cards.edit(folder, card.CONFIG, lambda values: values[section].update({key: value}))


def _seed(folder):
    cards.edit(folder, card.CONFIG, lambda values: values.update(seed=7))


def _radius(folder):
    cards.edit(folder, card.CONFIG, lambda values: values["data"]["moving_shapes"].update(radius=2.0))


@pytest.mark.feature("R9")
@pytest.mark.parametrize(
    ("plant", "differs", "from_step", "line"),
    [
        # the first update is made at the rate of step 0, and the warm-up begins above 0: the loss of step 2 shows it
        (_config("optimizer", "learning_rate", 0.003), "config", 2, "optimizer.learning_rate: 0.002 -> 0.003"),
        (_seed, "config", 1, "seed: 0 -> 7"),
        (_radius, "config, data", 1, "data.moving_shapes.radius: 1.5 -> 2.0"),
    ],
)
def test_a_config_that_is_not_the_one_the_card_was_made_with(planted, capsys, plant, differs, from_step, line):
    plant(planted)
    assert main(["vdm", "verify", str(planted), "--steps=4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"  {line}" in lines
    assert lines[-1] == f"different from step {from_step}; what differs: {differs}"


@pytest.mark.feature("R9")
def test_a_record_of_another_config_than_that_of_the_steps_is_seen(planted, known, capsys):
    def change(values):
        values["config"]["seed"] = 7
        values["identity_hash"] = identity.identity_hash(values["config"])

    cards.edit(planted, card.RECORD, change)
    assert main(["vdm", "verify", str(planted)]) == 0  # whose curve is nevertheless that of the steps
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("config       different: ") and lines[1] == "  seed: 7 -> 0"


def _of_environment(change):
    return lambda folder: cards.edit(folder, card.REPLAY, lambda values: change(values["inputs"]["environment"]))


def _of_inputs(**changes):
    return lambda folder: cards.edit(folder, card.REPLAY, lambda values: values["inputs"].update(changes))


def _lock(folder):
    content = (folder / card.LOCK).read_bytes() + b"# another\n"
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / card.LOCK).write_bytes(content)
    _of_environment(lambda values: values.update(lock_sha256=sha256))(folder)


@pytest.mark.feature("R9")
@pytest.mark.parametrize(
    ("plant", "name", "shown"),
    [
        (_of_environment(lambda values: values["code"].update(commit="f" * 40)), "code", "f" * 40),
        (_of_environment(lambda values: values["code"].update(dirty=True, diff_sha256="e" * 64)), "code", "e" * 64),
        (_of_environment(lambda values: values["code"].update(commit=None)), "code", "not known -> ["),
        (_lock, "lock", " -> "),
        (_of_environment(lambda values: values["versions"].update(jax="0.9.9")), "versions", '"0.9.9"} -> {"jax":'),
        (_of_environment(lambda values: values.update(devices={"TPU v5e": 4})), "devices", '"TPU v5e":4'),
        (_of_environment(lambda values: values.update(affinity=[0, 1, 2, 3, 4])), "CPU threads", "5 -> "),
        (_of_environment(lambda values: values["flags"].update(XLA_FLAGS="--x")), "flags", '{"XLA_FLAGS":"--x"} -> '),
        (_of_inputs(data_fingerprint="feed"), "data", '"feed" -> "'),
        (_of_inputs(mesh={"data": 2, "fsdp": 2, "tensor": 1, "frames": 1}), "mesh", '"fsdp":2'),
    ],
)  # fmt: skip
def test_each_input_that_differs_is_named_and_no_other(planted, known, capsys, plant, name, shown):
    plant(planted)
    rows, last = said(capsys, planted, code=0)
    assert {key for key, row in rows.items() if row != "same"} == {name}
    assert rows[name].startswith("different: ") and shown in rows[name]
    assert last.startswith("bitwise equal"), "the numbers are the same, whatever the card says of where it was made"
    cards.edit(planted, card.REPLAY, lambda values: values["losses"].__setitem__(2, 0.5))
    assert said(capsys, planted, code=1)[1] == f"different from step 3; what differs: {name}"


@pytest.mark.feature("R9")
def test_packages_that_are_not_the_locks_are_called_foreign_and_not_refused(planted, known, capsys):
    content = re.sub(rb"(?m)^einops==\S+", b"einops==0.0.1", (planted / card.LOCK).read_bytes())
    (planted / card.LOCK).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    _of_environment(lambda values: values.update(lock_sha256=sha256))(planted)
    assert main(["vdm", "verify", str(planted)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"foreign environment: not the packages of the card's lock: einops \S+ \(lock: 0\.0\.1\)\n", out)


@pytest.mark.feature("R9")
def test_another_number_of_threads_and_another_flag_are_seen_in_another_process(published):
    """Really another one: pinned to one core."""
    script = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from vdm.__main__ import main; sys.exit(main(['vdm', 'verify', sys.argv[1], '--steps=4']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(published)],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "NPROC": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads((published / card.REPLAY).read_text())["inputs"]["environment"]
    assert 'flags        different: {} -> {"JAX_DEFAULT_MATMUL_PRECISION":"highest","NPROC":"1"}\n' in done.stdout
    if len(made["affinity"]) > 1:
        assert f"CPU threads  different: {len(made['affinity'])} -> 1" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(("bitwise equal", "equal within the stated tolerance"))


@pytest.mark.feature("R9")
def test_weights_that_do_not_have_the_losses_of_the_record_are_different(published, planted, known, capsys):
    content = safetensors.numpy.load_file(published / card.WEIGHTS)
    content["stem/kernel"] = content["stem/kernel"] * np.float32(1.01)
    cards.reseal(planted, weights=safetensors.numpy.save(content))
    rows, last = said(capsys, planted, "--full", code=1)
    assert last.startswith("different in weights' validation/loss at log-SNR -2, ") and set(rows.values()) == {"same"}
    content["stem/kernels"] = content.pop("stem/kernel")
    cards.reseal(planted, weights=safetensors.numpy.save(content))
    assert main(["vdm", "verify", str(planted)]) == 2
    assert "has other arrays than its config's network: 'stem/kernel', 'stem/kernels'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def whole(published, here):
    """All steps and scores, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "replay_steps", lambda _, num_steps: here)
        return verify.verify(published, full=True)


@pytest.mark.feature("R9")
def test_a_curve_that_begins_after_the_cards_steps_is_called_not_reached_and_more_steps_reach_it(
    planted, here, capsys, monkeypatch
):
    """As with a log every 24 steps: 20 steps say nothing of it, be it true or false."""
    longer = dataclasses.replace(here, losses=(*here.losses, 0.5, 0.5, 0.5, 0.5))
    monkeypatch.setattr(publish, "replay_steps", lambda _, num_steps: longer.first(num_steps))
    mean = publish.mean_of_window(longer.losses)

    def plant(factor):
        cards.edit(planted, card.RECORD, lambda values: values["curves"].update({"train/loss": [[24, mean * factor]]}))

    plant(0.5)
    capsys.readouterr()
    assert main(["vdm", "verify", str(planted)]) == 0
    *_, line, last = capsys.readouterr().out.splitlines()
    assert line == "the run's own curve: not reached; it begins at step 24, --steps=24 goes on to it"
    assert last == "bitwise equal; the run's own curve, later steps and scores were not checked, --full does"
    assert said(capsys, planted, "--steps=24", code=1)[1].startswith("different from step 24; what differs: nothing")
    plant(1 + 1e-3)
    assert said(capsys, planted, "--steps=24", code=1)[1].startswith("different from step 24; what differs: nothing")
    _of_environment(lambda values: values.update(affinity=[0, 1, 2, 3, 4]))(planted)
    assert said(capsys, planted, "--steps=24", code=0)[1].startswith("equal within the stated tolerance")
    plant(1)
    assert said(capsys, planted, "--steps=24", code=0)[1].startswith("bitwise equal; later steps")
    assert main(["vdm", "verify", str(planted), "--steps=25"]) == 2
    assert "the card has 20 steps, 0: all, and the run's curve begins at step 24. " in capsys.readouterr().err


@pytest.mark.feature("R9")
def test_all_steps_and_the_scores_are_bitwise_equal_too(whole):
    assert whole.verdict == replay.BITWISE and whole.whole.left_out == () and verify.reason(whole) == ""
    names = {score.name for score in whole.whole.scores}
    assert {evaluate.VALID, evaluate.DIRECTIONS, "validation/loss at log-SNR -2", "valid clips, common"} <= names


@pytest.mark.feature("R9")
def test_scores_and_later_points_that_are_not_those_of_the_card(published, whole):
    there = card.read(published).record

    def again(exact=False, **changes):
        planted = dataclasses.replace(there, **changes)
        scores, lacking = verify.scores_apart(planted, there, exact=exact)
        apart = verify.curves_apart(planted, there, 1e-5, exact=exact)
        return dataclasses.replace(whole, whole=verify.Whole(*apart, scores, lacking))

    assert again().verdict == again(exact=True).verdict == replay.BITWISE
    one, *others = there.metrics
    assert one.name == evaluate.VALID and one.value == 0.0  # of 8: 0.324 at most (Wilson), and sqrt(2) times that
    better = again(metrics=(dataclasses.replace(one, value=one.value + 0.5), *others))
    assert better.verdict == replay.DIFFERENT and verify.reason(better).startswith(
        f" in {one.name}; what differs: nothing"
    )
    close = (dataclasses.replace(one, value=one.value + 0.1, low=0.0, high=1.0), *others)
    assert (again(metrics=close).verdict, again(True, metrics=close).verdict) == (replay.WITHIN, replay.DIFFERENT)
    slowly = {name: tuple((level, loss * 1.01) for level, loss in row) for name, row in there.level_losses.items()}
    assert again(level_losses=slowly).verdict == replay.WITHIN
    assert again(True, level_losses=slowly).verdict == replay.DIFFERENT
    unlike = again(metrics=(dataclasses.replace(one, protocol=one.protocol | {"samples": 9}), *others))
    assert unlike.whole.left_out == (one.name,) and "; not all was compared" in verify.reason(unlike)
    losses = {name: tuple((level, loss * 0.5) for level, loss in row) for name, row in there.level_losses.items()}
    assert again(level_losses=losses).verdict == replay.DIFFERENT
    for factor, verdict in ((1 + 1e-6, replay.WITHIN), (1 + 1e-4, replay.DIFFERENT)):
        points = tuple((step, loss * (factor if step == 6 else 1)) for step, loss in there.curves["train/loss"])
        found = again(curves=there.curves | {"train/loss": points})
        assert found.verdict == verdict and found.whole.first == 6
        assert again(True, curves=there.curves | {"train/loss": points}).verdict == replay.DIFFERENT
    assert found.differs_from == 6
    late = dataclasses.replace(there, curves={"train/loss": ((2, 1.0), (40, 1.0))})
    later = dataclasses.replace(there, curves={"train/loss": ((2, 1.0), (40, 1.1))})
    assert verify.curves_apart(late, later, 1e-5, exact=False) == (40, None, pytest.approx(0.1))
    stopped = dataclasses.replace(there, curves={"train/loss": ((2, 1.0), (30, 1.0), (40, 1.2))})
    assert verify.curves_apart(stopped, later, 1e-5, exact=False) == (None, None, 0.0), (
        "means over other steps are not compared"
    )


@pytest.mark.feature("R9")
@pytest.mark.parametrize(
    ("metric", "within", "beyond"),
    [
        # Wilson's interval of 128 of 256 is 0.439 to 0.561, and sqrt(2) times its half 0.0864
        (Metric("valid clips", 0.5, 0.4392, 0.5608, "%", True, {}), (0.08, -0.08), (0.14, -0.14)),
        (Metric("fail: speed", 0.5, None, None, "%", False, {"samples": 256}), (0.08, -0.08), (0.14, -0.14)),
        (Metric("bits/dim (bound)", 4.88, 4.872, 4.888, "", False, {}), (0.11, -0.11), (0.3, -0.3)),
        (Metric("fvd", 480.0, 450.0, 520.0, "", False, {}), (56.0, -42.0), (57.0, -43.0)),
        (Metric("direction total variation", 0.1, None, None, "", False, {}), (0.14, -0.1), (0.2, 0.9)),
    ],
)
def test_a_score_of_another_machine_is_as_near_as_its_kind_allows(metric, within, beyond):
    for apart, allowed in ((within, True), (beyond, False)):
        for difference in apart:
            other = metric.value + difference
            assert (abs(difference) <= replay.score_tolerance(metric, other)) == allowed, difference


@pytest.mark.feature("R9")
def test_only_where_nothing_differs_must_the_scores_be_bitwise(whole, published, monkeypatch):
    """Of the environment, the first steps, and what the card says of its own run."""
    read = card.read(published)
    inputs = read.replay.inputs

    def must(found=whole, planted=read):
        first_steps = dataclasses.replace(found, whole=None)
        return verify.must_be_bitwise(first_steps, planted, inputs, inputs)

    assert must()
    unlike = dataclasses.replace(whole.inputs[0], same=False)
    assert not must(dataclasses.replace(whole, inputs=(unlike, *whole.inputs[1:])))
    assert not must(dataclasses.replace(whole, steps=replay.Agreement(3, None, 1e-7)))
    assert not must(dataclasses.replace(whole, same_parameters=False))
    elsewhere = dataclasses.replace(read.replay, of_the_run=replay.OfTheRun(3, replay.WITHIN))
    assert not must(planted=dataclasses.replace(read, replay=elsewhere))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not must(), "a GPU that was not told to repeat its bits"


def test_a_config_that_names_a_place_is_given_another_one_and_never_opens_that_of_the_card(
    planted, capsys, monkeypatch
):
    def folder(values):
        values["data"] = {key: value for key, value in values["data"].items() if key != "moving_shapes"}
        options = {"path": "/etc", "cache": "/tmp/cache", "frame_stride": 1, "flip": False, "validation_fraction": 0.1}
        values["data"] |= {"name": "folder", "folder": options}

    cards.edit(planted, card.CONFIG, folder)
    assert main(["vdm", "verify", str(planted)]) == 2
    assert "the card's data are folder: give --data=DIR" in capsys.readouterr().err
    config = verify.config_of(card.read(planted), "/my/videos")
    assert (config.data.folder.path, config.data.folder.cache) == ("/my/videos", "")


@pytest.mark.feature("R9")
@pytest.mark.parametrize("name", ["/tmp/evil", "../evil", "bair/../../evil"])
def test_a_data_set_that_is_a_path_is_refused(planted, capsys, name):
    options = {"dataset": name, "data_dir": "/x", "train_split": "train", "validation_split": "test"}
    options |= {"frame_stride": 1, "flip": False}

    def tfds(values):
        values["data"] = {key: value for key, value in values["data"].items() if key != "moving_shapes"}
        values["data"] |= {"name": "tfds", "tfds": options}

    cards.edit(planted, card.CONFIG, tfds)
    assert main(["vdm", "verify", str(planted), "--data=/my/data"]) == 2
    assert f"config.data.tfds.dataset is '{name}', a path" in capsys.readouterr().err
    options["dataset"] = "ucf101/ucf101_1_256"
    cards.edit(planted, card.CONFIG, tfds)
    tfds_options = verify.config_of(card.read(planted), "/my/data").data.tfds
    assert (tfds_options.dataset, tfds_options.data_dir) == ("ucf101/ucf101_1_256", "/my/data")


def test_data_that_are_simulated_are_in_no_folder(published, capsys):
    assert main(["vdm", "verify", str(published), "--data=/etc"]) == 2
    assert "they are simulated; leave --data out" in capsys.readouterr().err


@pytest.mark.feature("R9")
def test_what_a_card_says_of_processes_devices_and_files_is_not_done_here(planted):
    def run(values):
        values["run"] |= {"num_workers": 10_000, "num_steps": 8, "stuck_after_seconds": 0.001, "sample_every_steps": 1}
        values["run"]["mesh"] |= {"fsdp": 64}
        values["run"]["distributed"] = {
            "name": "given",
            "heartbeat_seconds": 1,
            "given": {"coordinator_address": "evil.example:80", "num_processes": 9, "process_id": 1},
        }

    cards.edit(planted, card.CONFIG, run)
    _of_inputs(mesh={"data": 1, "fsdp": 64, "tensor": 1, "frames": 1})(planted)
    run = verify.config_of(card.read(planted), "").run
    assert (run.num_workers, run.num_steps, run.sample_every_steps, run.mesh.fsdp) == (0, 8, 0, 1)
    assert run.distributed.name == "none" and run.stuck_after_seconds == 3600.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values["network"]["unet3d"].update(exec="import os"), "config.network.unet3d.exec is no key"),
        (lambda values: values.update(scores={"plugin": {"x": {"path": "/tmp/x"}}}), "config.scores is no key"),
        (lambda values: values["network"].update(name="os.system"), "config.network.name is 'os.system'"),
        (lambda values: values["optimizer"].update(learning_rate="exec('1')"), "it must be float"),
        (lambda values: values["evaluation"].update({"\x1b[2J": 1}), r"config.evaluation.\x1b[2J is no key"),
    ],
)
def test_code_and_unknown_words_in_a_config_are_refused(planted, capsys, change, words):
    cards.edit(planted, card.CONFIG, change)
    assert main(["vdm", "verify", str(planted)]) == 2
    assert words in capsys.readouterr().err


def test_the_scores_of_a_card_are_asked_for_by_their_protocols():
    config = tiny.get_config()
    config.scores.update(metrics=("motion",), num_samples=24, num_real=32, repeats=2, split="train", clip_rule="random")
    (measure,) = measures_of(config)
    protocol = dataclasses.asdict(scoring.protocol_of(config, measure)) | {"sampler": {"name": "heun"}}
    metrics = [
        Metric(measure.title, 1.0, None, None, "", False, protocol),
        Metric("frechet of toy", 1.0, None, None, "", False, {"extractor": "of a user's own file"}),
    ]
    again = tiny.get_config()
    verify.ask_again(again, metrics)
    assert again.scores == config.scores
    shared = entries.common_sampling(2, -6.0, 6.0).to_dict()
    drawn = {"sampling": "common", "sampler": shared}
    verify.ask_again(
        again, [*metrics, Metric("valid clips, common", 1.0, None, None, "%", True, {"samples": 8} | drawn)]
    )
    assert again.scores.samplings == ("common",) and again.scores.sampling.common.to_dict() == shared
    metrics[0].protocol.update(split="test")
    with pytest.raises(ValueError, match=r"config\.scores\.split is 'test'; it must be one of: train, validation"):
        verify.ask_again(again, metrics)
    del metrics[0].protocol["repeats"]
    with pytest.raises(ValueError, match="missing"):
        verify.ask_again(again, metrics)
