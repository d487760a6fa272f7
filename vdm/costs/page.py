"""A plan as text, and its tables by the line of source that causes a cost."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from vdm.costs.blocks import Work, by_block, phase_of, table
from vdm.costs.chips import Chip, Topology
from vdm.costs.estimate import Rank, spell
from vdm.costs.program import Collective, Kernel

SMALL = 1e6  # bytes sent; exchanges of less are listed apart
_SHOWN = 12


def collectives_by_cause(collectives: Iterable[Collective]) -> list[dict[str, Any]]:
    """Rows of kind, group size, whether small, cause, count and bytes sent, the largest first."""
    sums: dict[tuple[Any, ...], list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for each in collectives:
        key = (each.kind, each.group_size, each.sent_bytes < SMALL, each.where, phase_of(each.op_name))
        sums[key][0] += each.count
        sums[key][1] += each.count * each.sent_bytes
    names = ("kind", "group_size", "is_small", "where", "phase")
    rows = [
        dict(zip(names, key, strict=True)) | {"count": int(count), "sent_bytes": sent}
        for key, (count, sent) in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["sent_bytes"])


def kernels_by_cause(kernels: Iterable[Kernel], chip: Chip) -> list[dict[str, Any]]:
    """Rows of operation, cause, count, FLOPs, bytes and seconds at the roofline, the longest first."""
    sums: dict[tuple[Any, ...], list[float]] = collections.defaultdict(lambda: [0, 0.0, 0.0, 0.0, 0])
    for each in kernels:
        key = (each.op_name.rsplit("/", 1)[-1], each.where, phase_of(each.op_name))
        for place, value in enumerate((1, each.flops, each.bytes, at_roofline(each, chip), each.cycles)):
            sums[key][place] += value * each.count
    names = ("operation", "where", "phase", "count", "flops", "bytes", "seconds", "cycles")
    rows: list[dict[str, Any]] = [dict(zip(names, (*key, *values), strict=True)) for key, values in sums.items()]
    return sorted(rows, key=lambda row: -row["seconds"])[: 5 * _SHOWN]


def kernels_by_block(kernels: Iterable[Kernel], chip: Chip, named: Collection[str]) -> list[dict[str, Any]]:
    """Rows of block, phase, FLOPs, bytes and seconds at the roofline; see `blocks.by_block`."""
    timed = ((each, each.count * at_roofline(each, chip)) for each in kernels)
    return [dataclasses.asdict(work) for work in by_block(timed, named)]


def at_roofline(kernel: Kernel, chip: Chip) -> float:
    """Seconds of a kernel, each time, if either its FLOPs or its bytes were all that takes time."""
    return max(kernel.flops / chip.peak_flops, kernel.bytes / chip.memory_bandwidth)


def page(plan: dict[str, Any], chip: Chip) -> str:
    """What `python -m vdm plan` prints of one mesh."""
    compiled, guess = plan["compiled"], plan["estimate"]
    lines = [
        f"{plan['config']} on {plan['topology']}, mesh {spell(plan['mesh'])}, batch {plan['batch_size']}, "
        f"remat {plan['remat']}",
        f"  parameters          {plan['parameters']:,}",
        f"  model FLOPs         {_flops(plan['model_flops'])} a step and device (nothing recomputed or padded)",
        f"  executed FLOPs      {_flops(plan['executed_flops'])} (jaxpr, recomputed blocks twice)",
    ]
    if compiled is None:
        lines += _estimate_lines(plan, guess, chip)
    else:
        lines += _compiled_lines(plan, compiled, guess, chip)
    if not plan["fits"]:
        options = ", ".join(plan["levers"]) or "no change of batch, microbatches, remat, fsdp or frames"
        lines.append(f"  DOES NOT FIT. By the estimate, what would: {options}")
    return "\n".join(lines)


def _estimate_lines(plan: dict[str, Any], guess: dict[str, Any], chip: Chip) -> list[str]:
    why = f"the compiler refused it: {plan['refusal']}" if "refusal" in plan else "no compiler for it is installed here"
    line = guess["roofline"]
    return [
        f"  ESTIMATE from the jaxpr alone ({why})",
        f"  memory              {_gb(guess['bytes'])} of {_gb(chip.memory_bytes)} a device: state "
        f"{_gb(guess['state_bytes'])}, besides {_gb(guess['temporary_bytes'])} at most",
        f"  sent to others      {_gb(guess['sent_bytes'])} a step and device",
        f"  roofline            {_time(line, guess['seconds'], guess['bound'])}",
        f"  utilisation         {guess['utilisation']:.1%} at best, estimated",
    ]


def _compiled_lines(plan: dict[str, Any], compiled: dict[str, Any], guess: dict[str, Any], chip: Chip) -> list[str]:
    memory, own, line = compiled["memory"], compiled["compiler"], compiled["roofline"]
    lines = [
        f"  memory              {_gb(memory['total'])} of {_gb(chip.memory_bytes)} a device: arguments "
        f"{_gb(memory['arguments'])}, temporaries {_gb(memory['temporaries'])}, results not donated "
        f"{_gb(memory['results_not_donated'])}, program {_gb(memory['program'])}",
        f"  compiled FLOPs      {_flops(compiled['flops'])} a step and device, {_gb(compiled['bytes'])} of main "
        f"memory; XLA's own count {_flops(own['flops'])}, {_gb(own['bytes'])} with vector memory",
        f"  roofline            {_time(line, line['seconds'], line['bound'])}",
        f"  utilisation         {compiled['utilisation']:.1%} predicted (the estimate said {guess['utilisation']:.1%})",
        f"  compile time        {compiled['compile_seconds']:.0f} s after {compiled['lower_seconds']:.0f} s of tracing",
    ]
    if compiled["num_unknown_loops"]:
        lines.append(f"  {compiled['num_unknown_loops']} loops of unknown length are counted once")
    lines += ["", "  exchanges, by kind; of less than 1 MB apart:"]
    sums: dict[tuple[str, int, bool], list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for row in compiled["collectives"]:
        key = (row["kind"], row["group_size"], row["is_small"])
        sums[key][0] += row["count"]
        sums[key][1] += row["sent_bytes"]
    for (kind, size, is_small), (count, sent) in sorted(sums.items(), key=lambda item: -item[1][1]):
        lines.append(f"    {kind:<19}of {size:<4}{int(count):>6} x  {_gb(sent):>10} sent{'  small' * is_small}")
    lines += ["", "  what causes most exchanges:"]
    lines += [
        f"    {row['kind']:<19}{row['phase']:<11}{row['count']:>5} x  {_gb(row['sent_bytes']):>10}  "
        f"{row['where'] or '?'}"
        for row in compiled["collectives"][:_SHOWN]
    ]
    lines += ["", "  what takes most time at the roofline:"]
    lines += [
        f"    {row['operation'] or '(copies)':<24.24}{row['phase']:<11}{1e3 * row['seconds']:>8.2f} ms  "
        f"{_flops(row['flops']):>10}  {_gb(row['bytes']):>10}  {row['where'] or '?'}"
        for row in compiled["kernels"][:_SHOWN]
    ]
    lines += ["", "  and by block of the network:"]
    lines += [f"    {line}" for line in table(Work(**row) for row in compiled["blocks"]).splitlines()]
    return lines


def ranking(ranks: Sequence[Rank], topology: Topology) -> str:
    """The meshes and policies of a search with their estimates."""
    lines = [f"Meshes of {topology.name} and policies of run.remat by the estimate, the best first:"]
    for axes, remat, guess in ranks:
        fits = "fits" if guess.fits(topology.chip) else "does not fit"
        lines.append(
            f"  {spell(axes):<28}{remat:<9}{1e3 * guess.roofline.seconds:>9.1f} ms  {guess.utilisation:>6.1%}  "
            f"{_gb(guess.bytes):>10}  {fits}, {guess.roofline.bound}-bound"
        )
    return "\n".join(lines)


def verdict(plans: Sequence[dict[str, Any]]) -> str:
    """Which of several plans to take: of those that fit the fastest at the roofline."""
    fit = [plan for plan in plans if plan["fits"]]
    if not fit:
        return "None of these fits."
    best = min(fit, key=_seconds)
    by = "compiled" if best["compiled"] else "estimated"
    return (
        f"The fastest that fits: --mesh={spell(best['mesh'])} with --config.run.remat={best['remat']}, "
        f"{1e3 * _seconds(best):.1f} ms a step at the roofline, {by}."
    )


def _seconds(plan: dict[str, Any]) -> float:
    return plan["compiled"]["roofline"]["seconds"] if plan["compiled"] else plan["estimate"]["seconds"]


def _time(line: dict[str, float], seconds: float, bound: str) -> str:
    return (
        f"{1e3 * seconds:.1f} ms a step, bound by {bound}: compute {1e3 * line['compute']:.1f}, memory "
        f"{1e3 * line['memory']:.1f}, exchanges {1e3 * line['collectives']:.1f}"
    )


def _gb(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"


def _flops(count: float) -> str:
    unit, name = next(pair for pair in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (0, "")) if count >= pair[0])
    return f"{count / (unit or 1):.4g} {name}"
