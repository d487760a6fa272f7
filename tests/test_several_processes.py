"""Two processes are one run: the same batches, noise, state and files as of one, and they end together."""

from __future__ import annotations

import json
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from tests import several_processes as several
from tests import toy_extractor
from vdm import build
from vdm.records import record
from vdm.runtime import checkpoints, distributed, processes
from vdm.runtime import mesh as meshes
from vdm.runtime.state import abstract_state

TOLERANCE = 2e-5  # of the largest parameter; see the test


def wait_for(condition, run, seconds=150):
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [process.poll() for process in run.processes]
        assert time.monotonic() < deadline and ended == [None] * len(ended), f"{ended}\n{run.said()}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two lives of two processes, and one of a single one; how each ended."""
    folder, ends = tmp_path_factory.mktemp("runs"), {}
    two = folder / "two"
    toy_extractor.write(folder)
    with several.Run(several.story("until_told", two), folder / "told", 2) as run:
        wait_for(lambda: checkpoints.saved_steps(two / "checkpoints"), run)
        run.processes[1].send_signal(signal.SIGTERM)
        ends["told"] = run.codes(60), checkpoints.saved_steps(two / "checkpoints"), record.read(two), run.said()
    done = ends["told"][1][-1]
    shutil.copytree(two / "checkpoints" / str(done), two / "checkpoints" / str(done + 1))
    for part in (two / "checkpoints" / str(done + 1) / "state" / "d").iterdir():
        part.write_bytes(part.read_bytes()[:10])  # where all small arrays lie
    with several.Run(several.story("after_that", two), folder / "killed", 2) as run:
        wait_for(lambda: (folder / "two_done" / "all").exists(), run)
        run.processes[1].kill()
        since = time.monotonic()
        ends["killed"] = run.codes(60)[0], time.monotonic() - since, run.logs[0].read_text(), run.said()
    with several.Run(several.story("one_process", folder / "one"), folder / "one_log", 1) as run:
        assert run.codes(150) == [0], run.said()
    return folder, ends


@pytest.mark.feature("R6", "R7")
def test_sigterm_to_one_process_saves_one_step_of_all_and_ends_them(runs):
    codes, steps, left, said = runs[1]["told"]
    assert codes == [processes.STOPPED] * 2, said
    assert left.status == "stopped" and left.num_steps == steps[-1]
    assert left.starts[0].environment.num_processes == 2


@pytest.mark.feature("R6")
def test_a_process_that_dies_ends_the_other_in_time_with_a_line_that_says_why(runs):
    code, seconds, log, said = runs[1]["killed"]
    assert code == distributed.LOST, said
    assert seconds < 1.5 * several.HEARTBEAT_SECONDS + 5
    last = log.rstrip().splitlines()[-1]
    assert last.startswith("error: JAX's runtime ended this process") and "dies or cannot be reached" in last


@pytest.mark.feature("R6", "R7")
def test_all_go_back_to_the_last_good_checkpoint_and_one_moves_the_damaged_one_aside(runs):
    folder, ends = runs
    done = ends["told"][1][-1]
    log = (folder / "killed_0.txt").read_text()
    assert log.count(f"warning: the checkpoint of step {done + 1} is damaged") == 1
    assert f"going on from step {done} in" in log
    aside = folder / "two_done" / "damaged_checkpoints"
    assert [path.name for path in aside.iterdir()] == [str(done + 1)]


@pytest.mark.feature("R6")
def test_each_process_reads_its_rows_of_the_same_batch_and_draws_the_same_noise(runs):
    folder, _ = runs
    for step in range(2):
        for name in ("video", "index", "noise"):
            whole, parts = (
                [dict(np.load(path)) for path in sorted((folder / run).glob(f"batch_{step}_{name}_*.npz"))]
                for run in ("one", "two_done")
            )
            assert len(whole) == 1 and len(parts) == 2
            assert not parts[0].keys() & parts[1].keys(), "both processes hold the same rows"
            assert whole[0].keys() == parts[0].keys() | parts[1].keys()
            for row, array in (parts[0] | parts[1]).items():
                np.testing.assert_array_equal(array, whole[0][row], err_msg=f"{name} from row {row} on")


@pytest.mark.feature("R6", "R7")
def test_two_processes_that_were_stopped_end_as_one_that_was_not(runs):
    folder, _ = runs
    experiment = build.experiment(several.tiny.get_config())
    here = meshes.make_mesh(devices=jax.devices()[:1])
    abstract = abstract_state(
        experiment.init, experiment.optimizer, here, experiment.rules, experiment.proposal.first()
    )
    one, two = (checkpoints.restore(folder / run / "checkpoints", abstract) for run in ("one", "two_done"))
    assert int(one.step) == int(two.step)
    for part in ("params", "ema"):
        ours, theirs = (jax.tree.map(np.asarray, getattr(state, part)) for state in (one, two))
        tolerance = TOLERANCE * max(np.abs(leaf).max() for leaf in jax.tree.leaves(ours))
        # sums over processes are taken in another order than within one
        differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ours, theirs)
        assert max(jax.tree.leaves(differences)) <= tolerance, differences


@pytest.mark.feature("R6", "M2")
def test_samples_and_scores_of_a_checkpoint_do_not_depend_on_the_number_of_processes(runs):
    folder, _ = runs
    files = [
        {path.relative_to(folder / run): path.read_bytes() for path in (folder / run).rglob("*") if path.is_file()}
        for run in ("two_done", "two_by_one")
    ]
    made = [{path for path in found if path.parts[0] in ("samples", "evaluation")} for found in files]
    sheets = {path for path in made[0] if path.name.startswith("sheet_")}  # of the training, which the copy leaves out
    assert len(made[1]) == 8 and made[1] == made[0] - sheets
    for path in made[1]:
        assert files[0][path] == files[1][path], path
    one, two = (json.loads((folder / run / "record.json").read_text()) for run in ("two_by_one", "two_done"))
    assert one["metrics"] == two["metrics"] and one["evaluated_step"] == two["evaluated_step"]
    assert one["metrics"][-1]["name"] == "frechet of toy"
    for name, row in one["level_losses"].items():
        np.testing.assert_allclose(two["level_losses"][name], row, rtol=1e-6)


@pytest.mark.feature("R6")
def test_a_process_that_hangs_ends_those_that_wait_for_it_and_all_say_where(tmp_path):
    with several.Run(several.story("one_that_hangs", tmp_path), tmp_path / "log", 2) as run:
        codes = run.codes(120)
    waits, hangs = (log.read_text() for log in run.logs)
    # the other one's clock may be a moment later, and the end of process 0 be what it sees first
    assert codes[0] == 1 and codes[1] in (1, distributed.LOST), (codes, waits, hangs)
    assert "Timeout" in waits and "in of_all" in waits
    assert "in one_that_hangs" in hangs or codes[1] == distributed.LOST


@pytest.mark.feature("R6")
def test_one_process_writes(runs):
    folder, _ = runs
    assert "step 1/" in (folder / "told_0.txt").read_text()
    assert "loss" not in (folder / "told_1.txt").read_text()
    metrics = folder / "two_done" / "metrics"
    assert len(list(metrics.glob("events*"))) == 2, "a life of the run has more than one event file"
