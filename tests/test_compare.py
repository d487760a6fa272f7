"""A comparison as a whole: the same work for every arm, nothing done twice, and a report that can be opened alone."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from etils import epath

from configs import base
from tests import tiny
from vdm import compare, sample, train
from vdm.records import record


def grid():
    config = tiny.get_config()
    config.run.num_steps = 2
    with config.unlocked():
        config.compare.arm.ddpm = base.arm(
            "Discrete DDPM",
            "t in {1..T}/T",
            {"schedule": {"name": "ddpm_linear"}, "objective": {"times": {"name": "grid"}}},
            at_least={"valid clips": 0.4},
        )
        config.compare.arm.vp = base.arm("VP-SDE", "t in (0, 1]", {}, at_most={"direction total variation": 0.25})
        config.compare.arm.untrained = base.arm("Untrained", "no step", {"run": {"num_steps": 0}})
    config.compare.arms = ("ddpm", "vp", "untrained")
    return config


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    config = grid()
    config.compare.parallel = 2
    return folder, compare.compare(config, folder)


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
def test_all_arms_start_from_the_same_parameters_and_noise(compared):
    # the two objectives differ, so only what is drawn before training can be equal: parameters and the prior's noise
    folder, _ = compared
    clips = {
        cell.arm: sample.read(sample.folder_of(cell.folder, cell.config.run.num_steps))
        for cell in compare.cells(grid(), epath.Path(folder))
    }
    correlation = np.corrcoef(clips["ddpm"].ravel(), clips["vp"].ravel())[0, 1]
    other = np.corrcoef(clips["ddpm"].ravel(), np.roll(clips["vp"], 1, axis=0).ravel())[0, 1]
    assert correlation > 0.9 > other


def test_lines_that_are_not_passed_are_marked(compared):
    _, done = compared
    passed = {(line.what, line.arm): line.passed for line in done.pass_lines}
    assert passed[("valid clips", "real clips")]
    assert not passed[("valid clips", "Discrete DDPM")]  # after two steps


def test_what_is_recorded_is_not_run_again(compared, monkeypatch):
    folder, before = compared
    monkeypatch.setattr(train, "train", None)  # calling it would fail
    again = compare.compare(grid(), folder)
    assert [arm.record for arm in again.arms] == [arm.record for arm in before.arms]


def test_an_arm_that_changes_an_unknown_key_is_refused_before_any_is_trained(tmp_path):
    config = grid()
    with config.unlocked():
        config.compare.arm.wrong = base.arm("wrong", "", {"objective": {"targets": "v"}})
    config.compare.arms = ("vp", "wrong")
    with pytest.raises(ValueError, match=r"compare.arm.wrong"):
        compare.compare(config, tmp_path)
    assert record.read(tmp_path / "vp" / "seed_0") is None
