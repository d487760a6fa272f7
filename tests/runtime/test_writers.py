"""What was written is read back: across shards, resumes and kills, and by TensorBoard's own format."""

import json
import math

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from vdm.runtime.writers import Writer, read_scalars


def test_rows_come_back_merged_by_step_from_all_shards(tmp_path):
    writer = Writer(tmp_path, first_step=0)
    writer.scalars(20, {"loss": 0.5})
    writer.flush()
    writer.scalars(10, {"loss": 1.0})
    writer.scalars(20, {"validation": 0.25})
    writer.close()
    assert read_scalars(tmp_path) == [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 0.5, "validation": 0.25}]
    assert len(list((tmp_path / "metrics").glob("*.jsonl"))) == 2


def test_a_resumed_run_replaces_what_the_killed_one_did_beyond_the_checkpoint(tmp_path):
    killed = Writer(tmp_path, first_step=0)
    for step in (10, 20, 30):
        killed.scalars(step, {"loss": float(step)})
    killed.flush()
    resumed = Writer(tmp_path, first_step=20)
    resumed.scalars(25, {"loss": 2.5})  # another cadence: step 30 is not written again
    resumed.close()
    assert read_scalars(tmp_path) == [
        {"step": 10, "loss": 10.0},
        {"step": 20, "loss": 20.0},
        {"step": 25, "loss": 2.5},
    ]


def test_what_a_kill_left_unfinished_is_not_read(tmp_path):
    writer = Writer(tmp_path, first_step=0)
    writer.scalars(1, {"loss": 1.0})
    writer.close()
    (tmp_path / "metrics" / "scalars-000002.jsonl.unfinished").write_text('{"step": 2, "lo')
    assert read_scalars(tmp_path) == [{"step": 1, "loss": 1.0}]
    assert read_scalars(tmp_path / "nowhere") == []


def test_lines_are_strict_json_and_numbers_that_are_not_finite_survive(tmp_path):
    writer = Writer(tmp_path, first_step=0)
    writer.scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32(0.1)})
    writer.close()
    (shard,) = (tmp_path / "metrics").glob("*.jsonl")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in shard.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    (row,) = read_scalars(tmp_path)
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf and row["d"] == np.float32(0.1)


def test_the_name_of_the_step_is_taken(tmp_path):
    with pytest.raises(ValueError, match='"step"'):
        Writer(tmp_path, first_step=0).scalars(1, {"step": 2.0})


def records(path):
    """The events of a TensorBoard file: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    content = path.read_bytes()
    while content:
        size = int.from_bytes(content[:8], "little")
        yield Event.FromString(content[12 : 12 + size])
        content = content[16 + size :]


@pytest.mark.parametrize("channels", [1, 3])
def test_tensorboard_sees_the_numbers_the_image_and_the_resume(channels, tmp_path):
    writer = Writer(tmp_path, first_step=30)
    writer.scalars(40, {"loss": 0.5})
    writer.image(40, "samples", np.zeros((4, 6, channels), np.uint8))
    writer.close()
    (path,) = (tmp_path / "metrics").glob("events*")
    events = list(records(path))
    values = {value.tag: (event.step, value) for event in events for value in event.summary.value}
    assert values["loss"][0] == 40 and values["loss"][1].simple_value == 0.5
    assert (values["samples"][1].image.height, values["samples"][1].image.width) == (4, 6)
    assert [event.step for event in events if event.HasField("session_log")] == [31]
