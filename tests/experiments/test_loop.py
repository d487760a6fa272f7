"""The table of the loop's cost is what its record says."""

from experiments.loop import __main__ as loop


def test_overheads_and_stalls_are_of_each_repeat():
    """Steps of 100, 200 ms and 2, 4, 3 ms more; 4 saves in 100 steps make them later by 10, 20 and 0 ms a step."""
    record = {
        "environment": {"code": {"commit": "0123456789abcdef"}, "versions": {"jax": "1"}, "num_cpus": 2},
        "batch_size": 64,
        "steps": 100,
        "saves": 4,
        "seconds_a_step": {
            "bare": [0.1, 0.2, 0.1],
            "loop": [0.102, 0.204, 0.103],
            "saving": [0.112, 0.224, 0.103],
            "resting bare": [0.1, 0.1, 0.1],
            "resting loop": [0.1005, 0.101, 0.1002],
        },
    }
    lines = loop.table(record).splitlines()
    assert "| overhead of the loop | 2.0 % | 2.0, 2.0, 3.0 |" in lines
    assert "| overhead of the loop on it | 0.50 % | 0.50, 1.00, 0.20 |" in lines
    assert "| a save holds the loop up for | 250 ms | 250, 500, 0 |" in lines
    assert "| that is, at a save a minute | 0.42 % | 0.42, 0.83, 0.00 |" in lines
