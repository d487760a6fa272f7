"""Would the tests notice? Every mutant of tests/mutants.py is made in a copy of the tree and met by its tests.

    python -m tests.mutations            all of them; exit code 1 if one survives without a reason
    python -m tests.mutations edm bound  those whose file or text contains one of the words

A mutant is caught when a test fails or cannot even be collected, survives when all pass, and is an error when its text
is not found once or is no Python. One whose tests do not end is no catch: it must be looked at, and so must one that is
listed as equivalent and caught. As many are met at a time as there are cores.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutants import MUTANTS, TESTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "vdm/diffusion"
NOT_COPIED = shutil.ignore_patterns(".*", "runs", "__pycache__")
LIMIT = 240  # seconds for one mutant, whose tests take 5 to 30
MOST_AT_ONCE = 8


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.file + mutant.before for word in words)]
    wrong = [mutant for mutant in chosen if not is_sound(mutant)]
    for mutant in wrong:
        print(f"not found once in {mutant.file}, or no Python: {mutant.before!r} -> {mutant.after!r}")
    if wrong:
        return 2
    unexplained = []
    at_once = min(MOST_AT_ONCE, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(at_once) as pool:
        folder, copies = Path(name), SimpleQueue[Path]()
        for number in range(at_once):
            copies.put(shutil.copytree(ROOT, folder / f"tree_{number}", ignore=NOT_COPIED))
        if _met(folder / "tree_0", sorted({test for tests in TESTS.values() for test in tests}), 1200) != "SURVIVED":
            print("the tests fail without any mutant: mend them first")
            return 2
        outcomes = pool.map(lambda mutant: _meet(mutant, copies), chosen)
        for number, (mutant, (verdict, seconds)) in enumerate(zip(chosen, outcomes, strict=True), 1):
            line = f"{verdict:9} {seconds:4.0f} s  {mutant.file}: {mutant.after!r}"
            print(f"{number:3d}/{len(chosen)} {line}", flush=True)
            if verdict != ("SURVIVED" if mutant.equivalent else "caught"):
                unexplained.append(line)
    print(f"{len(unexplained)} of {len(chosen)} mutants survived without a reason, were caught against it or timed out")
    print("\n".join(unexplained))
    return 1 if unexplained else 0


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


def _meet(mutant: Mutant, copies: SimpleQueue[Path]) -> tuple[str, float]:
    """What becomes of a mutant in a copy that is free, and the seconds that it took."""
    copy = copies.get()
    path, started = copy / FOLDER / mutant.file, time.monotonic()
    original = path.read_text()
    path.write_text(original.replace(mutant.before, mutant.after))
    try:
        return _met(copy, list(relevant_tests(mutant.file)), LIMIT), time.monotonic() - started
    finally:
        path.write_text(original)
        copies.put(copy)


def _met(copy: Path, tests: list[str], limit: float) -> str:
    """SURVIVED, caught or TIMED OUT; programs that the mutant did not change come from one compilation cache."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    command += [f"tests/diffusion/{test}" for test in tests]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(copy.parent / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return "TIMED OUT"
    if done.returncode not in (0, 1, 2):  # a test failed, or could not be collected; anything else is our mistake
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout.decode()[-2000:]}")
    return "caught" if done.returncode else "SURVIVED"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
