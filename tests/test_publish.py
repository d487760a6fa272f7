"""Publishing: a run that its own config gives again becomes a card, and no other."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import base
from tests import tiny
from vdm import evaluate, publish, sample, train
from vdm.__main__ import main
from vdm.nets.sharding import path_of
from vdm.records import card, identity, record, replay


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Stopped after 3 steps and gone on to 6: its log has a mean over one step at 3, and over one at 4."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny.get_config()
    config.run.num_steps = 3
    train.train(config, folder)
    train.train(tiny.get_config(), folder)
    evaluate.evaluate(tiny.get_config(), folder)
    return folder


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("cards") / "tiny"
    assert main(["vdm", "publish", f"--workdir={trained}", f"--out={out}", "--weights"]) == 0
    return out


@pytest.mark.feature("R9")
def test_a_card_has_all_that_a_run_left_and_its_first_steps(trained, published):
    read, done = card.read(published), record.read(trained)
    assert read.record == done and read.config == done.config
    assert (published / card.LOCK).read_bytes() == (publish.environment.REPOSITORY / "requirements.txt").read_bytes()
    assert (published / card.SAMPLES).read_bytes()[:4] == b"GIF8"
    assert len(read.replay.losses) == len(read.replay.gradient_norms) == replay.NUM_STEPS
    assert [step for step, _ in done.curves["train/loss"]] == [2, 3, 4, 6]
    assert read.replay.of_the_run == replay.OfTheRun(4, replay.BITWISE)
    by_hand = np.float32(read.replay.losses[4]) + np.float32(read.replay.losses[5])
    assert dict(done.curves["train/loss"])[6] == float(by_hand) / 2
    assert dict(done.curves["train/gradient_norm"])[3] == read.replay.gradient_norms[2]


@pytest.mark.feature("R9")
def test_weights_are_those_that_samples_are_drawn_with(trained, published):
    _, average, _ = sample.restore(tiny.get_config(), trained)
    loaded = safetensors.numpy.load_file(published / card.WEIGHTS)
    leaves = {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(average)}
    assert loaded.keys() == leaves.keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(loaded[name], leaf)


@pytest.mark.feature("R9")
def test_the_page_begins_as_a_hub_wants_it_and_has_every_score(trained, published):
    page = (published / card.PAGE).read_text()
    begin, front, rest = page.split("---\n", 2)
    assert begin == "" and front.splitlines()[0] == "library_name: vdm" and '- "moving_shapes"' in front.splitlines()
    done = record.read(trained)
    for metric in done.metrics:
        assert f"| {metric.name} | " in rest and identity.canonical_json(metric.protocol) in rest
    assert f"({card.SAMPLES})" in rest and "vdm verify" in rest and done.data_fingerprint in rest
    for name in card.FILES:
        assert name == card.PAGE or f"]({name})" in rest


def test_a_card_is_not_written_over_other_things_or_of_nothing(trained, capsys, tmp_path):
    def refused(*arguments):
        assert main(["vdm", "publish", *arguments]) == 2
        return capsys.readouterr().err

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("x")
    assert "thesis.tex" in refused(f"--workdir={trained}", f"--out={tmp_path / 'taken'}")
    assert "--out=... is missing" in refused(f"--workdir={trained}")
    assert "--workdir=... is missing" in refused("--out=x")
    assert "holds no record.json; run `python -m vdm train`" in refused(f"--workdir={tmp_path}", "--out=x")
    done = dataclasses.replace(record.read(trained), metrics=(), evaluated_step=None)
    record.write(tmp_path, done)
    assert "holds no scores; run `python -m vdm evaluate`" in refused(f"--workdir={tmp_path}", "--out=x")
    record.write(tmp_path, dataclasses.replace(record.read(trained), curves={}))  # as of config.run.num_steps = 0
    assert "this run logged no training loss" in refused(f"--workdir={tmp_path}", f"--out={tmp_path / 'card'}")
    assert not (tmp_path / "card").exists()


@pytest.mark.feature("R9")
def test_a_run_that_its_config_does_not_give_again_is_not_published(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    done = record.read(trained)
    points = [(step, loss * (1.01 if step == 4 else 1)) for step, loss in done.curves["train/loss"]]
    record.write(copy, dataclasses.replace(done, curves=done.curves | {"train/loss": tuple(points)}))
    words = r"loss up to step 4 is not what its config gives here \(relative difference 0\.0099\); what differs: "
    with pytest.raises(ValueError, match=words):
        publish.publish(copy, tmp_path / "card", with_weights=False)
    assert not (tmp_path / "card").exists()


def _record(steps, starts):
    done = record.begin(
        base.get_config(),
        mesh={},
        data_fingerprint="",
        seeds={},
        num_parameters=0,
        effective_weight=record.EffectiveWeight((), ()),
    )
    starts = tuple(dataclasses.replace(done.starts[0], step=step) for step in starts)
    return dataclasses.replace(done, starts=starts, curves={"train/loss": tuple((step, 0.0) for step in steps)})


@pytest.mark.parametrize(
    ("steps", "starts", "begins"),
    [
        ((2, 4), (0,), {2: 0, 4: 2}),
        ((2, 4, 6), (0, 3), {2: 0, 4: 3, 6: 4}),  # killed in step 5, gone on from 3
        ((2, 4, 6), (0, 3, 2), {2: 0, 4: 2, 6: 4}),  # and then from 2, since 3 was damaged
        ((), (0,), {}),
    ],
)
def test_a_mean_of_the_log_begins_after_the_line_before_or_the_start_that_lasted(steps, starts, begins):
    assert publish.window_begins(_record(steps, starts)) == begins


def test_points_beyond_the_first_steps_are_not_compared():
    done = dataclasses.replace(_record((), (0,)), curves={"train/loss": ((2, 1.5), (4, 3.5), (6, 9.0))})
    steps, met = publish.met_points(done, [1.0, 2.0, 3.0, 4.0, 5.0], 1e-5)
    assert steps == [2, 4] and met.verdict == replay.BITWISE
    _, met = publish.met_points(done, [1.0, 2.0, 3.0, 4.1, 5.0], 1e-5)
    assert met.verdict == replay.DIFFERENT and met.beyond == 1
