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


def _row(kind, count, sent, *, is_small=False, where="nets/sharding.py:1", phase="forward"):
    return {
        "kind": kind, "group_size": 4, "is_small": is_small, "where": where, "phase": phase,
        "count": count, "sent_bytes": sent,
    }  # fmt: skip


def _record(name, *, flops=23e12, temporaries=4e9):
    cell = grid.CELLS[name]
    collectives = [
        _row("all-gather", 3, 2e9),
        _row("all-gather", 1, 1e9, phase="recomputed"),
        _row("all-gather", 9, 1e6, is_small=True),
        _row("reduce-scatter", 2, 3e9, where="", phase="rest"),
        _row("all-reduce", 2, 1e9),
        _row("collective-permute", 38, 15e6, where="", phase="rest"),
        _row("all-to-all", 2, 7e6, where="", phase="backward"),
    ]
    compiled = {
        "memory": {"total": 12e9, "temporaries": temporaries},
        "flops": flops,
        "bytes": 125e9,
        "collectives": collectives,
        "roofline": {"seconds": 0.1, "bound": "memory"},
        "utilisation": 0.423,
        "compile_seconds": 300.0,
        "versions": {"jax": "1", "libtpu": "2"},
    }
    return {
        "name": name,
        "config": cell.paper,
        "topology": cell.topology.name,
        "mesh": dict(zip(MESH_AXES, (2, 4, 1, 1), strict=True)),
        "remat": "kernels",
        "batch_size": cell.batch_size,
        "parameters": 1e9,
        "model_flops": 19e12,
        "compiled": compiled,
        "environment": {"code": {"commit": "0123456789abcdef"}, "num_cpus": 2},
    }


def test_a_row_says_what_its_record_says():
    text = tables.plans([_record("ucf101_v5p_8"), _record("ucf101_v4_8") | {"compiled": None}])
    row = (
        "| ucf101 | v5p:2x2x2 | data=2,fsdp=4 | kernels | 32 | 12.0 (102) | 19.0 | 23.0 | 125 | 7.02 | 100 | memory "
        "| 42.3% | 300 |"
    )
    head, line, fits, refused, *_ = text.splitlines()
    assert fits == row
    assert "does not fit (34)" in refused
    assert {head.count("|"), line.count("|"), fits.count("|"), refused.count("|")} == {15}
    assert "from commit 0123456789ab." in text


def test_exchanges_stand_beside_the_formula():
    """Of 1e9 parameters over 4 devices: 2 gathers of 2 bytes, a scattered sum of 4, and over 2 a sum of a quarter."""
    row = tables.exchanges([_record("ucf101_v5p_8")]).splitlines()[-1]
    sums = "3.001 (3.000) | 3.000 (3.000) | 1.000 (1.000)"
    assert row == f"| ucf101 | v5p:2x2x2 | {sums} | 1 MB | 2 (7.0 MB) | 38 (15.0 MB) |"
    once = tables.exchanges([_record("ucf101_v5p_8") | {"remat": "none"}])
    assert "| 3.001 (1.500) |" in once


def test_scaling_is_against_the_smallest_slice_of_the_same_chips():
    records = [_record("ucf101_v5p_64", flops=24e12), _record("ucf101_v5p_8"), _record("ucf101_v4_8")]
    rows = tables.scaling(records).splitlines()[2:]
    assert rows == ["| ucf101 | v5p | 8 to 64 | x 1.0435 | x 1.0000 |"]


def test_the_front_page_says_what_the_records_say():
    assert tables.scale([_record("ucf101_v5p_8")]).splitlines()[2:] == [
        "| ucf101 | v5p:2x2x2 | 4 | 12.0 (102) | 42.3% | memory |"
    ]


COMPILED = [record for record in grid.records() if record["compiled"] is not None]


@pytest.mark.parametrize("record", COMPILED, ids=[record["name"] for record in COMPILED])
def test_recorded_plans_send_what_the_formula_says_and_the_partitioner_moves_nothing(record):
    for kind, formula in tables.formulas(record).items():
        assert tables.sent(record, kind) == pytest.approx(formula, rel=0.1), kind
    assert tables.moved(record, by_backend=False) == []


def test_recorded_plans_scale_and_use_what_they_should():
    for record in COMPILED:
        same = [other for other in COMPILED if other["name"].split("_")[:2] == record["name"].split("_")[:2]]
        first = min(same, key=lambda other: other["batch_size"])["compiled"]
        assert record["compiled"]["flops"] == pytest.approx(first["flops"], rel=0.01)
        temporaries = record["compiled"]["memory"]["temporaries"]
        assert temporaries == pytest.approx(first["memory"]["temporaries"], rel=0.05)
        if record["name"].startswith("ucf101_v5p"):
            assert record["compiled"]["utilisation"] >= 0.5


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
