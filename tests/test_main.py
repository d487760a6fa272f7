"""The command line: what a stranger reads, and what bad input is answered with before any compute is spent."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from data import video_io
from data.sources import folder as folder_source
from data.sources import moving_shapes, simulated
from tests import webm
from vdm import build
from vdm.__main__ import VERBS, main
from vdm.costs import profiling
from vdm.records import record
from vdm.runtime import watchdog

CONFIG = "--config=tests/tiny.py"


def run(*arguments: str) -> int:
    return main(["vdm", *arguments])


def refused(capsys, *arguments: str) -> str:
    """What is printed for a command that must be refused."""
    assert run(*arguments) == 2
    return capsys.readouterr().err


def test_help_lists_the_verbs_and_each_verb_explains_itself(capsys):
    assert run("--help") == 0
    overview = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb}" in overview
        assert run(verb, "--help") == 0
        text = capsys.readouterr().out
        usage = text.splitlines()[0]
        assert usage.startswith(f"python -m vdm {verb} ")
        assert ("--config=configs/NAME.py" in usage) == (verb not in ("publish", "verify"))
        assert ("--workdir=DIR" in usage) == (verb not in ("plan", "verify"))
        assert (" CARD" in usage) == (verb == "verify")
        assert ("--config.KEY=VALUE" in text) == ("--config=" in usage)


def test_a_verb_that_takes_a_folder_without_its_name_takes_one(capsys, tmp_path):
    assert "CARD is missing" in refused(capsys, "verify")
    assert "cannot read 'b'" in refused(capsys, "verify", "a", "b")
    assert f"{tmp_path} holds no card.json" in refused(capsys, "verify", str(tmp_path))
    assert f"{tmp_path} holds no card.json" in refused(capsys, "verify", "--steps=3", str(tmp_path))
    assert "Unknown command line flag 'config'" in refused(capsys, "verify", str(tmp_path), CONFIG)


def test_what_a_strangers_file_says_does_not_reach_the_terminal_as_a_command(capsys, tmp_path):
    (tmp_path / "\x1b[2Jcard.json").write_text("")
    assert "\x1b" not in refused(capsys, "verify", str(tmp_path))
    assert "\\x1b[2J" in refused(capsys, "verify", str(tmp_path / "\x1b[2J"))


def test_an_unknown_verb_names_the_known_ones(capsys):
    assert "train, sample, evaluate, compare" in refused(capsys, "trian")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ((CONFIG,), "--workdir=... is missing"),
        (("--workdir=x",), "--config=... is missing"),
        ((CONFIG, "--workdir=x", "--config.data.batchsize=3"), "batchsize"),
        ((CONFIG, "--workdir=x", "--config.data.batch_size=many"), "many"),
        ((CONFIG, "--workdir=x", "--numclips=3"), "numclips"),
        ((CONFIG, "--workdir=x", "stray"), "stray"),
        (("--config=configs/none.py", "--workdir=x"), "configs/none.py"),
        ((CONFIG, "--workdir=x", "--config.schedule.name=linear"), "ddpm_linear, ddpm_cosine, smld, vp_linear"),
        ((CONFIG, "--workdir=x", "--config.data.name=shapes"), "moving_shapes"),
        ((CONFIG, "--workdir=x", "--config.objective.target=epsilon"), "x0, noise, v, score"),
        ((CONFIG, "--workdir=x", "--config.network.label_dropout=0.1"), "class_conditional"),
        ((CONFIG, "--workdir=x", "--config.data.height=9"), "9 x 8"),
        ((CONFIG, "--workdir=x", "--config.run.mesh.fsdp=3"), "multiply"),
        ((CONFIG, "--workdir=x", "--config.run.distributed.name=several"), "none, auto, given"),
        ((CONFIG, "--workdir=x", "--config.run.distributed.name=given"), "host:port of process 0"),
        ((CONFIG, "--workdir=x", "--config.objective.times.name=grid", "--config.schedule.name=ddpm_linear",
          "--config.objective.times.grid.num_steps=10"), "make them equal"),
        ((CONFIG, "--workdir=x", "--config.schedule.name=ddpm_linear", "--config.sampler.num_steps=2000"), "1000-step"),
        ((CONFIG, "--workdir=x", "--config.evaluation.log_snrs=(-99.0,)"), "-99"),
        ((CONFIG, "--workdir=x", "--config.objective.data_std=0.3"), "root mean square of"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_before_compute(arguments, answer, capsys, tmp_path, monkeypatch):
    arguments = [f"--workdir={tmp_path / 'x'}" if word == "--workdir=x" else word for word in arguments]
    assert answer in refused(capsys, "train", *arguments)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "change",
    [
        "network.name=unet2d",
        "network.unet3d.norm=batch",
        "network.label_dropout=0.1",
        "data.height=9",
        "schedule.name=linear",
        "objective.target=epsilon",
        "objective.weighting.name=p3",
        "objective.proposal.name=random",
        "objective.noise_prior.name=pink",
        "sampler.threshold.name=soft",
        "sampler.guidance.name=classifier_free",
        "objective.times.name=normal",
        "optimizer.name=sgd",
        "sampler.name=pndm",
        "sampler.spacing.name=even",
        "sampler.num_steps=0",
        "evaluation.log_snrs=(-99.0,)",
        "run.mesh.fsdp=3",
    ],
)
def test_what_is_wrong_in_a_config_is_said_before_a_folder_is_decoded(change, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_source, "decode", None)  # calling it would fail
    folder = ("--config.data.name=folder", f"--config.data.folder.path={tmp_path}")
    error = refused(capsys, "train", CONFIG, f"--workdir={tmp_path / 'run'}", *folder, f"--config.{change}")
    assert "error: " in error and str(tmp_path) not in error  # nor is the folder refused, for it is empty


def test_a_work_directory_of_another_run_is_refused_before_a_folder_is_decoded(trained, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_source, "decode", None)
    folder = ("--config.data.name=folder", f"--config.data.folder.path={tmp_path}")
    for verb in ("train", "sample", "evaluate"):
        error = refused(capsys, verb, CONFIG, f"--workdir={trained}", *folder)
        assert 'data.name: "moving_shapes" -> "folder"' in error


def test_a_folder_without_videos_and_clips_longer_than_every_video_are_refused(capsys, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    folder = (
        CONFIG,
        f"--workdir={tmp_path / 'run'}",
        "--config.data.name=folder",
        f"--config.data.folder.path={videos}",
    )
    assert str(videos) in refused(capsys, "train", *folder)
    (videos / "broken.mp4").write_bytes(b"not a video")
    assert "broken.mp4" in refused(capsys, "train", *folder)
    video_io.write(videos / "short.mp4", np.zeros((3, 16, 16, 3), np.uint8), fps=8)
    assert "3 frames" in refused(capsys, "train", *folder)


@pytest.mark.feature("D3")
def test_it_trains_on_a_folder_of_real_video_files(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    source = moving_shapes.World(num_frames=12, height=24, width=32)
    write = {"one.mp4": video_io.write, "two.webm": webm.write, "three.gif": video_io.write}
    for number, name in enumerate(write):
        clip = simulated.splits(source, num_train=3, num_validation=1).train[number]["video"]
        write[name](videos / name, clip, fps=8)
    folder = (
        CONFIG,
        f"--workdir={tmp_path / 'run'}",
        "--config.data.name=folder",
        f"--config.data.folder.path={videos}",
    )
    steps = ("--config.run.num_steps=2", "--config.data.folder.frame_stride=2", "--config.objective.data_std=0.9")
    steps += ("--config.evaluation.num_validation=0",)
    assert run("train", *folder, *steps, "--overfit=2") == 0
    done = record.read(tmp_path / "run")
    assert done is not None and (done.status, done.num_steps) == ("finished", 2)
    assert done.config["data"]["overfit"] == 2
    assert len(done.level_losses["validation/loss"]) == 2  # taken on the one clip that is held out
    assert run("evaluate", *folder, *steps, "--config.data.overfit=2") == 0


def test_grey_digits_are_trained_on_by_class_drawn_and_scored(tmp_path):
    digits = (CONFIG, f"--workdir={tmp_path}", "--config.data.name=moving_digits", "--config.objective.data_std=0.9")
    digits += ("--config.data.height=16", "--config.data.width=16", "--config.data.moving_digits.num_train=32")
    digits += ("--config.data.moving_digits.num_digits=1", "--config.data.moving_digits.num_validation=8")
    classes = ("--config.network.class_conditional=True", "--config.network.label_dropout=0.5")
    assert run("train", *digits, *classes, "--config.run.num_steps=2") == 0
    assert run("sample", *digits, *classes, "--num_clips=2") == 0
    clips = np.load(tmp_path / "samples" / "00000002" / "clips.npz")["clips"]
    assert clips.shape == (2, 4, 16, 16, 1)
    assert run("evaluate", *digits, *classes) == 0
    done = record.read(tmp_path)
    assert done is not None and done.evaluated_step == 2 and not done.metrics  # nobody reads digits back
    assert sorted((tmp_path / "samples").glob("sheet_*.png"))


@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_a_run_that_is_not_there_cannot_be_sampled(verb, capsys, tmp_path):
    assert "train" in refused(capsys, verb, CONFIG, f"--workdir={tmp_path}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    steps = ("--config.run.num_steps=2", "--config.run.checkpoint_every_steps=1")
    assert run("train", CONFIG, f"--workdir={folder}", *steps) == 0
    return folder


def test_too_few_clips_and_frame_rates_that_no_file_has_are_refused_before_sampling(trained, capsys, monkeypatch):
    monkeypatch.setattr(build, "experiment", None)  # calling it would fail
    for option, answer in (("--fps=0", "[1, 50]"), ("--fps=51", "[1, 50]"), ("--num_clips=0", "at least 1")):
        assert answer in refused(capsys, "sample", CONFIG, f"--workdir={trained}", option)


def test_an_older_checkpoint_is_sampled_at_the_rate_that_was_asked_for(trained, capsys):
    steps = ("--config.sampler.num_steps=3", "--num_clips=2")
    assert run("sample", CONFIG, f"--workdir={trained}", "--checkpoint_step=1", "--fps=25", *steps) == 0
    assert "2 clips of step 1" in capsys.readouterr().out
    assert video_io.frame_rate(trained / "samples" / "00000001" / "samples.mp4") == 25
    assert "only of the steps [1, 2]" in refused(
        capsys, "sample", CONFIG, f"--workdir={trained}", "--checkpoint_step=7"
    )
    assert run("evaluate", CONFIG, f"--workdir={trained}", "--checkpoint_step=1", "--config.sampler.num_steps=3") == 0


def test_sample_writes_what_a_player_and_a_person_can_open(trained):
    options = ("--num_clips=3", "--config.sampler.num_steps=3", "--config.evaluation.batch_size=1", "--profile=1")
    assert run("sample", CONFIG, f"--workdir={trained}", *options) == 0
    assert "down_0/block_0" in (trained / "profile" / profiling.TABLE).read_text()
    folder = trained / "samples" / "00000002"
    clips = np.load(folder / "clips.npz")["clips"]
    assert clips.shape == (3, 4, 8, 8, 3)
    assert clips.dtype == np.uint8
    frames, _ = video_io.read_video(folder / "samples.mp4")
    assert len(frames) == 4
    assert (folder / "samples.gif").read_bytes()[:3] == b"GIF"
    assert (folder / "sheet.png").read_bytes()[1:4] == b"PNG"


def test_evaluate_writes_losses_per_level_and_metrics_with_their_protocol(trained, capsys, monkeypatch):
    beats = []
    monkeypatch.setattr(watchdog.Watchdog, "beat", lambda dog: beats.append(dog))
    assert run("evaluate", CONFIG, f"--workdir={trained}") == 0
    assert len(beats) == 3 and len(set(beats)) == 1  # at the start, after a batch of validation, after one of samples
    printed = capsys.readouterr().out
    assert "valid clips" in printed
    written = json.loads((trained / "record.json").read_text())
    (noisy, loss), (clean, other) = written["level_losses"]["validation/loss"]
    assert (noisy, clean) == (-2, 2)
    assert f"validation/loss: -2: {loss:.4g}, 2: {other:.4g}" in printed
    metrics = {metric["name"]: metric for metric in written["metrics"]}
    assert metrics["valid clips"]["value"] < 0.5  # two steps of training draw no clip that holds together
    assert metrics["valid clips"]["protocol"]["samples"] == 8
    drawn = {key: metrics["valid clips"]["protocol"][key] for key in ("sampling", "network_evaluations")}
    assert drawn == {"sampling": "own", "network_evaluations": 5}  # two steps of Heun, and the last estimate
    assert written["config"]["sampler"]["name"] == "heun"


def test_weights_of_i3d_are_refused_before_anything_is_drawn(trained, capsys, tmp_path):
    """Where no metric would read them, where there are none, and where they are another network's."""
    given = CONFIG, f"--workdir={trained}", f"--i3d_weights={tmp_path / 'i3d.pt'}"
    assert "config.scores.metrics is (): fvd and kvd see clips with I3D" in refused(capsys, "evaluate", *given)
    fvd = "--config.scores.metrics=('fvd',)"
    assert f"there is no file {tmp_path / 'i3d.pt'}" in refused(capsys, "evaluate", *given, fvd)
    shutil.copy("tests/metrics/features/torch_written/archive.pt", tmp_path / "i3d.pt")
    assert "I3D has 58 convolutions and 57 batch norms" in refused(capsys, "evaluate", *given, fvd)


def test_a_checkpoint_of_another_network_names_what_differs(trained, capsys):
    error = refused(capsys, "sample", CONFIG, f"--workdir={trained}", "--config.network.unet3d.channels=16")
    assert "network.unet3d.channels: 8 -> 16" in error


def test_a_loss_that_is_not_finite_is_an_error_and_no_traceback(capsys, tmp_path):
    rate = ("--config.optimizer.learning_rate=1e18", "--config.optimizer.warmup_steps=0")  # as in test_train: compiled
    assert run("train", CONFIG, f"--workdir={tmp_path}", *rate) == 1
    assert "not finite in step" in capsys.readouterr().err


def test_recorded_steps_without_a_checkpoint_are_not_done_again_in_silence(trained, capsys, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    shutil.rmtree(copy / "checkpoints")
    assert "record of 2 steps and no checkpoint" in refused(capsys, "train", CONFIG, f"--workdir={copy}")
    assert record.read(copy) == record.read(trained)


def test_a_checkpoint_that_was_cut_short_says_so(trained, capsys, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    for path in (copy / "checkpoints").glob("*/state/**/d/*"):  # which of them hold the arrays is chance
        path.write_bytes(path.read_bytes()[:50])
    error = refused(capsys, "sample", CONFIG, f"--workdir={copy}")
    assert error.startswith("error: the checkpoint of step 2 is damaged") and error.count("\n") == 2, error
