"""The launch recipes, as far as a machine without the services can tell: what they start, and what JAX makes of it."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax._src.clusters import ClusterEnv  # there is no public way to ask what `jax.distributed.initialize()` would find

from configs import base
from vdm.runtime import distributed

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = ("one_node.sh", "slurm.sbatch", "tpu_slice.sh", "xpk.sh")
ARGUMENTS = ["train", "--config=configs/demo.py", "--workdir=/runs/a folder"]
SET = {"TPU_NAME": "slice", "ZONE": "z", "CLUSTER": "c", "WORKLOAD": "w", "TPU_TYPE": "v5litepod-16", "IMAGE": "i"}


def launched(script: str, folder: Path, ends_with: int = 0, **variables: str) -> tuple[int, list[list[str]]]:
    """Runs a recipe with stand-ins for the programs that it calls; its exit code, and the calls, words apart."""
    calls, stand_in = folder / "calls", folder / "stand_in"
    stand_in.write_text(
        f"""#!/bin/bash
        name=$(basename "$0")
        exec 9>>{shlex.quote(str(calls))}
        flock 9
        printf '%s\\0' "$name" "XLA_FLAGS=$XLA_FLAGS" "$@" >&9
        printf '\\n' >&9
        [ "$name" = scontrol ] || exit {ends_with}
        """
    )
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IEXEC)
    for name in ("gcloud", "xpk", "srun", "scontrol", "python"):
        (folder / name).symlink_to(stand_in)
    variables = SET | {"PATH": f"{folder}:{os.environ['PATH']}", "XLA_FLAGS": "--of_the_user"} | variables
    command = [LAUNCH / script, *ARGUMENTS]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode in (0, ends_with), done.stderr
    return done.returncode, [line.split("\0")[:-1] for line in calls.read_text().split("\n")[:-1]]


@pytest.mark.parametrize("script", ["tpu_slice.sh", "xpk.sh"])
def test_on_tpus_every_host_gets_the_same_command_and_finds_the_others_itself(script, tmp_path):
    _, (call,) = launched(script, tmp_path)
    (command,) = (word.removeprefix("--command=") for word in call if word.startswith("--command="))
    _, _, started = command.partition(" -m vdm ")
    assert shlex.split(started) == [*ARGUMENTS, "--config.run.distributed.name=auto"]
    assert "source launch/flags.sh tpu && " in command
    if script == "tpu_slice.sh":
        assert "--worker=all" in call


def test_on_one_node_every_gpu_has_its_process(tmp_path):
    code, calls = launched("one_node.sh", tmp_path, NUM_PROCESSES="3", PORT="5000", PYTHON="python", ends_with=75)
    assert code == 75 and len(calls) == 3
    of_all = "--config.run.distributed.given."
    for call in calls:
        assert call[2:8] == ["-m", "vdm", *ARGUMENTS, "--config.run.distributed.name=given"]
        assert f"{of_all}coordinator_address=localhost:5000" in call and f"{of_all}num_processes=3" in call
        assert call[1] == "XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true --of_the_user"
    assert {call[-1] for call in calls} == {f"{of_all}process_id={process}" for process in range(3)}


@pytest.mark.parametrize(
    ("ends_with", "again"), [(0, False), (1, False), (2, False), (75, True), (137, True), (143, True)]
)
def test_on_slurm_a_run_that_can_go_on_is_queued_again(ends_with, again, tmp_path):
    code, calls = launched(
        "slurm.sbatch", tmp_path, ends_with, PYTHON="python", SLURM_SUBMIT_DIR=str(LAUNCH.parent), SLURM_JOB_ID="7"
    )
    assert code == ends_with
    assert calls[0][0] == "srun" and calls[0][-4:] == [*ARGUMENTS, "--config.run.distributed.name=auto"]
    assert [call[0] for call in calls] == ["srun", *["scontrol"] * again]


def test_on_slurm_a_run_is_not_queued_again_for_ever(tmp_path):
    place = {"SLURM_SUBMIT_DIR": str(LAUNCH.parent), "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "50"}
    code, calls = launched("slurm.sbatch", tmp_path, 75, PYTHON="python", **place)
    assert code == 75 and [call[0] for call in calls] == ["srun"]


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        (
            {"SLURM_JOB_ID": "4097", "SLURM_STEP_NODELIST": "node[03-04]", "SLURM_STEP_NUM_NODES": "2",
             "SLURM_NTASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"},
            ("node03:61441", 16, 9, [1]),
        ),
        ({"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.0.0.3:34911", "OMPI_COMM_WORLD_SIZE": "4",
          "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "3"}, (None, 4, 3, [3])),
    ],
)  # fmt: skip
def test_auto_is_what_the_cluster_says(variables, number, monkeypatch):
    """What JAX reads off the variables of the launcher is what `auto` leaves to it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    address, *rest = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 1)
    assert tuple(rest) == number[1:] and number[0] in (None, address)
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: given.update(options))
    distributed.WAYS["auto"](base.get_config().run.distributed)
    assert given == {"heartbeat_timeout_seconds": 100}


def test_every_flag_is_known_to_the_compiler():
    command = f"source {LAUNCH / 'flags.sh'} gpu && exec {sys.executable} -c 'import jax; jax.devices()'"
    done = subprocess.run(
        ["bash", "-c", command], env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_platform_without_flags_is_refused():
    done = subprocess.run(
        ["bash", "-c", f"source {LAUNCH / 'flags.sh'} tup"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "must be tpu, gpu or cpu" in done.stderr
