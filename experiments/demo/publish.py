"""Publishes a comparison of configs/demo.py: its record, a picture of its samples, and the README's table.

python -m experiments.demo.publish runs/demo
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from configs import demo
from data import video_io
from vdm import build, compare
from vdm.records.readme import replace_block

HERE = Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"
NUM_SHOWN = 2  # clips of the data and of each arm in the picture
METRICS = ("valid clips", "direction total variation")


def table(report: dict[str, Any]) -> str:
    """The arms with their metrics and seconds, what separates them, and where it ran, as Markdown."""
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
        f"{entry['metric']}, {entry['first']} minus {entry['second']}: {entry['difference']['estimate']:+.1%} "
        f"(95 %: {entry['difference']['low']:+.1%} to {entry['difference']['high']:+.1%}), **{entry['verdict']}**."
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
    start = report["arms"][0]["record"]["starts"][-1]["environment"]
    lines.append(
        f"Measured on {start['num_cpus']} CPU cores with jax {start['versions']['jax']}, Python "
        f"{start['versions']['python']}; from [the record](experiments/demo/records/report.json)."
    )
    return "\n".join([*rows, "", "\n".join(lines)])


def picture(workdir: Path) -> bytes:
    """The first clips of the data, then of every arm, as a PNG: a clip a row, a frame a column."""
    config = demo.get_config()
    real = compare.real_clips(build.experiment(config), NUM_SHOWN)
    arms = [compare.read_samples(cell)[:NUM_SHOWN] for cell in compare.cells(config, epath.Path(workdir))]
    return video_io.encode_png(video_io.contact_sheet(np.concatenate([real, *arms])))


def main(workdir: Path) -> None:
    text = (workdir / "report.json").read_text()
    (HERE / "records").mkdir(exist_ok=True)
    (HERE / "records" / "report.json").write_text(text)
    (HERE / "samples.png").write_bytes(picture(workdir))
    README.write_text(replace_block(README.read_text(), "demo", table(json.loads(text))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
