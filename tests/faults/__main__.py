"""Kills runs at random moments, on changing devices, and records whether they end as if nobody had.

python -m tests.faults                all cases that the record lacks; goes on where it was stopped
python -m tests.faults --only two     cases whose name contains the word, in a record of their own that is thrown away
python -m tests.faults --write        the README's table from the record as it is
python -m tests.faults --check        fails where the table is not that of the record; computes nothing

Exit code 1 where a case went wrong, or where time was up before all were done. A record is of one commit, one seed and
one machine: of another one it is begun anew.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults import lives, plan
from tests.faults.plan import Case, Setup
from vdm.records.environment import read_environment
from vdm.records.readme import replace_block

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "experiments" / "faults" / "records" / "campaign.json"
PAGE = ROOT / "experiments" / "faults" / "README.md"
SEED = 0
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # most of a life is compilation
MOST_SECONDS = 40 * 60  # after which no further case is begun
FACTOR = 3.0  # an end on changing devices may differ so many times as much as uninterrupted runs on them do


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", help="run the cases whose name contains this word, and keep nothing")
    what.add_argument("--write", action="store_true", help="compute nothing; write the table of the README")
    what.add_argument("--check", action="store_true", help="compute and write nothing; compare the table")
    given = parser.parse_args(arguments)
    if given.write or given.check:
        return publish(check=given.check)
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    with tempfile.TemporaryDirectory(prefix="vdm_faults_") as name:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{name}/compiled")
        cases = plan.campaign(SEED)
        if given.only is not None:
            cases = tuple(case for case in cases if given.only in case.name)
            return run(cases, Path(name), Path(name) / "record.json")
        code = run(cases, Path(name), RECORD)
    publish(check=False)
    return code


def run(cases: Sequence[Case], folder: Path, path: Path) -> int:
    """Runs the cases that the record at `path` lacks; returns the exit code."""
    since, record = time.monotonic(), begun(path)
    references: dict[Setup, Path] = {}
    for case in cases:
        if case.name in {row["case"] for row in record["cases"]}:
            continue
        if time.monotonic() - since > MOST_SECONDS:
            print(f"time is up after {len(record['cases'])} of {len(cases)} cases: start again to go on")
            return 1
        reference = case.last if case.same_mesh else plan.ONE
        # one device first: the others are compared with it, also where the campaign goes on after its cases
        for setup in dict.fromkeys((plan.ONE, *(setup for setup, _ in case.lives), case.last)):
            if setup not in references:
                references[setup] = folder / "uninterrupted" / str(plan.SETUPS.index(setup))
                lives.finish(setup, references[setup], 0, plan.NUM_STEPS)
                uninterrupted(record, setup, references)
        begin = time.monotonic()
        try:
            row = lives.run_case(case, folder / case.name.replace(" ", "_"), references[reference])
            wrong = None if case.same_mesh or row["difference"] <= bound(record) else "further apart than the bound"
        except lives.WrongError as error:
            row, wrong = {"case": case.name, "same_mesh": case.same_mesh, "kills": [], "difference": None}, str(error)
        record["cases"].append(row | {"wrong": wrong, "seconds": round(time.monotonic() - begin)})
        write(path, record)
        seconds = record["cases"][-1]["seconds"]
        print(f"{case.name}: {wrong or 'right'}, {len(row['kills'])} kills, {seconds} s", flush=True)
    kills = sum(len(row["kills"]) for row in record["cases"])
    right = all(row["wrong"] is None for row in record["cases"])
    print(f"{kills} kills in {len(record['cases'])} cases, {'all right' if right else 'SOME WRONG'}")
    return 0 if right else 1


def uninterrupted(record: dict[str, Any], setup: Setup, references: dict[Setup, Path]) -> None:
    """Notes how far the uninterrupted run of a setup ends from that on one device."""
    if setup != plan.ONE:
        apart = lives.check_state(references[setup], references[plan.ONE], same_bits=False)
        record["uninterrupted"][setup.name] = apart


def bound(record: dict[str, Any]) -> float:
    """How far a run on changing devices may end from that on one."""
    return FACTOR * max(record["uninterrupted"].values(), default=0.0)


def begun(path: Path) -> dict[str, Any]:
    """The record so far; a new one where there is none, or where it is of another commit, seed or machine."""
    here = read_environment()
    head = {
        "version": 1,
        "seed": SEED,
        "factor": FACTOR,
        "environment": {
            "commit": here.code.commit,
            "dirty": here.code.dirty,
            "lock_sha256": here.lock_sha256,
            "versions": here.versions,
            "platform": here.platform,
            "flags": here.flags,
            "num_cpus": here.num_cpus,
        },
    }
    if path.exists():
        before = json.loads(path.read_text())
        # the record itself makes the tree dirty, so that does not count
        if {key: before[key] for key in head} | {"environment": before["environment"] | {"dirty": None}} == head | {
            "environment": head["environment"] | {"dirty": None}
        }:
            return before
    return head | {"uninterrupted": {}, "cases": []}


def write(path: Path, record: dict[str, Any]) -> None:
    """A case a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in record.items() if key != "cases"]
    cases = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in record["cases"])
    path.write_text("\n".join(["{", *head, ' "cases": [', cases, " ]", "}", ""]))


def publish(*, check: bool) -> int:
    """Writes the table of the README, or compares it."""
    page = PAGE.read_text()
    found = table(json.loads(RECORD.read_text())) if RECORD.exists() else "There is no record yet."
    made = replace_block(page, "campaign", found)
    if check and made != page:
        print(f"the table of {PAGE} is not that of {RECORD}: run `python -m tests.faults --write`, or undo the edit")
        return 1
    if not check:
        PAGE.write_text(made)
    return 0


def table(record: dict[str, Any]) -> str:
    """The README's table and the sentences below it."""
    lines = [
        "| run | kills (SIGKILL + SIGTERM) | in a save | at a start | steps | the end |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["cases"]:
        kills = row["kills"]
        signals = [sum(kill["signal"] == name for kill in kills) for name in ("SIGKILL", "SIGTERM")]
        end = row["wrong"] or ("the same bits" if row["same_mesh"] else f"{row['difference']:.1e} apart")
        cells = [
            row["case"],
            f"{len(kills)} ({signals[0]} + {signals[1]})",
            str(sum(kill["in_save"] for kill in kills)),
            str(sum(kill["moment"] == "start" for kill in kills)),
            str(row.get("num_steps", "")),
            end,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    apart = ", ".join(f"{name} {value:.1e}" for name, value in sorted(record["uninterrupted"].items()))
    kills = sum(len(row["kills"]) for row in record["cases"])
    of = record["environment"]
    return "\n".join(
        [
            *lines,
            "",
            f"{kills} kills in all. `apart` is the largest difference of a parameter or its average from the "
            "uninterrupted run on one device, in units of the largest parameter; uninterrupted runs on other devices "
            f"end so far apart: {apart}. The bound is {record['factor']:g} times the largest of these.",
            "",
            f"Seed {record['seed']}, commit {(of['commit'] or 'unknown')[:12]}, jax {of['versions']['jax']}, "
            f"{of['num_cpus']} CPU cores, {sum(row['seconds'] for row in record['cases']) / 60:.0f} minutes; "
            "from [the record](records/campaign.json).",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
