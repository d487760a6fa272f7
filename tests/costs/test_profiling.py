"""Profiles of a compiled function's calls, and their table by block."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.costs import profiling

PARAMS = {"heavy": {"kernel": jnp.ones((256, 256))}, "light": {"kernel": jnp.ones((256, 1))}}


def work(params, x):
    with jax.named_scope("heavy"):
        x = jax.lax.fori_loop(0, 20, lambda _, x: jnp.tanh(x @ params["heavy"]["kernel"]), x)
    with jax.named_scope("light"):
        return x @ params["light"]["kernel"]


def another(x):
    """A program of its own, whose operations may have the same names."""
    return jax.lax.fori_loop(0, 50, lambda _, x: jnp.tanh(x @ x), x)


def test_calls_after_the_first_are_traced_and_told_by_block(tmp_path, capsys, monkeypatch):
    """Neither calls before, still at work when the trace begins, nor other programs are counted."""
    counted = {}
    seconds_of = profiling.seconds_of

    def watched(trace, module):
        counted.update(events_of(trace, module))
        return seconds_of(trace, module)

    monkeypatch.setattr(profiling, "seconds_of", watched)
    x, other = jnp.ones((256, 256)), jax.jit(another)
    with profiling.watch(jax.jit(work), 2, tmp_path, PARAMS) as profiled:
        given = [(profiled(PARAMS, x), other(x))[0] for _ in range(profiling.SKIPPED + 3)]
    np.testing.assert_allclose(given[-1], jax.jit(work)(PARAMS, x), rtol=1e-5)
    assert max(counted.values()) == 2 * 20  # calls, turns of the loop
    folder = tmp_path / "profile"
    assert len(list(folder.glob("plugins/profile/*/*.xplane.pb"))) == 1
    text = (folder / profiling.TABLE).read_text()
    assert text in capsys.readouterr().out
    shares, gflops = {}, {}
    for line in text.splitlines()[1:]:
        before, after = line[28:].split("%")
        name = line[:28].strip()
        shares[name], gflops[name] = float(before.split()[-1]), float(after.split()[0])
    assert shares["heavy"] > 50 > shares["light"] and shares["all"] == 100
    np.testing.assert_allclose(gflops["heavy"], 20 * 2 * 256**3 / 1e9, rtol=1e-3)


def events_of(trace, module):
    """How often each operation of a program stands in a trace."""
    counts = collections.Counter()
    for file in trace.glob("plugins/profile/*/*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                facts = (dict(event.stats) for event in line.events)
                counts.update(each["hlo_op"] for each in facts if each.get("hlo_module") == module)
    return counts


def test_a_run_that_ends_early_tells_what_it_traced(tmp_path, capsys):
    x = jnp.ones((256, 256))
    with profiling.watch(jax.jit(work), 5, tmp_path, PARAMS) as profiled:
        for _ in range(profiling.SKIPPED + 1):
            profiled(PARAMS, x)
    assert "mean of 1 calls" in capsys.readouterr().out
    with jax.profiler.trace(str(tmp_path / "again")):  # none is left open
        pass


def test_without_a_profile_a_function_stays_itself(tmp_path):
    with profiling.watch(work, 0, tmp_path, PARAMS) as same:
        assert same is work
    text = jax.jit(work).lower(PARAMS, jnp.ones((256, 256))).compile().as_text()
    assert "names no operation of jit_work" in profiling.by_block(text, tmp_path, 1, [])


@pytest.mark.parametrize(("num_profiled", "num_calls"), [(3, 4), (9, 0)])
def test_more_calls_than_there_are_cannot_be_profiled(num_profiled, num_calls):
    with pytest.raises(ValueError, match=f"--profile={num_profiled} .* {num_calls} are made: ask for more"):
        profiling.require_calls(num_profiled, num_calls, "ask for more")
    with pytest.raises(ValueError, match="--profile=-1 must not be negative"):
        profiling.require_calls(-1, 9, "")
    profiling.require_calls(0, 0, "")
    profiling.require_calls(3, 5, "")
