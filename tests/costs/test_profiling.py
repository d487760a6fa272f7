"""Profiles of a compiled function's calls, and their table by block."""

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


def test_calls_after_the_first_are_traced_and_told_by_block(tmp_path, capsys):
    profiled = profiling.watch(jax.jit(work), 2, tmp_path, PARAMS)
    x = jnp.ones((256, 256))
    given = [profiled(PARAMS, x) for _ in range(profiling.SKIPPED + 3)]
    np.testing.assert_array_equal(given[-1], jax.jit(work)(PARAMS, x))
    folder = tmp_path / "profile"
    assert len(list(folder.glob("plugins/profile/*/*.xplane.pb"))) == 1
    text = (folder / profiling.TABLE).read_text()
    assert text in capsys.readouterr().out
    rows = {line[:28].strip(): line.split() for line in text.splitlines()}
    share = {name: float(next(word for word in row if "%" in word).rstrip("%")) for name, row in list(rows.items())[1:]}
    assert share["heavy"] > 50 > share["light"] and share["all"] == 100
    gflops = float(rows["heavy"][rows["heavy"].index(f"{share['heavy']:.1f}%") + 1])
    np.testing.assert_allclose(gflops, 20 * 2 * 256**3 / 1e9, rtol=1e-3)
    assert 0 < sum(profiling.seconds_of(folder).values()) < 10


def test_without_a_profile_a_function_stays_itself(tmp_path):
    assert profiling.watch(work, 0, tmp_path, PARAMS) is work
    with pytest.raises(FileNotFoundError, match="no trace"):
        profiling.seconds_of(tmp_path)


@pytest.mark.parametrize(("num_profiled", "num_calls"), [(-1, 9), (3, 4)])
def test_more_calls_than_there_are_cannot_be_profiled(num_profiled, num_calls):
    with pytest.raises(ValueError, match=f"--profile={num_profiled} .* {num_calls} are made: ask for more"):
        profiling.require_calls(num_profiled, num_calls, "ask for more")
    profiling.require_calls(0, 0, "")
    profiling.require_calls(3, 5, "")
