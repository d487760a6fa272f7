"""Rooflines, estimates and the ranking of meshes against sums by hand."""

import os
import time

import pytest

from vdm.costs import child, chips, estimate
from vdm.costs.chips import Chip
from vdm.costs.estimate import Facts
from vdm.costs.jaxpr import Operation, Work
from vdm.costs.roofline import Roofline, roofline

CHIP = Chip(100.0, memory_bytes=1000.0, memory_bandwidth=10.0, link_bandwidth=2.0, num_links=4, sources="made up")
FACTS = Facts(
    num_parameters=12,
    state_bytes=12 * 16.0,
    compute_bytes=2,
    work=Work((Operation(400.0, 10.0), Operation(0.0, 30.0))),
    model_flops=300.0,
    activation_bytes=50.0,
    batch_size=16,
    num_frames=8,
)


def _axes(data=1, fsdp=1, tensor=1, frames=1):
    return {"data": data, "fsdp": fsdp, "tensor": tensor, "frames": frames}


def test_each_kernel_takes_the_longer_of_its_two_times():
    line = roofline((Operation(400.0, 10.0, 2), Operation(0.0, 30.0), Operation(100.0, 50.0)), 8.0, CHIP)
    assert line == Roofline(compute=2 * 4.0, memory=3.0 + 5.0, collectives=8.0 / (2 * 2.0))
    assert (line.seconds, line.bound) == (18.0, "compute")
    assert line.utilisation(900.0, CHIP) == 0.5


def test_an_estimate_by_hand():
    """16 clips on 8 devices; parameters over 4 of them: 2 gathers of bf16, a scattered f32 sum, a sum over data."""
    guess = estimate.estimate(FACTS, _axes(data=2, fsdp=4), CHIP)
    gathers, scattered, summed = 2 * 12 * 2 * 3 / 4, 12 * 4 * 3 / 4, 2 * (12 / 4) * 4 * 1 / 2
    assert guess.sent_bytes == gathers + scattered + summed
    assert guess.state_bytes == 12 * 16 / 4
    assert guess.temporary_bytes == 12 * 4 / 4 + 2 * 50
    update = (2 * 48 + 12) / 10
    assert guess.roofline == Roofline(2 * 4.0, pytest.approx(2 * 3.0 + update), guess.sent_bytes / 4)
    assert guess.utilisation == pytest.approx(2 * 300 / (100 * guess.roofline.seconds))


def test_a_scattered_sum_over_all_devices_is_taken_as_a_whole_one():
    guess = estimate.estimate(FACTS, _axes(fsdp=8), CHIP)
    assert guess.sent_bytes == 2 * 12 * 2 * 7 / 8 + 2 * 12 * 4 * 7 / 8


def test_frames_split_what_a_clip_takes():
    whole = estimate.estimate(FACTS, _axes(data=16), CHIP)
    split = estimate.estimate(FACTS, _axes(data=16, frames=4), CHIP)
    assert whole.temporary_bytes - 48 == 4 * (split.temporary_bytes - 48)


def test_microbatches_take_the_memory_of_one_and_exchange_for_each():
    plain, parts = (
        estimate.estimate(facts, _axes(data=2, fsdp=4), CHIP)
        for facts in (FACTS, Facts(**{**vars(FACTS), "num_microbatches": 2}))
    )
    assert plain.temporary_bytes - parts.temporary_bytes == 50.0
    assert parts.sent_bytes == 2 * plain.sent_bytes


def test_kept_kernels_are_gathered_once_and_take_memory_where_they_are_split():
    once = Facts(**{**vars(FACTS), "num_gathers": 1})
    split, whole = _axes(data=2, fsdp=4), _axes(data=8)
    again, kept = (estimate.estimate(facts, split, CHIP) for facts in (FACTS, once))
    assert again.sent_bytes - kept.sent_bytes == 12 * 2 * 3 / 4
    assert kept.temporary_bytes - again.temporary_bytes == 12 * 4
    assert estimate.estimate(once, whole, CHIP) == estimate.estimate(FACTS, whole, CHIP)


def test_levers_are_the_smallest_changes_that_fit():
    """On one device 192 + 48 + 16 x 50 bytes; of 1000 they are too many by 40, of 300 only fsdp or a clip would do."""
    assert not estimate.estimate(FACTS, _axes(), CHIP).fits(CHIP)
    found = estimate.levers(FACTS, _axes(), CHIP, {})
    assert found == ["config.data.batch_size=8", "config.run.num_microbatches=2"]
    small = Chip(**{**vars(CHIP), "memory_bytes": 240.0})
    less = {"products": FACTS, "blocks": Facts(**{**vars(FACTS), "activation_bytes": 0.0})}
    found = estimate.levers(FACTS, _axes(data=16), small, less)
    assert found == ["config.run.remat=blocks", "--mesh=data=8,fsdp=2"]


def test_a_lever_is_no_number_of_microbatches_that_does_not_divide_the_batch():
    """6 clips a device: 2 microbatches of 3 do not fit here, 4 of one and a half cannot be."""
    facts, chip = Facts(**{**vars(FACTS), "batch_size": 48}), Chip(**{**vars(CHIP), "memory_bytes": 330.0})
    assert estimate.levers(facts, _axes(data=8), chip, {}) == ["--mesh=fsdp=8"]


def test_where_one_clip_a_device_is_too_many_its_frames_are_split():
    """192 / 16 + 48 / 16 + 50 bytes; of 30, a clip over four devices leaves 12 + 3 + 12.5."""
    small = Chip(**{**vars(CHIP), "memory_bytes": 30.0})
    many = Facts(**{**vars(FACTS), "batch_size": 64})
    found = estimate.levers(many, _axes(data=4, fsdp=16), small, {})
    assert found == ["config.data.batch_size=16 with --mesh=fsdp=16,frames=4"]


def test_meshes_of_a_search_are_laid_out_on_every_device():
    ways = [estimate.spell(axes) for axes in estimate.meshes(FACTS, 8)]
    assert ways == ["data=8", "data=4,fsdp=2", "data=2,fsdp=4", "fsdp=8"]
    assert [estimate.spell(axes) for axes in estimate.meshes(FACTS, 32)][:2] == [
        "data=16,frames=2",
        "data=8,fsdp=2,frames=2",
    ]
    assert estimate.meshes(FACTS, 3) == []


def test_those_that_fit_are_ranked_first_by_their_time():
    small = Chip(**{**vars(CHIP), "memory_bytes": 259.0})
    recomputed = Work((Operation(500.0, 10.0), Operation(0.0, 30.0)))
    less = Facts(**{**vars(FACTS), "activation_bytes": 10.0, "work": recomputed})
    ranks = estimate.ranked({"kernels": FACTS, "blocks": less}, 8, small)
    assert {rank.remat for rank in ranks} == {"kernels", "blocks"}
    assert len(ranks) == 4 + 3  # "kernels" is not another program where none is split
    fits = [rank.estimate.fits(small) for rank in ranks]
    assert fits == sorted(fits, reverse=True)
    assert 0 < sum(fits) < len(fits)
    times = [rank.estimate.roofline.seconds for rank, ok in zip(ranks, fits, strict=True) if ok]
    assert times == sorted(times)


@pytest.mark.parametrize("name", ["v5e:16x16", "v4:2x2x4", "v5p:8x8x8", "h100:8"])
def test_topologies_are_read(name):
    assert chips.topology(name).name == name


def test_devices_of_topologies():
    """As `jax.experimental.topologies` counts them (libtpu 0.0.42.1): two of a tpu7x chip, one of every other."""
    counts = {name: chips.topology(name).num_devices for name in ("v5e:2x4", "v4:2x2x2", "v5p:2x2x4", "tpu7x:2x2x1")}
    assert counts == {"v5e:2x4": 8, "v4:2x2x2": 8, "v5p:2x2x4": 16, "tpu7x:2x2x1": 8}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no known chip; the kinds are v4"),
        ("v9:2x2", "no known chip"),
        ("v5e", "needs 2 sides, as in v5e:4x4"),
        ("v5e:2x2x2", "needs 2 sides"),
        ("v4:2x2", "needs 3 sides, as in v4:4x4x8"),
        ("v4:2x0x2", "has no shape"),
        ("h100:2x4", "needs 1 sides"),
    ],
)
def test_topologies_that_cannot_be_are_refused(name, words):
    with pytest.raises(ValueError, match=words):
        chips.topology(name)


def _environment(name):
    return os.environ.get(name)


def _raise(message):
    raise ValueError(message)


def test_a_child_answers_in_its_environment_and_leaves_this_one():
    assert child.run(_environment, "VDM_TEST", timeout=60, environment={"VDM_TEST": "set"}) == "set"
    assert "VDM_TEST" not in os.environ


@pytest.mark.parametrize(
    ("function", "argument", "words"),
    [
        (_raise, "not this", "ValueError: not this"),
        (os._exit, 7, "died with exit code 7"),
        (time.sleep, 60, "did not end within 5 s"),
    ],
)
def test_a_child_that_fails_is_an_error_here(function, argument, words):
    with pytest.raises(RuntimeError, match=words):
        child.run(function, argument, timeout=5 if function is time.sleep else 60, environment={})
