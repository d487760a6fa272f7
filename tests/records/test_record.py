import dataclasses
import hashlib
import importlib.metadata
import json
import subprocess

import jax
import numpy as np
import pytest

from configs.base import get_config
from vdm.records import environment, identity, record

WEIGHT = record.EffectiveWeight(log_snr=(-1.0, 1.0), weight=(0.5, 0.25))
METRIC = record.Metric("valid", 0.5, 0.4, 0.6, "%", True, {"num_samples": 256, "tolerances": [0.5, 0.2]})


def _begin(config=None):
    return record.begin(
        get_config() if config is None else config,
        mesh={"data": 1, "fsdp": 1, "tensor": 1, "frames": 1},
        data_fingerprint="d",
        seeds={"noise": 3},
        num_parameters=10,
        effective_weight=WEIGHT,
    )


def _full():
    filled = record.spend(record.spend(_begin(), "train", 1.5), "train", 2.0)
    return dataclasses.replace(
        filled,
        status="finished",
        num_steps=100,
        curves={"train/loss": ((50, 1.0), (100, 0.5))},
        level_losses={"v error": ((-2.0, 0.5), (2.0, 0.25))},
        metrics=(METRIC,),
    )


@pytest.mark.feature("R9")
def test_a_record_returns_as_it_was_written(tmp_path):
    written = _full()
    record.write(tmp_path / "new", written)
    restored = record.read_same(tmp_path / "new", get_config())
    assert (
        record.read(tmp_path / "new") == _full()
        or record.read(tmp_path / "new").starts[0].time != _full().starts[0].time
    )
    restored = record.read_same(tmp_path / "new", get_config())
    assert restored is not None
    assert dataclasses.replace(restored, starts=()) == dataclasses.replace(_full(), starts=())
    assert restored.timings == {"train": 3.5}
    assert identity.identity_hash(restored.config) == identity.identity_hash(get_config())


def test_an_empty_workdir_has_no_record(tmp_path):
    assert record.read(tmp_path) is None
    assert record.read_same(tmp_path / "absent", get_config()) is None


def test_a_workdir_of_another_identity_is_refused(tmp_path):
    record.write(tmp_path, _begin())
    config = get_config()
    config.seed = 1
    with pytest.raises(ValueError, match=r"seed: 0 -> 1"):
        record.read_same(tmp_path, config)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1.0)])
def test_numbers_that_are_not_json_are_refused_and_the_old_record_stays(tmp_path, value):
    record.write(tmp_path, _full())
    broken = dataclasses.replace(_full(), curves={"train/loss": ((1, 0.5), (2, value))})
    before = (tmp_path / record.FILE_NAME).read_bytes()
    with pytest.raises(ValueError, match=r"record\.json\.curves\.train/loss\[1\]\[1\] is"):
        record.write(tmp_path, broken)
    assert (tmp_path / record.FILE_NAME).read_bytes() == before


def test_a_write_that_dies_half_way_leaves_the_old_record(tmp_path, monkeypatch):
    record.write(tmp_path, _begin())
    monkeypatch.setattr(type(record.epath.Path(tmp_path)), "replace", _die)
    with pytest.raises(OSError, match="no space"):
        record.write(tmp_path, _full())
    restored = record.read(tmp_path)
    assert restored is not None
    assert restored.status == "running"


def _die(*_):
    raise OSError("no space left")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda value: value.pop("seeds"), r"missing \['seeds'\]"),
        (lambda value: value.update(extra=1), r"unknown \['extra'\]"),
        (lambda value: value.update(version=2), r"version 2; this code reads 1"),
        (lambda value: value.update(status="done"), r"status is 'done'; allowed: 'running', 'finished', 'stopped'"),
        (
            lambda value: value["starts"][0]["environment"]["code"].update(commit=3),
            r"starts\[0\]\.environment\.code\.commit is 3.*must be str",
        ),
        (
            lambda value: value["curves"]["train/loss"][0].append(1),
            r"curves\.train/loss\[0\] has 3 entries; it needs 2",
        ),
        (lambda value: value["metrics"][0].update(value="0.5"), r"metrics\[0\]\.value is '0.5'.*must be float"),
        (lambda value: value.update(num_steps=True), r"num_steps is True.*must be int"),
        (lambda value: value["config"].update(seed=5), r"names run .* but its config is"),
    ],
)
def test_a_damaged_record_is_an_error_that_names_the_place(tmp_path, edit, words):
    record.write(tmp_path, _full())
    path = tmp_path / record.FILE_NAME
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=words):
        record.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, ',
        '{"version": 1, "num_steps": NaN}',
        '{"version": 1, "num_steps": 1e999}',
        '{"version": 1, "version": 1}',
        "[" * 100_000,
        "[]",
    ],
)
def test_a_file_that_is_no_strict_json_is_an_error(tmp_path, text):
    (tmp_path / record.FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match=r"strict JSON|schema version"):
        record.read(tmp_path)


def test_a_resumed_run_keeps_its_history_and_drops_what_it_computes_again():
    config = get_config()
    config.run.num_steps = 2000
    full = dataclasses.replace(_full(), evaluated_step=100)
    resumed = record.resume(full, config, mesh={"data": 2}, step=75, data_fingerprint="d")
    assert [start.step for start in resumed.starts] == [0, 75]
    assert [start.run["num_steps"] for start in resumed.starts] == [1000, 2000]
    assert resumed.curves == {"train/loss": ((50, 1.0),)}
    assert (resumed.level_losses, resumed.metrics, resumed.evaluated_step) == ({}, (), None)
    assert (resumed.status, resumed.num_steps, resumed.identity_hash) == ("running", 75, _full().identity_hash)
    with pytest.raises(ValueError, match="now they are e"):
        record.resume(_full(), config, mesh={"data": 2}, step=75, data_fingerprint="e")


def _repository(folder):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (folder / "a.py").write_text("a = 1\n")
    (folder / "requirements.txt").write_text("x==1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return git


def test_the_code_is_the_commit_and_what_differs_from_it(tmp_path):
    git = _repository(tmp_path)
    clean = environment.read_code(tmp_path)
    assert clean == environment.Code(git("rev-parse", "HEAD"), False, None, "")
    (tmp_path / "a.py").write_text("a = 2\n")
    changed = environment.read_code(tmp_path)
    (tmp_path / "b.py").write_bytes(b"# \xe9\n")
    added = environment.read_code(tmp_path)
    assert changed.dirty and added.dirty and changed.commit == clean.commit
    assert len({clean.diff_sha256, changed.diff_sha256, added.diff_sha256}) == 3

    record.write_diff(tmp_path / "run", tmp_path)
    (patch,) = (tmp_path / "run").glob("code-*.diff")
    assert patch.name == f"code-{added.diff_sha256[:12]}.diff"
    for name in ("a.py", "b.py"):
        (tmp_path / name).unlink()
    git("checkout", "-q", "a.py")
    git("apply", str(patch))
    assert (tmp_path / "a.py").read_text() == "a = 2\n"
    assert (tmp_path / "b.py").read_bytes() == b"# \xe9\n"


def test_what_a_study_writes_while_it_runs_is_no_change_of_the_code(tmp_path):
    git = _repository(tmp_path)
    generated = (
        "README.md",
        "experiments/a/README.md",
        "experiments/a/records/b/c.json",
        "experiments/a/figures/d.svg",
    )
    code = ("vdm/records/card.py", "experiments/a/grid.py", "tests/records/x.json")
    for name in (*generated, *code):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("add", ".")
    git("commit", "-q", "-m", "second")
    for name in generated:
        (tmp_path / name).write_text("2\n")
    assert not environment.read_code(tmp_path).dirty and environment.diff(tmp_path) == b""
    for name in code:
        (tmp_path / name).write_text("2\n")
        assert f"b/{name}\n".encode() in environment.diff(tmp_path)
    assert environment.read_code(tmp_path).dirty


def test_outside_a_checkout_the_commit_is_null_and_says_why(tmp_path, monkeypatch):
    assert environment.read_environment(tmp_path).code == environment.Code(None, False, None, "not a git checkout")
    record.write_diff(tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()
    _repository(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert environment.read_code(tmp_path).note == "git is not installed"


def test_the_environment_tells_what_jax_would_use(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    told = environment.read_environment(tmp_path)
    assert told.versions["jax"] == jax.__version__
    assert told.versions["numpy"] == np.__version__
    assert sum(told.devices.values()) == jax.device_count()
    assert told.flags["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false"
    assert told.lock_sha256 is None
    assert set(told.affinity) <= set(range(told.num_cpus))


@pytest.mark.parametrize(
    ("backend", "extra", "package"),
    [("cpu", "", ""), ("gpu", "cuda", "nvidia-cudnn-cu13"), ("tpu", "tpu", "libtpu")],
)
def test_an_accelerators_packages_and_lock_are_among_the_inputs(tmp_path, monkeypatch, backend, extra, package):
    """Planted: no machine has all of these."""
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.1" if name == package else version(name))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    (tmp_path / "requirements").mkdir()
    for name in ("requirements.txt", "requirements/cuda.txt", "requirements/tpu.txt"):
        (tmp_path / name).write_text(f"# {name}\n")
    told = environment.read_environment(tmp_path)
    assert told.versions.keys() - {"python", *environment.PACKAGES} == {package} - {""}
    assert not package or told.versions[package] == "9.1"
    assert told.flags["NVIDIA_TF32_OVERRIDE"] == "0"
    lock = "# requirements.txt\n" + (f"# requirements/{extra}.txt\n" if extra else "")
    assert environment.lock_of(tmp_path) == lock.encode()
    assert told.lock_sha256 == hashlib.sha256(lock.encode()).hexdigest()
