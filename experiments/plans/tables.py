"""The tables of the two READMEs, made from the records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdm.costs import chips, estimate
from vdm.costs.estimate import spell
from vdm.records.readme import replace_block, table

PAGE = Path(__file__).parent / "README.md"
FRONT_PAGE = Path(__file__).parents[2] / "README.md"
KERNEL_BYTES = 2  # the papers' configs compute in bfloat16, and gather in it
_PLANS = (
    "config",
    "chips",
    "mesh",
    "remat",
    "batch",
    "memory GB (of)",
    "model TFLOP",
    "compiled TFLOP",
    "main memory GB",
    "sent GB",
    "step at the roofline ms",
    "bound by",
    "predicted utilisation",
    "compile s",
)
_EXCHANGES = (
    "config",
    "chips",
    "gathered GB (formula)",
    "scattered sums GB (formula)",
    "sums over data GB (formula)",
    "of it in exchanges of under 1 MB",
    "permutes and all-to-alls of the partitioner",
    "of the backend",
)
_SCALING = ("config", "chips", "devices", "FLOPs a device", "temporaries a device")
_SCALE = ("config", "chips", "clips a device", "memory of a device, GB (of)", "predicted utilisation", "bound by")


def pages(records: Sequence[dict[str, Any]]) -> dict[Path, str]:
    """What the READMEs should be: the text of each with its tables between their markers."""
    compiled = [record for record in records if record["compiled"] is not None]
    page = replace_block(PAGE.read_text(), "plans", plans(records))
    page = replace_block(page, "exchanges", exchanges(compiled))
    page = replace_block(page, "scaling", scaling(compiled))
    return {PAGE: page, FRONT_PAGE: replace_block(FRONT_PAGE.read_text(), "scale", scale(compiled))}


def plans(records: Sequence[dict[str, Any]]) -> str:
    """One row a plan, all figures of one device and step; then where and with what they were compiled."""
    made_by = sorted({_made_by(record) for record in records if record["compiled"] is not None})
    return "\n".join([_table(_PLANS, [_plan(record) for record in records]), "", *(f"- {line}" for line in made_by)])


def exchanges(records: Sequence[dict[str, Any]]) -> str:
    """Bytes that a device sends in a step beside the formula's."""
    return _table(_EXCHANGES, [_exchange(record) for record in records])


def scaling(records: Sequence[dict[str, Any]]) -> str:
    """FLOPs and temporaries of a device against those on the smallest slice of the same chips."""
    rows = []
    for record in records:
        same = [other for other in records if _kind(other) == _kind(record) and other["config"] == record["config"]]
        first = min(same, key=_num_devices)
        if first is not record:
            flops = record["compiled"]["flops"] / first["compiled"]["flops"]
            memory = [each["compiled"]["memory"]["temporaries"] for each in (record, first)]
            against = f"{_num_devices(first)} to {_num_devices(record)}"
            rows.append([record["config"], _kind(record), against, f"x {flops:.4f}", f"x {memory[0] / memory[1]:.4f}"])
    return _table(_SCALING, rows)


def scale(records: Sequence[dict[str, Any]]) -> str:
    """The front page's rows."""
    rows = [
        [
            record["config"],
            record["topology"],
            f"{record['batch_size'] / _num_devices(record):g}",
            _memory(record),
            f"{record['compiled']['utilisation']:.1%}",
            record["compiled"]["roofline"]["bound"],
        ]
        for record in records
    ]
    return _table(_SCALE, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "No plan is recorded yet."
    return table(head, rows)


def _plan(record: dict[str, Any]) -> list[str]:
    start = [record["config"], record["topology"], spell(record["mesh"]), record["remat"], str(record["batch_size"])]
    model = f"{record['model_flops'] / 1e12:.1f}"
    compiled = record["compiled"]
    if compiled is None:
        limit = chips.topology(record["topology"]).chip.memory_bytes
        return [*start, f"does not fit ({limit / 1e9:.0f})", model, *[""] * 7]
    line = compiled["roofline"]
    return [
        *start,
        _memory(record),
        model,
        f"{compiled['flops'] / 1e12:.1f}",
        f"{compiled['bytes'] / 1e9:.0f}",
        f"{sum(row['sent_bytes'] for row in compiled['collectives']) / 1e9:.2f}",
        f"{1e3 * line['seconds']:.0f}",
        line["bound"],
        f"{compiled['utilisation']:.1%}",
        f"{compiled['compile_seconds']:.0f}",
    ]


def _memory(record: dict[str, Any]) -> str:
    limit = chips.topology(record["topology"]).chip.memory_bytes
    return f"{record['compiled']['memory']['total'] / 1e9:.1f} ({limit / 1e9:.0f})"


def formulas(record: dict[str, Any]) -> dict[str, float]:
    """Bytes that a device must send in a step, by kind of exchange."""
    gathers = estimate.gathers_under(record["remat"])
    return estimate.exchanges(record["parameters"], record["mesh"], compute_bytes=KERNEL_BYTES, num_gathers=gathers)


def sent(record: dict[str, Any], kind: str, *, sizes: Sequence[bool] = (False, True)) -> float:
    """Bytes that a device sends in a step by one kind of exchange; `sizes`: whether those of under 1 MB, and others."""
    rows = record["compiled"]["collectives"]
    return sum(row["sent_bytes"] for row in rows if row["kind"] == kind and row["is_small"] in sizes)


def moved(record: dict[str, Any], *, by_backend: bool) -> list[dict[str, Any]]:
    """Exchanges of no formula: those with a name in the program are the partitioner's, those without the backend's."""
    rows = [row for row in record["compiled"]["collectives"] if row["kind"] not in formulas(record)]
    return [row for row in rows if (row["where"] == "" and row["phase"] == "rest") == by_backend]


def _exchange(record: dict[str, Any]) -> list[str]:
    small = sum(sent(record, kind, sizes=(True,)) for kind in formulas(record))
    others = [moved(record, by_backend=by_backend) for by_backend in (False, True)]
    return [
        record["config"],
        record["topology"],
        *(f"{sent(record, kind) / 1e9:.3f} ({bytes / 1e9:.3f})" for kind, bytes in formulas(record).items()),
        f"{small / 1e6:.0f} MB",
        *(
            f"{sum(row['count'] for row in rows)} ({sum(row['sent_bytes'] for row in rows) / 1e6:.1f} MB)"
            for rows in others
        ),
    ]


def _made_by(record: dict[str, Any]) -> str:
    versions, environment = record["compiled"]["versions"], record["environment"]
    commit = environment["code"]["commit"] or "no commit"
    return (
        f"Compiled with libtpu {versions['libtpu']} and jax {versions['jax']} on {environment['num_cpus']} CPU cores, "
        f"from commit {commit[:12]}."
    )


def _kind(record: dict[str, Any]) -> str:
    return chips.topology(record["topology"]).kind


def _num_devices(record: dict[str, Any]) -> int:
    return chips.topology(record["topology"]).num_devices
