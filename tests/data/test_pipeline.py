"""The sequence of batches is a function of (seed, step), whoever asks for it."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
from scipy import stats

from data import pipeline
from data.sources import Example
from data.sources.moving_shapes import World
from data.sources.simulated import splits


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Clips that show their own number; as an example the label is a random choice, without augmentation -1."""

    num_clips: int
    delay: float = 0.0  # seconds a clip
    num_channels: int = 1
    class_names: tuple[str, ...] = ()
    fingerprint: str = "numbered"

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> Example:
        time.sleep(self.delay)
        return {"video": np.full((1, 1, 1, 1), index, np.uint8), "label": np.int32(-1)}

    def example(self, index: int, rng: np.random.Generator) -> Example:
        return self[index] | {"label": np.int32(rng.integers(10**9))}


def take(count: int, source=None, seed: int = 0, batch_size: int = 8, **options) -> list[pipeline.Batch]:
    iterator = pipeline.batches(source or Numbered(20), seed, batch_size, **options)
    found = list(itertools.islice(iterator, count))
    iterator.close()
    return found


def joined(batches: list[pipeline.Batch]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def clips(batches: list[pipeline.Batch]) -> np.ndarray:
    return joined(batches)["video"].ravel()


def assert_same(left: list[pipeline.Batch], right: list[pipeline.Batch]):
    for name, value in joined(left).items():
        np.testing.assert_array_equal(value, joined(right)[name])


@pytest.mark.feature("D1")
@pytest.mark.parametrize("num_processes", [2, 4])
def test_any_number_of_processes_sees_one_sequence(num_processes):
    parts = [take(6, rows=rows) for rows in np.split(np.arange(8), num_processes)]
    stitched = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_same(stitched, take(6))


def test_rows_come_in_the_order_asked_for():
    whole, some = take(2)[1], take(2, rows=np.array([6, 1]))[1]
    for name, value in some.items():
        np.testing.assert_array_equal(value, whole[name][[6, 1]])


@pytest.mark.feature("D1")
def test_a_resumed_run_continues_the_sequence():
    assert_same(take(3, start_step=4), take(7)[4:])


@pytest.mark.feature("D1")
def test_worker_processes_give_the_sequence_of_threads():
    source = splits(World(4, 16, 16), num_train=30, num_validation=1).train
    assert_same(take(5, source, start_step=3, num_workers=2), take(5, source, start_step=3))


def test_the_sequence_does_not_depend_on_the_batch_size():
    assert_same(take(6, batch_size=4), take(3, batch_size=8))


@pytest.mark.feature("D1")
def test_every_epoch_is_a_new_permutation():
    epochs = clips(take(20, batch_size=7)).reshape(7, 20)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(20), (7, 1)))
    other_seed = clips(take(20, batch_size=7, seed=1)).reshape(7, 20)
    assert len({tuple(epoch) for epoch in [*epochs, *other_seed]}) == 14


def test_permutations_are_uniform():
    orders = clips(take(600, Numbered(3), batch_size=6)).reshape(-1, 3)
    counts = np.unique(orders @ [9, 3, 1], return_counts=True)[1]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_random_choices_belong_to_the_example_not_to_the_clip():
    found = joined(take(50))
    assert len(np.unique(found["label"])) == 400
    assert stats.kstest(found["label"] / 10**9, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(found["index"], np.arange(400))
    assert not np.isin(joined(take(50, seed=1))["label"], found["label"]).any()


def test_drawn_clips_are_random_by_their_index_and_seed_alone():
    rows = np.array([7, 3, 11, 5, 0])
    found = [joined(list(pipeline.drawn(Numbered(20), rows, size, 4))) for size in (2, 5)]
    for one in found:
        np.testing.assert_array_equal(one["video"].ravel(), rows)
        np.testing.assert_array_equal(one["label"], found[0]["label"])
    assert len(np.unique(found[0]["label"])) == 5 and (found[0]["label"] >= 0).all()
    assert (joined(list(pipeline.drawn(Numbered(20), rows, 5, 5)))["label"] != found[0]["label"]).all()


def test_overfit_repeats_the_first_clips_without_augmentation():
    for batch in take(3, batch_size=64, overfit=8):
        np.testing.assert_array_equal(np.bincount(batch["video"].ravel()), np.full(8, 8))
        assert (batch["label"] == -1).all()


def test_a_small_split_fills_a_larger_batch():
    found = take(3, Numbered(3), batch_size=8)
    np.testing.assert_array_equal(np.bincount(clips(found)), [8, 8, 8])
    assert len(np.unique(joined(found)["label"])) == 24


def test_a_far_step_is_reached_at_once():
    start = time.perf_counter()
    batch = take(1, start_step=10**12)[0]
    assert time.perf_counter() - start < 20  # walking there would take days
    np.testing.assert_array_equal(batch["index"], 8 * 10**12 + np.arange(8))


def test_batches_are_made_while_the_device_works():
    iterator = pipeline.batches(Numbered(20, delay=0.01), 0, 8)
    next(iterator)
    time.sleep(2.0)  # a step of training, much longer than a batch takes
    start = time.perf_counter()
    next(iterator)
    assert time.perf_counter() - start < 8 * 0.01  # made now, its 8 clips alone would sleep so long
    iterator.close()


@pytest.mark.feature("D1")
def test_fixed_batches_are_the_first_clips_in_order():
    found = list(pipeline.fixed(Numbered(20), count=10, batch_size=4))
    assert [len(batch["index"]) for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(clips(found), np.arange(10))
    np.testing.assert_array_equal(joined(found)["index"], np.arange(10))
    assert (joined(found)["label"] == -1).all()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Numbered(0), {}, "0 here"),
        (Numbered(5), {"overfit": 6}, "overfit=6"),
        (Numbered(5), {"seed": -1}, "seed=-1"),
        (Numbered(5), {"start_step": -1}, "start_step=-1"),
        (Numbered(5), {"rows": np.array([8])}, "one row or more"),
        (Numbered(5), {"rows": np.array([], int)}, "one row or more"),
    ],
)
def test_impossible_requests_are_refused(source, options, message):
    with pytest.raises(ValueError, match=message):
        pipeline.batches(source, **{"seed": 0, "batch_size": 8} | options)


@pytest.mark.parametrize("count", [0, 21])
def test_validation_over_other_than_the_given_clips_is_refused(count):
    with pytest.raises(ValueError, match="1 to 20 clips"):
        pipeline.fixed(Numbered(20), count=count, batch_size=4)
