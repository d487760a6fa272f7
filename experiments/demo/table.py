"""Writes the demo's numbers into README.md, from the report of a comparison.

python -m experiments.demo.table experiments/demo/records/report.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vdm.records.readme import replace_block

README = Path(__file__).resolve().parents[2] / "README.md"
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
    start = report["arms"][0]["record"]["starts"][-1]["environment"]
    lines.append(
        f"Measured on {start['num_cpus']} CPU cores with jax {start['versions']['jax']}, Python "
        f"{start['versions']['python']}; from [the record](experiments/demo/records/report.json)."
    )
    return "\n".join([*rows, "", "\n".join(lines)])


if __name__ == "__main__":
    numbers = json.loads(Path(sys.argv[1]).read_text())
    README.write_text(replace_block(README.read_text(), "demo", table(numbers)))
