"""The study of speed: our side's works at a toy size, and what is made of what workers tell."""

import dataclasses
import logging
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed import feeding, kernels, ours, pairs, scaling, tables, worker
from experiments.speed.works import SIZES, Pair, Size
from vdm import build

TOY = Size(8, (1,), frames=2, side=8, clips=2)


def test_works_count_their_flops():
    step, forward = (ours.make("ours", kind, TOY) for kind in ("train", "forward"))
    assert forward.parameters == step.parameters
    assert 2.5 < step.flops() / forward.flops() < 3.5  # backwards there are two products for every one


def test_a_thousand_steps_of_sampling_are_one_program(caplog):
    made = ours.make("ours", "loop", TOY)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        made.call()
        made.call()
    compiled = [message for message in caplog.messages if "Finished XLA compilation of jit(sample)" in message]
    assert len(compiled) == 1, caplog.messages
    assert made.parameters == 0


@pytest.mark.parametrize("kind", ["linear", "temporal", "spatial"])
@pytest.mark.parametrize("channels", [8, 40])  # fewer than a head has and more: what it mixes are inputs or values
def test_an_attention_counts_its_products_and_their_gradients(kind, channels):
    """Projections and the attention itself, and twice as much for gradients of both factors."""
    heads, head_dim, frames, pixels = 8, 32, 4, 8 * 8
    rows, inner = 2 * frames * pixels, heads * head_dim
    found = ours.make("ours", kind, dataclasses.replace(TOY, dim=channels, frames=frames))
    tokens = {"linear": head_dim, "temporal": frames, "spatial": pixels}[kind]  # a linear context is head_dim^2
    products = 4 * rows * channels * inner + 2 * rows * inner * tokens
    if channels == 8:
        queries_and_keys, value_out = 2 * rows * channels * inner, heads * channels * head_dim * channels
        mixing = rows * inner * tokens + rows * heads * channels * tokens + rows * heads * channels * channels
        if kind == "linear":  # contexts, their products with the maps, and queries through both
            mixing = rows * inner * channels + 2 * frames * inner * channels * channels + rows * inner * channels
        products = queries_and_keys + value_out + mixing
    assert found.flops() == pytest.approx(3 * 2 * products, rel=0.02)
    assert found.parameters == channels + 4 * channels * inner + (channels if kind == "linear" else 0)


class Told:
    """A worker that takes a known time and writes down its turns."""

    turns: ClassVar[list[str]] = []

    def __init__(self, side, kind, size, environment):
        self.side, self.ready = side, {"parameters": 3 if side == "other" else 2}

    def seconds(self, calls):
        self.turns.append(self.side)
        return [{"ours": 0.5, "eager": 1.0, "other": 1.0}[self.side]] * calls

    def end(self):
        return {"peak_bytes": 1}


def test_turns_alternate_and_who_is_first_changes(monkeypatch):
    monkeypatch.setattr(pairs, "Worker", Told)
    monkeypatch.setattr(Told, "turns", [])
    found = pairs.measured(Pair("train", "small", ("ours", "eager")), rounds=3, seconds_a_turn=2.0)
    how_long, rounds = ["ours", "eager"], ["ours", "eager", "eager", "ours", "ours", "eager"]
    assert Told.turns == how_long + rounds
    assert found["sides"]["ours"] == {"parameters": 2, "seconds": [0.5] * 3, "calls_a_round": 4, "peak_bytes": 1}
    assert found["sides"]["eager"]["calls_a_round"] == pairs.FEWEST_CALLS
    with pytest.raises(ValueError, match=r"not the same network: \{'ours': 2, 'other': 3\}"):
        pairs.measured(Pair("train", "small", ("ours", "other")))


def test_ratio_is_the_median_over_rounds_with_an_interval():
    theirs = [2.0, 2.2, 1.8, 2.1, 1.9, 2.4, 1.6, 2.0, 2.0, 2.0]
    assert tables.ratio([1.0] * 10, theirs) == "2.00 (1.80 to 2.20)"  # the second smallest and the second largest


def test_peak_memory_is_of_what_came_after():
    before = worker.forget_peak()
    held = bytearray(200_000_000)
    del held
    assert worker.peak_bytes() > before + 150_000_000
    worker.forget_peak()
    assert worker.peak_bytes() < before + 100_000_000
    kept, held = [], bytearray(400_000_000)
    del held
    peak = worker.peak_of_a_call(lambda: kept.append(bytearray(b"x") * 50_000_000))
    assert before + 140_000_000 < peak < before + 190_000_000  # the third call, which finds what the first two kept


def test_exponents_are_those_of_power_laws():
    numbers = [2.0, 3.0, 8.0]
    assert scaling.exponent(numbers, [5 * number**1.5 for number in numbers]) == pytest.approx(1.5)
    assert {scaling.number_of(what, size) for what, sizes in scaling.GROWN.items() for size in sizes} == {
        *(2, 4, 8),  # clips
        *(8, 16, 32),  # frames
        *(16**2, 24**2, 32**2),  # positions
        *(32, 64, 128),  # channels
    }


def test_the_pipeline_is_timed_on_what_training_sees(tmp_path, monkeypatch):
    monkeypatch.setattr(feeding, "NUM_VIDEOS", 2)
    feeding.write_videos(tmp_path)
    config = feeding._config(TOY, str(tmp_path))
    train = build.SOURCES["folder"](config.data).train
    assert train[0]["video"].shape == (2, 8, 8, 3)
    assert feeding.clips_a_second(train, 2, seconds=0.1) > 2


def test_pages_are_made_of_whole_records(monkeypatch):
    """Our two sides of a toy pair, in processes of their own, and records of the other parts."""
    monkeypatch.setitem(SIZES, "toy", TOY)
    found = pairs.measured(Pair("loop", "toy", ("ours", "remat")), rounds=2, seconds_a_turn=0.01)
    ours_then_remat = found["sides"]["ours"], found["sides"]["remat"]
    assert [len(side["seconds"]) for side in ours_then_remat] == [2, 2]
    assert all(side["peak_bytes"] >= side["bytes_at_rest"] > 1e8 for side in ours_then_remat)
    assert all("jax" in side["versions"] and side["first_call"] > 0 for side in ours_then_remat)
    code = {"commit": "0123456789abcdef"}
    environment = {"num_cpus": 2, "platform": "Linux", "code": code}
    record = {
        "kind": "train",
        "size": "small",
        "environment": environment,
        "sides": {**found["sides"], "eager": ours_then_remat[0]},
    }
    times, resources = (made({"train_small": record}).splitlines() for made in (tables.pairs, tables.resources))
    front = tables.front({"train_small": record, "bound_small": found}).splitlines()  # what no peer does is not there
    assert len(front) == 3 and front[0].count("|") == front[2].count("|") == 7 and "| 1.00 (1.00 to 1.00) |" in front[2]
    assert times[-1].startswith("2 CPU cores, Linux; jax ") and times[-1].endswith("; commit 0123456789ab.")
    assert len(times) - 2 == len(resources) == 3 and "| 1.00 (1.00 to 1.00) |" in times[2]
    seconds = {"imports": [1.0, 3.0, 2.0], "first_step": [5.0, 4.0, 9.0]}
    assert "| cold | 2.0 | 5.0 | 7.0 (6.0 to 11.0) |" in tables.starts({"seconds": {"cold": seconds}})
    rates = {"videos_a_second": 7.5, "clips_a_second": {"small": {"moving_shapes": 800.0, "folder": 80.0}}}
    step = {"train_small": {"sides": {"ours": {"seconds": [0.5]}}}}  # four clips
    assert "| 800 (100 times) | 80 (10 times) | 8.0 |" in tables.feeding(rates, step)
    rates = {"device": "cpu", "products": {"float32": 2e11}, "seconds": {"attention": {"ours": 0.002, "JAX's": 0.004}}}
    assert "| attention | ours 2.00, JAX's 4.00 |" in tables.kernels(rates)
    law = {"numbers": [2.0, 4.0], "seconds": [1.0, 2.0], "bytes": [3.0, 3.0], "flops": [1.0, 4.0]}
    assert "| clips | 2, 4 | 1.00 | 0.00 | 2.00 | 1 in all |" in tables.scaling({"clips": law, "environment": {}})


def test_ways_to_do_the_same_do_the_same(monkeypatch):
    """Convolutions of frames as 2-D and 3-D ones, attention as ours and JAX's."""
    flat, solid = (kernel() for kernel in kernels.convolutions(2, 3, 4, 8, jnp.float32).values())
    np.testing.assert_allclose(flat, solid, rtol=1e-4, atol=1e-4)
    mine, theirs = (kernel() for kernel in kernels.attentions(2, 5, 3, 8, jnp.float32, on_gpu=False).values())
    np.testing.assert_allclose(mine.swapaxes(1, 2), theirs, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(kernels, "ROUNDS", 1)
    assert kernels.timed({"product": kernels.product(64, jnp.float32)})["product"] > 0
