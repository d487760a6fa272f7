"""Speed and time left by a clock of our own; in place on a terminal, line by line in a file."""

import io

import pytest

from vdm.runtime.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(stream):
    times = iter([100.0, 110.0, 130.0])
    progress = Progress(400, 1000, stream=stream, clock=lambda: next(times))
    progress.show(450, 0.25)  # 50 steps in 10 s: 550 more take 110 s
    progress.show(550, 0.125)  # 100 steps in 20 s: 450 more take 90 s
    progress.finish("stopped")
    return stream.getvalue()


def test_a_file_gets_a_line_each():
    assert lines(io.StringIO()).splitlines() == [
        "step 450/1000  loss 0.2500  5 steps/s  1m50s left",
        "step 550/1000  loss 0.1250  5 steps/s  1m30s left",
        "stopped after step 550 of 1000",
    ]


def test_a_terminal_sees_one_line_rewritten():
    shown, ending = lines(Terminal()).split("\n", 1)
    assert shown.split("\r\x1b[2K")[2].startswith("step 550/1000") and ending == "stopped after step 550 of 1000\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (187, "3m07s"), (7500, "2h05m"), (262_800, "3d01h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
