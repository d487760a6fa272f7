"""The table of the README, made from the records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdm.costs import chips
from vdm.costs.estimate import spell
from vdm.records.readme import replace_block

PAGE = Path(__file__).parent / "README.md"
_HEAD = (
    "| config | chips | mesh | batch | memory, GB (of) | model TFLOP | compiled TFLOP | main memory, GB | sent, GB "
    "| step at the roofline, ms | bound by | predicted utilisation | compile, s |"
)


def page(text: str, records: Sequence[dict[str, Any]]) -> str:
    """The README with the table between its markers."""
    return replace_block(text, "plans", table(records))


def table(records: Sequence[dict[str, Any]]) -> str:
    """One row a plan, all figures of one device and step; then where and with what they were compiled."""
    if not records:
        return "No plan is recorded yet."
    lines = [_HEAD, "|" + "---|" * _HEAD.count("| ")]
    lines += [_row(record) for record in records]
    compiled = [record for record in records if record["compiled"] is not None]
    made_by = sorted({_made_by(record) for record in compiled})
    return "\n".join([*lines, "", *(f"- {line}" for line in made_by)])


def _row(record: dict[str, Any]) -> str:
    memory = chips.topology(record["topology"]).chip.memory_bytes / 1e9
    start = f"| {record['config']} | {record['topology']} | {spell(record['mesh'])} | {record['batch_size']} "
    compiled = record["compiled"]
    if compiled is None:
        return f"{start}| does not fit ({memory:.0f}) | {record['model_flops'] / 1e12:.1f} " + "| " * 7 + "|"
    sent = sum(row["sent_bytes"] for row in compiled["collectives"])
    line = compiled["roofline"]
    cells = (
        f"{compiled['memory']['total'] / 1e9:.1f} ({memory:.0f})",
        f"{record['model_flops'] / 1e12:.1f}",
        f"{compiled['flops'] / 1e12:.1f}",
        f"{compiled['bytes'] / 1e9:.0f}",
        f"{sent / 1e9:.2f}",
        f"{1e3 * line['seconds']:.0f}",
        line["bound"],
        f"{compiled['utilisation']:.1%}",
        f"{compiled['compile_seconds']:.0f}",
    )
    return start + "| " + " | ".join(cells) + " |"


def _made_by(record: dict[str, Any]) -> str:
    versions, environment = record["compiled"]["versions"], record["environment"]
    commit = environment["code"]["commit"] or "no commit"
    return (
        f"Compiled with libtpu {versions['libtpu']} and jax {versions['jax']} on {environment['num_cpus']} CPU cores, "
        f"from commit {commit[:12]}."
    )
