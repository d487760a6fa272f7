"""What is refused before processes look for each other, and what they must agree on."""

import jax
import pytest

from configs import base
from tests.runtime import toy
from vdm.runtime import checkpoints, distributed, mesh
from vdm.runtime.checkpoints import CheckpointError, DamagedCheckpointError


def settings(**keys):
    several = base.get_config().run.distributed
    with several.unlocked():
        for key, value in keys.items():
            (several if key in several else several.given)[key] = value
    return several


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        ({"name": "given", "coordinator_address": "host"}, "'host'; it must be host:port"),
        (
            {"name": "given", "coordinator_address": "host:1", "num_processes": 2, "process_id": 2},
            "2 of num_processes=2",
        ),
        ({"name": "given", "coordinator_address": "host:1", "heartbeat_seconds": 0}, "heartbeat_seconds is 0"),
        ({"name": "auto"}, "JAX finds no cluster .*launch/"),
    ],
)
def test_what_cannot_be_is_refused_before_anyone_waits(keys, answer, monkeypatch):
    def initialize(**options):
        raise ValueError("coordinator_address should be defined.")  # what JAX says where it finds no cluster

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    several = settings(**keys)
    with pytest.raises(ValueError, match=answer):
        distributed.start(distributed.WAYS[several.name], several, saves_on_sigterm=False)


def test_one_process_starts_and_ends_by_itself():
    several = settings()
    distributed.start(distributed.WAYS[several.name], several, saves_on_sigterm=True)
    assert not jax.distributed.is_initialized() and distributed.is_writer() and distributed.of_all(7) == [7]
    assert distributed.ended(lambda: 3) == 3
    with pytest.raises(KeyError):  # one process has its traceback
        distributed.ended(lambda: {}["no such key"])


def test_a_run_that_goes_on_asks_for_signals_from_one_on(monkeypatch):
    """A signal before the first question makes JAX's runtime answer yes to question 1, and to that one alone."""
    monkeypatch.setattr(distributed.multihost_utils, "reached_preemption_sync_point", lambda number: number == 1)
    watch = distributed.Watch()
    assert [watch.stops_after(step) for step in (10, 11, 12)] == [True, False, False]


def say(monkeypatch, *answers):
    """Makes every question to all processes be answered by these, this process's own first."""
    monkeypatch.setattr(distributed, "of_all", lambda value: [value, *answers])


def test_processes_that_see_different_checkpoints_are_refused(tmp_path, monkeypatch):
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "commit_success.txt").touch()
    say(monkeypatch, 3, 3)
    assert checkpoints.agreed_steps(tmp_path) == [3]
    say(monkeypatch, 3, -1)
    with pytest.raises(CheckpointError, match=r"process 1 sees 3, process 2 sees -1\. .*a shared file system"):
        checkpoints.agreed_steps(tmp_path)


@pytest.mark.parametrize(("other", "kind"), [(0, None), (1, DamagedCheckpointError), (2, CheckpointError)])
def test_what_one_process_cannot_read_no_other_goes_on_with(other, kind, tmp_path, monkeypatch):
    here = mesh.make_mesh()
    with checkpoints.CheckpointWriter(tmp_path, toy.IDENTITY, max_to_keep=1) as saver:
        saver.save(toy.init_state(here))
    say(monkeypatch, other)
    if kind is None:
        assert int(checkpoints.restore(tmp_path, toy.abstract_state(here)).step) == 0
        return
    for read in (
        lambda: checkpoints.restore(tmp_path, toy.abstract_state(here)),
        lambda: checkpoints.read_identity(tmp_path),
    ):
        with pytest.raises(CheckpointError, match="process 1 could not read its part") as caught:
            read()
        assert type(caught.value) is kind


def test_of_two_troubles_the_graver_is_told(tmp_path, monkeypatch):
    here = mesh.make_mesh()
    with checkpoints.CheckpointWriter(tmp_path, toy.IDENTITY, max_to_keep=1) as saver:
        saver.save(toy.init_state(here))

    def hindered(*args, **options):
        raise PermissionError("no")

    monkeypatch.setattr(checkpoints.ocp.StandardCheckpointHandler, "restore", hindered)
    # another one reads the manifest and finds the state damaged, but this one may just lack the right to read
    others = iter((0, 1))
    monkeypatch.setattr(distributed, "of_all", lambda value: [value, next(others)])
    with pytest.raises(CheckpointError, match="that is no damage") as caught:
        checkpoints.restore(tmp_path, toy.abstract_state(here))
    assert not isinstance(caught.value, DamagedCheckpointError)
