"""What is restored is what was saved, bit for bit, however slow, killed or damaged; all else is refused by name."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from tests.runtime import toy
from vdm.nets import sharding
from vdm.runtime import checkpoints, manifest, mesh, state

HERE = mesh.make_mesh()
STEP = toy.make_step(HERE)


def run(train_state, num_steps):
    for _ in range(num_steps):
        train_state, _ = STEP(train_state)
    return train_state


def copy_of(tree):
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


def assert_same_bits(given, expected):
    assert jax.tree.structure(given) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(one).view(np.uint32), np.asarray(other).view(np.uint32))


def writer(folder, max_to_keep=2, **options):
    return checkpoints.CheckpointWriter(folder, toy.IDENTITY, max_to_keep=max_to_keep, **options)


def restore(folder, step=None):
    return checkpoints.restore(folder, toy.abstract_state(HERE), step=step)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2, and the states that they hold."""
    folder, states, train_state = tmp_path_factory.mktemp("saved"), {}, toy.init_state(HERE)
    with writer(folder) as saver:
        for step in (1, 2):
            train_state = run(train_state, 1)
            saver.save(train_state)
            states[step] = copy_of(train_state)
    return folder, states


@pytest.mark.feature("R7")
def test_going_on_from_a_checkpoint_equals_never_having_stopped(tmp_path):
    uninterrupted = run(toy.init_state(HERE), 10)
    with writer(tmp_path) as saver:
        saver.save(run(toy.init_state(HERE), 4))
    assert_same_bits(run(restore(tmp_path), 6), uninterrupted)


@pytest.mark.feature("R7")
def test_a_slow_save_holds_its_step_while_later_steps_overwrite_the_buffers(tmp_path, monkeypatch):
    train_state = run(toy.init_state(HERE), 3)
    expected = copy_of(run(toy.init_state(HERE), 3))
    may_write, waiting, really_open = threading.Event(), threading.Event(), tensorstore.open

    def slow_open(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            waiting.set()
            assert may_write.wait(60)
        return really_open(*args, **kwargs)

    monkeypatch.setattr(tensorstore, "open", slow_open)
    with writer(tmp_path) as saver:
        saver.save(train_state)
        next_state = run(train_state, 1)
        last_state = run(next_state, 19)
        written = checkpoints.saved_steps(tmp_path)
        slow = waiting.wait(60)
        may_write.set()
    assert slow and not written and last_state.step == 23  # 20 steps were done before a byte was in its place
    assert next_state.params["layer"]["kernel"].is_deleted()  # and their buffers were indeed given away
    monkeypatch.undo()
    assert_same_bits(copy_of(restore(tmp_path, step=3)), expected)


def test_the_newest_checkpoints_are_kept_and_each_is_its_own_step(tmp_path):
    train_state, states = toy.init_state(HERE), {}
    with writer(tmp_path, max_to_keep=2) as saver:
        for _ in range(3):
            train_state = run(train_state, 1)
            states[int(train_state.step)] = copy_of(train_state)
            saver.save(train_state)
            saver.save(train_state)  # the same step again is the same state: nothing to do
    assert checkpoints.saved_steps(tmp_path) == [2, 3]
    for step in (2, 3):
        assert_same_bits(copy_of(restore(tmp_path, step)), states[step])
    assert_same_bits(copy_of(restore(tmp_path)), states[3])
    assert checkpoints.read_identity(tmp_path) == toy.IDENTITY


def test_multiples_are_kept_for_good(tmp_path):
    train_state = toy.init_state(HERE)
    for steps in (3, 2):  # in two lives
        with writer(tmp_path, max_to_keep=1, keep_every_steps=2) as saver:
            for _ in range(steps):
                train_state = run(train_state, 1)
                saver.save(train_state)
    assert checkpoints.saved_steps(tmp_path) == [2, 4, 5]


KILLED_SAVE = """
    import dataclasses, os, signal, sys, tensorstore, threading
    from tests.runtime import test_checkpoints as t
    really_open = tensorstore.open
    def deadly_open(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), signal.SIGKILL)
        return really_open(*args, **kwargs)
    first = t.toy.init_state(t.HERE)
    with t.writer(sys.argv[1]) as saver:
        saver.save(first)
        saver.wait()
        tensorstore.open = deadly_open
        saver.save(dataclasses.replace(first, step=first.step + 1))
"""


@pytest.mark.feature("R7")
def test_a_killed_save_does_not_count_and_is_cleared_away(tmp_path):
    code = textwrap.dedent(KILLED_SAVE)
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(os.listdir(tmp_path)) == 2  # step 0, and what was left of step 1
    assert checkpoints.saved_steps(tmp_path) == [0]
    assert_same_bits(copy_of(restore(tmp_path)), copy_of(toy.init_state(HERE)))
    with writer(tmp_path) as saver:
        saver.save(run(restore(tmp_path), 2))
    assert sorted(os.listdir(tmp_path)) == ["0", "2"]
    assert_same_bits(copy_of(restore(tmp_path)), copy_of(run(toy.init_state(HERE), 2)))


def damages(folder):
    """Every file of step 2, once deleted, once cut to half, once with a byte of it inverted."""
    for file in sorted(path for path in (folder / "2").rglob("*") if path.is_file()):
        content = file.read_bytes()
        middle = len(content) // 2
        inverted = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        yield from ((file.relative_to(folder), new) for new in (None, content[:middle], inverted))


def test_no_damage_to_any_file_goes_unseen(two_steps, tmp_path, monkeypatch, capfd):
    saved, states = two_steps
    refused, left_behind = 0, []
    monkeypatch.setattr(sys, "unraisablehook", left_behind.append)
    for file, content in damages(saved):
        folder = tmp_path / "damaged"
        shutil.copytree(saved, folder)
        (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
        try:
            assert_same_bits(copy_of(restore(folder)), states[2])
        except checkpoints.CheckpointError as error:
            refused += 1
            assert isinstance(error, checkpoints.DamagedCheckpointError) and error.step == 2
            assert "step 2 is damaged" in str(error) and "the one before it is of step 1" in str(error)
            assert_same_bits(copy_of(restore(folder, step=1)), states[1])
        shutil.rmtree(folder)
    gc.collect()
    assert not left_behind, "reads that failed left threads or coroutines that report after the error"
    capfd.readouterr()  # orbax logs what it meets
    assert refused >= 12  # the rest are marks and hints that hold no number


def test_damage_to_the_only_checkpoint_says_that_it_is_the_only_one(two_steps, tmp_path):
    saved, _ = two_steps
    shutil.copytree(saved / "1", tmp_path / "1")
    (tmp_path / "1" / "manifest" / "metadata").unlink()
    with pytest.raises(checkpoints.CheckpointError, match="there is no earlier one"):
        restore(tmp_path)


@pytest.mark.feature("R7")
def test_the_last_good_one_is_restored_and_damaged_ones_make_way(two_steps, tmp_path):
    saved, states = two_steps
    folder, asked = tmp_path / "run" / "checkpoints", []
    shutil.copytree(saved, folder)
    for life in (1, 2):  # damaged at the same step in each
        (folder / "2" / "manifest" / "metadata").write_text("{")
        restored, (damaged,) = checkpoints.restore_last_good(folder, toy.abstract_state(HERE), asked.append)
        assert_same_bits(copy_of(restored), states[1])
        assert asked == life * [toy.IDENTITY] and damaged.step == 2
        assert checkpoints.saved_steps(folder) == [1, 2]  # nothing has been moved yet
        aside = checkpoints.move_aside(folder, 2)
        with writer(folder) as saver:
            saver.save(run(restored, 1))  # its place is free
        assert (aside / "state").is_dir()  # and what made way is still there
        assert_same_bits(copy_of(restore(folder)), states[2])
    assert {path.name for path in (tmp_path / "run" / "damaged_checkpoints").iterdir()} == {"2", "2-1"}
    assert checkpoints.digest(folder) == checkpoints.digest(saved) != checkpoints.digest(saved, step=1)


def test_where_no_checkpoint_is_whole_all_are_named_and_left(two_steps, tmp_path):
    shutil.copytree(two_steps[0], tmp_path / "all")
    for step in ("1", "2"):
        (tmp_path / "all" / step / "manifest" / "metadata").unlink()
    for folder, said in (("all", "none .* is whole: .*step 2 .*step 1 "), ("nowhere", "no complete checkpoint")):
        with pytest.raises(checkpoints.CheckpointError, match=said):
            checkpoints.restore_last_good(tmp_path / folder, toy.abstract_state(HERE), print)
    assert checkpoints.saved_steps(tmp_path / "all") == [1, 2]


@pytest.mark.parametrize("error", [PermissionError("no"), ValueError("UNAVAILABLE: the bucket"), MemoryError()])
def test_what_cannot_be_read_now_is_not_called_damaged(two_steps, monkeypatch, error):
    def hindered(*args, **options):
        raise error

    monkeypatch.setattr(checkpoints.ocp.StandardCheckpointHandler, "restore", hindered)
    with pytest.raises(checkpoints.CheckpointError, match="that is no damage") as caught:
        checkpoints.restore_last_good(two_steps[0], toy.abstract_state(HERE), lambda identity: None)
    assert not isinstance(caught.value, checkpoints.DamagedCheckpointError)


def test_a_missing_checkpoint_is_named(two_steps, tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match=r"no complete checkpoint in .*nowhere"):
        restore(tmp_path / "nowhere")
    with pytest.raises(checkpoints.CheckpointError, match=r"no checkpoint of step 7 in .*only of the steps \[1, 2\]"):
        restore(two_steps[0], step=7)
    assert checkpoints.saved_steps(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (
            lambda key: {"layer": {"kernel": jnp.zeros((24, 8)), "bias": jnp.zeros(24)}},
            r"params/layer/kernel is float32\[24, 24\] in the checkpoint and float32\[24, 8\] here",
        ),
        (
            lambda key: {"layer": {"kernel": jnp.zeros((24, 24), jnp.bfloat16), "bias": jnp.zeros(24)}},
            r"params/layer/kernel is float32\[24, 24\] in the checkpoint and bfloat16\[24, 24\] here",
        ),
        (
            lambda key: {"layer": {"kernel": jnp.zeros((24, 24))}},
            r"params/layer/bias is float32\[24\] in the checkpoint and not there here",
        ),
        (
            lambda key: {**toy.init(key), "head": {"bias": jnp.zeros(2)}},
            r"params/head/bias is not there in the checkpoint and float32\[2\] here",
        ),
    ],
)
def test_another_network_is_refused_by_the_paths_that_differ(two_steps, init, message):
    abstract = state.abstract_state(init, toy.make_optimizer(), HERE, sharding.UNET_RULES)
    with pytest.raises(checkpoints.CheckpointError, match=message):
        checkpoints.restore(two_steps[0], abstract)


def test_at_least_one_checkpoint_is_kept(tmp_path):
    with pytest.raises(ValueError, match="max_to_keep is 0"):
        writer(tmp_path, max_to_keep=0)


def test_every_change_of_one_element_changes_the_checksum():
    array = jnp.arange(24, dtype=jnp.float32).reshape(2, 3, 4)
    checksum = manifest.checksums({"a": array})["a"]
    one_bit = np.asarray(array).view(np.uint32).copy()
    one_bit[1, 2, 3] ^= 1 << 31  # the sign, which an even factor would lose
    flipped = jnp.asarray(one_bit.view(np.float32))
    swapped = array.at[0, 0, 1].set(array[1, 0, 1]).at[1, 0, 1].set(array[0, 0, 1])
    others = [manifest.checksums({"a": other})["a"] for other in (flipped, swapped, array.reshape(24))]
    assert checksum != others[0] and checksum != others[1] and checksum == others[2]
    # by hand: 1.0f is 0x3F800000, 2.0f is 0x40000000; 1 x the first + 3 x the second modulo 2^32
    assert manifest.checksums({"a": jnp.array([1.0, 2.0])})["a"] == (0x3F800000 + 3 * 0x40000000) % 2**32


def test_a_long_list_is_cut_and_counted():
    assert manifest.listed(["a", "b", "c"], most=2) == "a; b; and 1 more"
