"""Publishes comparisons of configs/demo.py: their records and the tables made from these.

    python -m experiments.demo.publish runs/demo    copies the record of a comparison and writes its table
    python -m experiments.demo.publish --check      fails where a record is not of the config as it is, or a table not
                                                    of its record

One seed is what `make demo` runs: its table and a picture of its samples go into the repository's README. The table of
several seeds goes into the README of this folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from configs import demo
from data import video_io
from vdm import assembly, build, compare
from vdm.arms import cells
from vdm.records import identity
from vdm.records.readme import replace_block
from vdm.records.statistics import Interval

HERE = Path(__file__).resolve().parent
ONE_SEED, SEEDS = "demo", "seeds"  # the blocks of the pages
RECORDS = {ONE_SEED: HERE / "records" / "report.json", SEEDS: HERE / "records" / "seeds.json"}
PAGES = {ONE_SEED: HERE.parents[1] / "README.md", SEEDS: HERE / "README.md"}
NUM_SHOWN = 2  # clips of the data and of each arm in the picture
METRICS = ("valid clips", "direction total variation")


def table(report: dict[str, Any], link: str) -> str:
    """The arms with metrics and seconds, what separates them and where it ran, as Markdown; `link` is to the record."""
    rows = [
        "| arm | steps | valid clips (95 %) | direction total variation | compile + train, s |",
        "|---|---|---|---|---|",
    ]
    for arm in report["arms"]:
        record = arm["record"]
        valid, distance = ({metric["name"]: metric for metric in record["metrics"]}[name] for name in METRICS)
        seconds = sum(record["timings"].get(what, 0) for what in ("compile", "train"))
        share = f"{valid['value']:.1%} ({valid['low']:.1%} to {valid['high']:.1%})"
        rows.append(f"| {arm['title']} | {record['num_steps']} | {share} | {distance['value']:.2f} | {seconds:.0f} |")
    lines = [
        f"{entry['metric']}, {entry['first']} minus {entry['second']}: "
        f"{compare.shown(Interval(**entry['difference']), entry['unit'])} over samples of these two networks."
        for entry in report["comparisons"]
    ]
    lines += [
        f"Pixel correlation of {pair['first']} with {pair['second']}: {pair['same_noise']['estimate']:.3f} from the "
        f"same noise, {pair['other_noise']['estimate']:.3f} from different noise."
        for pair in report["correlations"]
    ]
    missed = [line for line in report["pass_lines"] if not line["passed"]]
    lines.append(
        f"Lines to pass: {len(report['pass_lines']) - len(missed)} of {len(report['pass_lines'])} passed"
        + "".join(
            f"; **not passed**: {line['what']}, {line['arm']}, {line['value']:.3g} against {line['relation']} "
            f"{line['limit']:.3g}"
            for line in missed
        )
        + "."
    )
    lines += [
        f"{entry['metric']}, {entry['first']} minus {entry['second']}, over {len(entry['by_seed'])} seeds of training: "
        f"{compare.shown(Interval(**entry['difference']), entry['unit'])}, **{entry['verdict']}**."
        for entry in report["over_seeds"]
    ]
    start = report["arms"][0]["record"]["starts"][-1]["environment"]
    lines.append(
        f"Measured on {start['num_cpus']} CPU cores with jax {start['versions']['jax']}, Python "
        f"{start['versions']['python']}; from [the record]({link})."
    )
    _, *notes = report["notes"]  # the first lists the arms' differing keys
    return "\n".join([*rows, "", *(f"- {line}" for line in lines), "", *notes])


def picture(workdir: Path) -> bytes:
    """The first clips of the data, then of every arm, as a PNG: a clip a row, a frame a column."""
    config = demo.get_config()
    real = assembly.real_clips(build.experiment(config), NUM_SHOWN)
    arms = [assembly.read_samples(cell)[:NUM_SHOWN] for cell in cells(config, epath.Path(workdir))]
    return video_io.encode_png(video_io.contact_sheet(np.concatenate([real, *arms])))


def require_demo(report: dict[str, Any], where: Path) -> set[int]:
    """The seeds of a report; exits unless each of its runs is that of an arm of configs/demo.py, to the last step."""
    config = demo.get_config()
    config.compare.seeds = tuple(sorted({arm["record"]["seeds"]["config"] for arm in report["arms"]}))
    expected = {
        (identity.identity_hash(cell.config), cell.config.run.num_steps) for cell in cells(config, epath.Path(where))
    }
    if expected != {(arm["record"]["identity_hash"], arm["record"]["num_steps"]) for arm in report["arms"]}:
        sys.exit(f"{where} is no comparison of configs/demo.py as it is now: run it again, or undo the change")
    return set(config.compare.seeds)


def page(name: str) -> str:
    """The page of a block, with the table of the block's record in it."""
    record, path = RECORDS[name], PAGES[name]
    made = table(json.loads(record.read_text()), record.relative_to(path.parent).as_posix())
    return replace_block(path.read_text(), name, made)


def publish(workdir: Path) -> None:
    text = (workdir / "report.json").read_text()
    seeds = require_demo(json.loads(text), workdir / "report.json")
    name = ONE_SEED if seeds == set(demo.get_config().compare.seeds) else SEEDS
    shown = picture(workdir) if name == ONE_SEED else None
    RECORDS[name].parent.mkdir(exist_ok=True)
    RECORDS[name].write_text(text)
    PAGES[name].write_text(page(name))
    if shown is not None:
        (HERE / "samples.png").write_bytes(shown)


def check() -> None:
    for name, path in PAGES.items():
        if not RECORDS[name].exists():
            sys.exit(f"{RECORDS[name]} is missing: {HERE / 'README.md'} has the commands that make and publish it")
        if name == ONE_SEED:  # what one command makes must be what it made; the band of seeds names its own commit
            require_demo(json.loads(RECORDS[name].read_text()), RECORDS[name])
        if path.read_text() != page(name):
            sys.exit(f"the table {name!r} in {path} is not that of {RECORDS[name]}: publish again, or undo the edit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("workdir", nargs="?", type=Path, help="of a finished comparison of configs/demo.py")
    what.add_argument("--check", action="store_true", help="compare only; write nothing")
    given = parser.parse_args()
    check() if given.check else publish(given.workdir)


if __name__ == "__main__":
    main()
