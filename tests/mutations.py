"""Would the tests notice? Every mutant of tests/mutants.py is made in a copy of the tree and met by its tests.

    python -m tests.mutations            all of them; exit code 1 if one survives without a reason
    python -m tests.mutations edm bound  those whose file or text contains one of the words

A mutant is caught when a test fails or cannot even be collected, survives when all pass, and is an error when its text
is not found once or is no Python.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants import MUTANTS, TESTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "vdm/diffusion"
LIMIT = 240  # seconds for one mutant; a program that does not end is caught too


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.file + mutant.before for word in words)]
    wrong = [mutant for mutant in chosen if not is_sound(mutant)]
    for mutant in wrong:
        print(f"not found once in {mutant.file}, or no Python: {mutant.before!r} -> {mutant.after!r}")
    if wrong:
        return 2
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
        if not _passes(copy, sorted({test for tests in TESTS.values() for test in tests}), Path(folder), limit=1200):
            print("the tests fail without any mutant: mend them first")
            return 2
        for number, mutant in enumerate(chosen, 1):
            started = time.monotonic()
            survived = _survives(copy, mutant, Path(folder))
            verdict = "caught" if not survived else "equivalent" if mutant.equivalent else "SURVIVED"
            seconds = time.monotonic() - started
            print(
                f"{number:3d}/{len(chosen)} {verdict:10} {seconds:4.0f} s  {mutant.file}: {mutant.after!r}", flush=True
            )
            if verdict == "SURVIVED":
                survivors.append(mutant)
    print(f"{len(survivors)} of {len(chosen)} mutants survived without a reason")
    return 1 if survivors else 0


def is_sound(mutant: Mutant) -> bool:
    """Whether the text occurs once, and what stands there instead is Python and something else."""
    source = (ROOT / FOLDER / mutant.file).read_text()
    changed = source.replace(mutant.before, mutant.after)
    try:
        return source.count(mutant.before) == 1 and ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def relevant_tests(file: str) -> tuple[str, ...]:
    """The tests for a file of vdm/diffusion/: those of the longest matching line of TESTS."""
    return TESTS[max((prefix for prefix in TESTS if file.startswith(prefix)), key=len)]


def _survives(copy: Path, mutant: Mutant, folder: Path) -> bool:
    path = copy / FOLDER / mutant.file
    original = path.read_text()
    path.write_text(original.replace(mutant.before, mutant.after))
    try:
        return _passes(copy, list(relevant_tests(mutant.file)), folder, LIMIT)
    finally:
        path.write_text(original)


def _passes(copy: Path, tests: list[str], folder: Path, limit: float) -> bool:
    """Whether the tests pass; programs that the mutant did not change come from one compilation cache."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    command += [f"tests/diffusion/{test}" for test in tests]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):  # a test failed, or could not be collected; anything else is our mistake
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout.decode()[-2000:]}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
