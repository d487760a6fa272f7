"""Which feature is proved by which test, and did it pass.

As a pytest plugin it reads `@pytest.mark.feature("O11", ...)`, refuses an id that features.json does not list, and with
`--features-json=FILE` writes feature id -> test -> outcome. As a program:

    python -m tests.features           runs the tests that carry a feature, prints them with their outcomes, and
                                       writes the README's table if all passed
    python -m tests.features --check   collects without running, and fails where the README's table differs
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from vdm.records.readme import block, replace_block

ROOT = Path(__file__).resolve().parents[1]
NAMES: dict[str, str] = json.loads((ROOT / "tests" / "features.json").read_text())
BLOCK = "features"  # of the README
RANK = ("failed", "passed", "skipped", "not run")  # of several outcomes, the first that occurs

Outcomes = Mapping[str, Mapping[str, str]]  # feature id -> test -> outcome


class Reporter:
    """Collects the outcomes of one pytest session; the cases of a parametrised test count as one test."""

    def __init__(self, path: str | None):
        self._path = path
        self._features: dict[str, set[str]] = {}
        self._outcomes: dict[str, dict[str, str]] = {}

    @pytest.hookimpl(tryfirst=True)  # before -m deselects: what was not run is listed as such
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            ids = [name for mark in item.iter_markers("feature") for name in mark.args]
            for name in ids:
                if name not in NAMES:
                    raise pytest.UsageError(
                        f"{item.nodeid}: unknown feature {name!r}; tests/features.json lists the ids"
                    )
            if ids:
                self._features[item.nodeid] = set(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self._features and (report.when == "call" or not report.passed):
            self._outcomes.setdefault(report.nodeid, {})[str(report.when)] = report.outcome

    def pytest_sessionfinish(self) -> None:
        if self._path is not None:
            Path(self._path).write_text(json.dumps(self._table(), indent=1) + "\n")

    def _table(self) -> dict[str, dict[str, str]]:
        table: dict[str, dict[str, str]] = {}
        for nodeid, ids in self._features.items():
            outcome = worst(self._outcomes.get(nodeid, {}).values())
            test = nodeid.split("[", maxsplit=1)[0]
            for name in ids:
                tests = table.setdefault(name, {})
                tests[test] = worst([outcome, tests.get(test, outcome)])
        return {name: table[name] for name in NAMES if name in table}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--features-json", default=None, help="write feature id -> test -> outcome to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Reporter(config.getoption("--features-json")), "vdm-features")


def worst(outcomes: Iterable[str]) -> str:
    """One word for several outcomes: a failure outranks a pass, a pass outranks what was skipped or not run."""
    given = set(outcomes)
    return next((outcome for outcome in RANK if outcome in given), "not run")


def text_table(outcomes: Outcomes) -> str:
    """The table for the terminal: every proved feature with its tests, then the ids that no test claims yet."""
    lines = []
    for name, tests in outcomes.items():
        lines.append(f"{name:<4} {worst(tests.values()):<8} {NAMES[name]}")
        lines += [f"              {outcome:<8} {test}" for test, outcome in tests.items()]
    planned = [name for name in NAMES if name not in outcomes]
    lines.append(f"{len(outcomes)} of {len(NAMES)} features have tests; not yet: {' '.join(planned)}")
    return "\n".join(lines)


def readme_table(outcomes: Outcomes) -> str:
    """The table for the README: id, name, the files of the tests. It is written only when all of them passed."""
    rows = ["| id | feature | proved in |", "|---|---|---|"]
    for name, tests in outcomes.items():
        files = sorted({test.split("::", maxsplit=1)[0] for test in tests})
        links = ", ".join(f"[{Path(file).stem.removeprefix('test_')}]({file})" for file in files)
        rows.append(f"| {name} | {NAMES[name]} | {links} |")
    return "\n".join(rows)


def stale(readme: str, outcomes: Outcomes) -> list[str]:
    """What the README's table claims without a test, or a test proves without the README: one line each."""
    shown, proved = _rows(block(readme, BLOCK)), _rows(readme_table(outcomes))
    lines = [f"the README lists {' '.join(row)}, which no test proves" for row in sorted(shown - proved)]
    return lines + [f"the README lacks {' '.join(row)}" for row in sorted(proved - shown)]


def _rows(table: str) -> set[tuple[str, ...]]:
    lines = table.strip().splitlines()[2:]
    return {tuple(cell.strip() for cell in line.strip().strip("|").split("|")) for line in lines}


def _outcomes(*arguments: str) -> tuple[int, Outcomes]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "features.json")
        command = [sys.executable, "-m", "pytest", f"--features-json={path}", *arguments]
        code = subprocess.run(command, cwd=ROOT).returncode
        return code, json.loads(Path(path).read_text()) if os.path.exists(path) else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; run and write nothing")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    if check:
        code, outcomes = _outcomes("--collect-only", "-qq", "--no-summary")
        lines = stale(readme.read_text(), outcomes)
        print("\n".join([*lines, "run `make features`"] if lines else ["the README's feature table is up to date"]))
        return 1 if lines or code else 0
    code, outcomes = _outcomes("-m", "feature and not slow")
    print(text_table(outcomes))
    if code == 0:
        readme.write_text(replace_block(readme.read_text(), BLOCK, readme_table(outcomes)))
    return code


if __name__ == "__main__":
    sys.exit(main())
