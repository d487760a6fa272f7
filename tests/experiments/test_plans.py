"""The grid of recorded plans: all of it can be planned, it goes on where it stopped, the table is its records'."""

import dataclasses
import json

import pytest

from experiments.plans import grid, tables
from vdm import plan, refusals
from vdm.runtime import mesh as meshes
from vdm.types import MESH_AXES


@pytest.mark.parametrize("name", grid.CELLS)
def test_every_plan_can_be_laid_out(name):
    cell = grid.CELLS[name]
    config = grid.config_of(cell)
    axes = plan.axes_of(config, f"data=-1,fsdp={grid.FSDP}", cell.topology)
    refusals.check_config(config, meshes.abstract_mesh(**axes))
    assert config.data.batch_size == grid.CLIPS_PER_CHIP[cell.topology.kind] * cell.topology.num_devices


def test_the_grid_has_at_most_16_compilations_at_8_64_and_256_chips():
    assert len(grid.CELLS) <= 16
    for kind in grid.SHAPES:
        counts = [cell.topology.num_devices for cell in grid.CELLS.values() if cell.topology.kind == kind]
        assert sorted(set(counts)) == [8, 64, 256]


def _record(name):
    cell = grid.CELLS[name]
    row = {"kind": "all-gather", "group_size": 8, "is_small": False, "where": "", "phase": "forward"}
    compiled = {
        "memory": {"total": 12e9},
        "flops": 23e12,
        "bytes": 125e9,
        "collectives": [row | {"count": 3, "sent_bytes": 1.5e9}, row | {"count": 1, "sent_bytes": 0.5e9}],
        "roofline": {"seconds": 0.1, "bound": "memory"},
        "utilisation": 0.423,
        "compile_seconds": 300.0,
        "versions": {"jax": "1", "libtpu": "2"},
    }
    return {
        "name": name,
        "config": cell.paper,
        "topology": cell.topology.name,
        "mesh": dict(zip(MESH_AXES, (1, 8, 1, 1), strict=True)),
        "batch_size": cell.batch_size,
        "model_flops": 19e12,
        "compiled": compiled,
        "environment": {"code": {"commit": "0123456789abcdef"}, "num_cpus": 2},
    }


def test_a_row_says_what_its_record_says():
    text = tables.table([_record("ucf101_v5p_8"), _record("ucf101_v4_8") | {"compiled": None}])
    row = "| ucf101 | v5p:2x2x2 | fsdp=8 | 32 | 12.0 (102) | 19.0 | 23.0 | 125 | 2.00 | 100 | memory | 42.3% | 300 |"
    head, line, fits, refused, *_ = text.splitlines()
    assert fits == row
    assert "does not fit (34)" in refused
    assert {head.count("|"), line.count("|"), fits.count("|"), refused.count("|")} == {14}
    assert "from commit 0123456789ab." in text


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    moved = {name: _Moved(cell, tmp_path / f"{name}.json") for name, cell in grid.CELLS.items()}
    monkeypatch.setattr(grid, "CELLS", moved)
    assert grid.missing() == list(moved)
    moved["ucf101_v5p_64"].file.write_text(json.dumps(_record("ucf101_v5p_64")))
    assert "ucf101_v5p_64" not in grid.missing()
    assert [record["name"] for record in grid.records()] == ["ucf101_v5p_64"]


@dataclasses.dataclass(frozen=True)
class _Moved:
    """A cell whose record lies elsewhere."""

    cell: grid.Cell
    file: object

    def __getattr__(self, name):
        return getattr(self.cell, name)
