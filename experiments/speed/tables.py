"""The tables of the README, from the record."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import binom

from experiments.speed.scaling import THEORY, exponent
from experiments.speed.works import KINDS, OURS, SIDES, SIZES
from vdm.records.readme import table

Record = Mapping[str, Any]
Records = Mapping[str, Record]
NONE_YET = "Not computed yet."

WORK = ["work", "dim (multipliers), clips"]


def pairs(records: Records) -> str:
    """Time: a row a pair, how many times ours each other side takes."""
    others = [side for side in SIDES if side != "ours" and _is_there(side, records)]
    header = [
        *WORK,
        "parameters",
        "GFLOPs: ours",
        "theirs",
        "ours, ms",
        *(f"{SIDES[each]}: times ours" for each in others),
    ]
    made = _table(header, records, lambda record: _times(record["sides"], others))
    return f"{made}\n\n{_made_by(records)}" if records else made


def front(records: Records) -> str:
    """The front page's: a row a pair that a peer has part in, how many times ours each peer takes, and memory."""
    compared = {name: record for name, record in records.items() if record["sides"].keys() - set(OURS)}
    peers = [side for side in SIDES if side not in OURS and _is_there(side, compared)]
    header = [*WORK, "ours, ms", *(f"{SIDES[each]}: times ours" for each in peers), "peak memory, GB: ours"]
    header += [SIDES[each] for each in peers]

    def cells(record: Record) -> list[str]:
        sides = record["sides"]
        ours, *times = _times(sides, peers)[3:]
        return [ours, *times, *(_peak(sides[side]) if side in sides else "" for side in ("ours", *peers))]

    return _table(header, compared, cells)


def resources(records: Records) -> str:
    """Memory and the first call: a row a pair, a column a side; in brackets memory between calls and while timed."""
    whats = "peak memory (at rest, while timed), GB", "first call, s"
    sides = [side for side in SIDES if _is_there(side, records)]
    header = [*WORK, *(f"{what}: {SIDES[side]}" for what in whats for side in sides)]
    return _table(header, records, lambda record: _resources(record["sides"], sides))


def _table(header: Sequence[str], records: Records, cells: Any) -> str:
    if not records:
        return NONE_YET
    works = [[KINDS[record["kind"]], SIZES[record["size"]].title] for record in records.values()]
    return table(header, [work + cells(record) for work, record in zip(works, records.values(), strict=True)])


def _made_by(records: Records) -> str:
    """The machine, the packages of all sides and the commits: parts are recorded one by one."""
    environments = [record["environment"] for record in records.values()]
    versions = [side["versions"] for record in records.values() for side in record["sides"].values()]
    packages = dict.fromkeys(f"{name} {version}" for told in versions for name, version in told.items())
    machine = dict.fromkeys(f"{one['num_cpus']} CPU cores, {one['platform']}" for one in environments)
    commits = dict.fromkeys((one["code"]["commit"] or "unknown")[:12] for one in environments)
    return f"{'; '.join(machine)}; {', '.join(packages)}; commit {', '.join(commits)}."


def _times(sides: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    ours, theirs = sides["ours"], sides.keys() - set(OURS)
    return [
        f"{ours['parameters']:,}",
        f"{ours['flops'] / 1e9:.3g}",
        next((f"{sides[side]['flops'] / 1e9:.3g}" for side in SIDES if side in theirs), ""),
        f"{1e3 * statistics.median(ours['seconds']):.3g}",
        *(ratio(ours["seconds"], sides[side]["seconds"]) if side in sides else "" for side in others),
    ]


def _resources(sides: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    peaks = [_gigabytes(sides[side]) if side in sides else "" for side in shown]
    return peaks + [f"{sides[side]['first_call']:.0f}" if side in sides else "" for side in shown]


def _is_there(side: str, records: Records) -> bool:
    return any(side in record["sides"] for record in records.values())


def _gigabytes(side: Mapping[str, Any]) -> str:
    if "device_peak_bytes" in side:
        return _peak(side)
    besides = (f"{side[name] / 1e9:.2f}" for name in ("bytes_at_rest", "peak_bytes_while_timed"))
    return f"{_peak(side)} ({', '.join(besides)})"


def _peak(side: Mapping[str, Any]) -> str:
    if "device_peak_bytes" in side:
        return f"{side['device_peak_bytes'] / 1e9:.2f} of the device"
    return f"{side['peak_bytes'] / 1e9:.2f}"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of theirs / ours over rounds, and the binomial interval of the median of such ratios (95 %)."""
    found = sorted(their / our for our, their in zip(ours, theirs, strict=True))
    outside = max(0, int(binom.ppf(0.025, len(found), 0.5)) - 1)  # on either side
    return f"{statistics.median(found):.2f} ({found[outside]:.2f} to {found[-1 - outside]:.2f})"


def starts(record: Record | None) -> str:
    """Seconds to the first step of the demo: medians over rounds, and the range."""
    if record is None:
        return NONE_YET
    rows = []
    for way, told in record["seconds"].items():
        whole = [sum(pair) for pair in zip(told["imports"], told["first_step"], strict=True)]
        parts = (f"{statistics.median(told[what]):.1f}" for what in ("imports", "first_step"))
        rows.append([way, *parts, f"{statistics.median(whole):.1f} ({min(whole):.1f} to {max(whole):.1f})"])
    return table(["cache of programs", "imports, s", "from there to the first step, s", "together, s"], rows)


def feeding(record: Record | None, of_pairs: Records) -> str:
    """Clips a second of each source, and how many times what the training step of that size takes."""
    if record is None:
        return NONE_YET
    rows = []
    for size, rates in record["clips_a_second"].items():
        step = of_pairs.get(f"train_{size}")
        taken = SIZES[size].clips / statistics.median(step["sides"]["ours"]["seconds"]) if step else None
        cells = (f"{rate:,.0f}" + (f" ({rate / taken:,.0f} times)" if taken else "") for rate in rates.values())
        rows.append([SIZES[size].title, *cells, f"{taken:.1f}" if taken else ""])
    header = ["dim (multipliers), clips", "rendered, clips a second", "decoded before", "the training step takes"]
    decoded = f"Decoding into the cache, once: {record['videos_a_second']:.1f} videos a second."
    return f"{table(header, rows)}\n\n{decoded}"


def scaling(record: Record | None) -> str:
    """Exponents of the power laws that fit a training step's time, memory and FLOPs, beside those of theory."""
    if record is None:
        return NONE_YET
    rows = []
    for what, found in record.items():
        if what != "environment":
            laws = (f"{exponent(found['numbers'], found[of]):.2f}" for of in ("seconds", "bytes", "flops"))
            rows.append([what, ", ".join(f"{number:.0f}" for number in found["numbers"]), *laws, THEORY[what]])
    return table(["what grows", "to", "time", "memory", "FLOPs", "in theory"], rows)


def kernels(record: Record | None) -> str:
    """Rates of products, and the ways to do the same beside each other."""
    if record is None:
        return NONE_YET
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOPs a second in {name}" for name, rate in record["products"].items())
    rows = [
        [title, ", ".join(f"{way} {1e3 * seconds:.2f}" for way, seconds in found.items())]
        for title, found in record["seconds"].items()
    ]
    return f"Products of matrices on {record['device']}: {rates}.\n\n{table(['kernel', 'ms'], rows)}"
