"""The record that a run leaves in its work directory, `record.json`: what was asked, where it ran, and what came out.

Tables, plots and reports are made from records, so what a record lacks cannot be claimed. It is written whole, under
another name, and
then renamed: a reader sees the old one or the new one, never half of one.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from etils import epath
from ml_collections import ConfigDict

from vdm.records import environment, identity, schema
from vdm.records.checks import Checks

VERSION = 1
FILE_NAME = "record.json"

OWN = "own"  # in protocols: by the run's own sampler, which its config describes
BITS = "bits/dim"  # begins the name of every likelihood
PER_LOG_SNR = f"{BITS} per log-SNR"  # among `level_losses`: the bound's curve, whose integral it is

Status = Literal["running", "finished", "stopped"]
Curve = tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number with its confidence interval and its protocol.

    Attributes:
      unit: `%` values are held as shares in [0, 1] and shown in per cent; other units are shown as they are; empty:
        none.
      low, high: limits of the 95 % interval in the value's unit; None where there is none.
      higher_is_better: None where neither is.
      protocol: everything that the number depends on besides the run (samples, split, seed, sampler, tolerances); two
        metrics of one name are comparable only where their protocols are equal.
      floor: the same number for clips of the data in place of samples; None where it was not measured.
      by_number: (samples of each set, value), where it depends on them; at_infinity: what that leads to.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    unit: str
    higher_is_better: bool | None
    protocol: dict[str, Any]
    floor: float | None = None
    at_infinity: float | None = None
    by_number: tuple[tuple[int, float], ...] | None = None

    @property
    def sampling(self) -> str:
        """What drew the clips: `OWN`, or one of `config.scores.samplings`, whose name then ends the metric's."""
        return self.protocol.get("sampling", OWN)

    @property
    def quantity(self) -> str:
        """What was measured, whatever drew the clips."""
        return self.name.removesuffix(name_by("", self.sampling))


def name_by(quantity: str, sampling: str) -> str:
    """What a quantity is called in records when it is measured of the clips of a sampling."""
    return quantity if sampling == OWN else f"{quantity}, {sampling}"


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of the process. A run that was stopped and resumed has several, perhaps on other machines or commits.

    Attributes:
      time: in UTC, ISO 8601.
      step: that it began from.
      run: `config.run` of this start.
      mesh: devices along each axis.
    """

    time: str
    step: int
    run: dict[str, Any]
    mesh: dict[str, int]
    environment: environment.Environment


@dataclasses.dataclass(frozen=True)
class EffectiveWeight:
    """The weight on the noise error times the density of levels, at log-SNRs: what the objective really is."""

    log_snr: tuple[float, ...]
    weight: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run did.

    Attributes:
      config: resolved, `run` of the last start included; its identity's hash is `identity_hash`.
      data_fingerprint: hash of what the data are, from their source.
      seeds: purpose -> seed.
      num_steps: of the optimiser, done so far.
      timings: seconds, by what they were spent on (set-up, compile, train, sample), summed over the starts.
      curves: name -> (step, value); `/` in a name groups (`validation/log_snr -4`).
      level_losses: name of the error -> (log_snr, loss) at the end of training, on held-out clips.
      checks: what `python -m vdm check` measured in the work directory before the last start; None if it was not run.
      metrics: of the samples; `evaluated_step` is the checkpoint's step that they were drawn from, None before that.
    """

    version: int
    status: Status
    name: str
    identity_hash: str
    config: dict[str, Any]
    starts: tuple[Start, ...]
    data_fingerprint: str
    seeds: dict[str, int]
    num_parameters: int
    effective_weight: EffectiveWeight
    num_steps: int = 0
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    curves: dict[str, Curve] = dataclasses.field(default_factory=dict)
    level_losses: dict[str, tuple[tuple[float, float], ...]] = dataclasses.field(default_factory=dict)
    checks: Checks | None = None
    metrics: tuple[Metric, ...] = ()
    evaluated_step: int | None = None


def begin(
    config: ConfigDict,
    *,
    mesh: Mapping[str, int],
    data_fingerprint: str,
    seeds: Mapping[str, int],
    num_parameters: int,
    effective_weight: EffectiveWeight,
) -> Record:
    """The record of a run that starts now at step 0."""
    return Record(
        version=VERSION,
        status="running",
        name=str(config.name),
        identity_hash=identity.identity_hash(config),
        config=identity.resolve(config),
        starts=(_start(config, mesh, step=0),),
        data_fingerprint=data_fingerprint,
        seeds=dict(seeds),
        num_parameters=num_parameters,
        effective_weight=effective_weight,
    )


def resume(record: Record, config: ConfigDict, *, mesh: Mapping[str, int], step: int, data_fingerprint: str) -> Record:
    """The record of the same run, going on from `step` under a `config.run` that may be another one.

    What it tells of later steps (points of its curves, losses, metrics) is dropped: it will be computed again. Other
    data than the record's are a ValueError.
    """
    if data_fingerprint != record.data_fingerprint:
        raise ValueError(
            f"Run {record.identity_hash} learned from data {record.data_fingerprint}, now they are {data_fingerprint}. "
            "Bring the recorded data back, or start afresh in another --workdir."
        )
    curves = {name: tuple(point for point in curve if point[0] <= step) for name, curve in record.curves.items()}
    if step < record.num_steps:
        record = dataclasses.replace(record, level_losses={})
    if step < (record.evaluated_step or 0):
        record = dataclasses.replace(record, metrics=(), evaluated_step=None)
    return dataclasses.replace(
        record,
        status="running",
        config=identity.resolve(config),
        starts=(*record.starts, _start(config, mesh, step)),
        num_steps=step,
        curves=curves,
    )


def spend(record: Record, what: str, seconds: float) -> Record:
    """The record with `seconds` added to the timing `what`."""
    return dataclasses.replace(record, timings=record.timings | {what: record.timings.get(what, 0.0) + seconds})


def write(workdir: epath.PathLike, record: Record) -> None:
    """Writes `record.json`. For process 0 only. NaN anywhere is a ValueError, and the record before stays."""
    folder = epath.Path(workdir)
    text = schema.dumps(record, FILE_NAME)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / FILE_NAME, text.encode())


def write_diff(workdir: epath.PathLike, repository: Path = environment.REPOSITORY) -> None:
    """Keeps the patch behind a dirty commit as `code-HASH.diff`. For process 0, when a run starts or resumes."""
    code = environment.read_code(repository)
    if not code.dirty:
        return
    patch = environment.diff(repository)
    path = epath.Path(workdir) / f"code-{hashlib.sha256(patch).hexdigest()[: identity.SHORT_HASH_LENGTH]}.diff"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, patch)


def read(workdir: epath.PathLike) -> Record | None:
    """The record in the work directory, or None where there is none.

    A broken one, or one of another version, is a ValueError.
    """
    path = epath.Path(workdir) / FILE_NAME
    return loads(path.read_text(), str(path)) if path.exists() else None


def loads(text: str, name: str) -> Record:
    """The record that a document holds; `name` says in an error which one. ValueError as `read`."""
    record = schema.loads(Record, text, name, version=VERSION)
    computed = identity.identity_hash(record.config)
    if computed != record.identity_hash:
        raise ValueError(
            f"{name} names run {record.identity_hash}, but its config is {computed}: edited? Restore or delete it."
        )
    return record


def read_same(workdir: epath.PathLike, config: ConfigDict) -> Record | None:
    """The record that a run of `config` goes on from, or None.

    A record of another identity is a ValueError that names the differences.
    """
    record = read(workdir)
    if record is not None:
        identity.require_same_identity(record.config, config, str(workdir))
    return record


def write_whole(path: epath.Path, content: bytes) -> None:
    """Writes a file so that a reader finds the old one or the new one, whole."""
    partial = path.parent / f".{path.name}.partial"
    partial.write_bytes(content)
    partial.replace(path)


def _start(config: ConfigDict, mesh: Mapping[str, int], step: int) -> Start:
    return Start(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        step=step,
        run=identity.resolve(config)["run"],
        mesh=dict(mesh),
        environment=environment.read_environment(),
    )
