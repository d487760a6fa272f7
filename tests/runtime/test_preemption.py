"""SIGTERM is noted once, and the handler from before comes back."""

import os
import signal

import pytest

from vdm.runtime.preemption import Watch


@pytest.fixture
def calls():
    """Signals that reached the handler which was there first."""
    reached = []
    before = signal.signal(signal.SIGTERM, lambda number, _: reached.append(number))
    yield reached
    signal.signal(signal.SIGTERM, before)


def test_the_first_sigterm_is_noted_and_the_second_goes_through(calls, capsys):
    with Watch() as watch:
        assert not watch.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.requested and not calls
        assert "saving a checkpoint" in capsys.readouterr().out
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == [signal.SIGTERM]
    os.kill(os.getpid(), signal.SIGTERM)
    assert len(calls) == 2


def test_without_a_signal_the_handler_comes_back_even_after_an_error(calls):
    with pytest.raises(KeyError), Watch() as watch:
        raise KeyError
    assert not watch.requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert calls == [signal.SIGTERM]
