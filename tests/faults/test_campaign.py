"""Three runs of the campaign, small: the whole of it is `python -m tests.faults` (make test-all)."""

from __future__ import annotations

import signal

import pytest

from tests.faults import __main__ as campaign
from tests.faults import lives, plan
from tests.faults.__main__ import FACTOR
from tests.faults.plan import FOUR, ONE, TWO, Case, Kill

NUM_STEPS = 16
IN_A_SAVE = Kill(signal.SIGKILL, "save", after_steps=3, delay=0.1, victim=0)
BETWEEN_SAVES = Kill(signal.SIGTERM, "step", after_steps=2, delay=0.1, victim=0)
ONE_OF_TWO = Kill(signal.SIGKILL, "step", after_steps=6, delay=0.1, victim=1)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The runs that nobody disturbs, on one device and on four."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for setup in (ONE, FOUR):
        lives.finish(setup, folder / setup.name, 0, NUM_STEPS)
    return folder


@pytest.mark.feature("R7")
def test_a_run_that_is_killed_in_a_save_and_told_to_stop_between_saves_ends_with_the_same_bits(uninterrupted, tmp_path):
    case = Case("same", ((ONE, IN_A_SAVE), (ONE, BETWEEN_SAVES)), ONE, NUM_STEPS)
    row = lives.run_case(case, tmp_path / "same", uninterrupted / ONE.name)
    assert row["difference"] == 0 and [kill["codes"] for kill in row["kills"]] == [[-9], [143]]
    first, second, third = row["starts"]
    assert first == 0 and second <= third and third >= 2


@pytest.mark.feature("R5", "R7")
def test_a_run_goes_on_on_other_devices(uninterrupted, tmp_path):
    case = Case("changing", ((FOUR, BETWEEN_SAVES),), ONE, NUM_STEPS)
    row = lives.run_case(case, tmp_path / "changing", uninterrupted / ONE.name)
    apart = lives.check_state(uninterrupted / FOUR.name, uninterrupted / ONE.name, same_bits=False)
    assert 0 < row["difference"] <= FACTOR * apart


@pytest.mark.feature("R6", "R7")
def test_a_run_of_two_processes_of_which_one_dies_goes_on_in_one(uninterrupted, tmp_path):
    case = Case("two processes", ((TWO, ONE_OF_TWO),), FOUR, NUM_STEPS)
    row = lives.run_case(case, tmp_path / "two", uninterrupted / FOUR.name)
    apart = lives.check_state(uninterrupted / FOUR.name, uninterrupted / ONE.name, same_bits=False)
    assert row["difference"] <= FACTOR * apart and row["kills"][0]["codes"] == [75, -9]


SEEN = [{0: 10, 1: 11}, {2: 12, 3: 13}, {4: 14, 5: 15}]


@pytest.mark.parametrize(
    ("lives_seen", "signal_name", "wrong"),
    [
        ((SEEN[:2], SEEN[1:]), "SIGKILL", None),
        ((SEEN[:2], SEEN[2:]), "SIGTERM", None),
        ((SEEN[:1], SEEN[2:]), "SIGKILL", "began at step 2, after 1"),
        ((SEEN[:2], SEEN[1:]), "SIGTERM", "began at step 1, after 2"),
        ((SEEN[:2], [{4: 14, 5: 99}]), "SIGKILL", "step 2"),
        ((SEEN[:2], [{4: 14, 6: 15}]), "SIGKILL", "step 2"),
        ((SEEN[:2], []), "SIGKILL", "steps in all"),
    ],
)
def test_what_is_lost_repeated_or_changed_is_noticed(lives_seen, signal_name, wrong):
    kills = [{"signal": signal_name, "codes": [0]}]
    if wrong is None:
        assert lives.check_batches(lives_seen, kills, SEEN, 3)[0] == 0
    else:
        with pytest.raises(lives.WrongError, match=wrong):
            lives.check_batches(lives_seen, kills, SEEN, 3)


def test_a_campaign_that_goes_on_after_the_cases_of_one_device_has_its_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(lives, "finish", lambda *_: None)
    monkeypatch.setattr(lives, "check_state", lambda *_, same_bits: 1e-6)
    row = {"kills": [], "difference": 2e-6}
    monkeypatch.setattr(lives, "run_case", lambda case, *_: {"case": case.name, "same_mesh": case.same_mesh} | row)
    left = [case for case in plan.campaign(0) if not (case.same_mesh and case.last == ONE)]
    assert campaign.run(left, tmp_path, tmp_path / "record.json") == 0


def test_the_plan_of_a_seed_is_one_and_is_as_large_as_promised():
    cases = plan.campaign(0)
    assert cases == plan.campaign(0) != plan.campaign(1)
    kills = [(setup, kill) for case in cases for setup, kill in case.lives]
    assert len(kills) >= 40 and {kill.moment for _, kill in kills} == {"start", "step", "save"}
    assert {kill.how for _, kill in kills} == {signal.SIGKILL, signal.SIGTERM}
    assert {kill.victim for setup, kill in kills if setup == TWO} == {0, 1}
    for case in cases:  # there is something left to be killed, and to be finished
        assert sum(kill.after_steps + plan.CHECKPOINT_EVERY_STEPS + 4 for _, kill in case.lives) < case.num_steps
