"""A process that hangs ends and says where; one that goes on, however slowly, does not."""

import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import sys, time
    from vdm.runtime.watchdog import Watchdog
    limit, pause, count = map(float, sys.argv[1:])
    def a_step_that_takes_its_time():
        time.sleep(pause)
    with Watchdog(limit) as watchdog:
        for _ in range(int(count)):
            watchdog.beat()
            a_step_that_takes_its_time()
    time.sleep(1.5 * limit)  # outside of its block nobody watches
    print("done")
"""


@pytest.mark.parametrize(
    ("limit", "pause", "count", "ends"), [(1.5, 60, 1, 1), (2.5, 1.2, 4, 0), (1, 0.05, 40, 0), (0, 0.1, 1, 0)]
)
def test_only_a_step_that_does_not_come_ends_the_process(limit, pause, count, ends):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(limit), str(pause), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == ends, done.stderr
    assert ("a_step_that_takes_its_time" in done.stderr) == bool(ends)
    assert ("done" in done.stdout) == (not ends)
