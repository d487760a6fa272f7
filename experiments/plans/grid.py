"""Which plans there are, and their records."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from configs.paper import bair, kinetics600, ucf101
from vdm import plan
from vdm.costs import chips
from vdm.costs.estimate import Facts
from vdm.records.environment import Environment
from vdm.traces import Data
from vdm.types import Config

HERE = Path(__file__).parent
PAPERS = {"ucf101": ucf101, "bair": bair, "kinetics600": kinetics600}
DATA = Data(num_channels=3, num_classes=None)
FSDP = 4  # parameters are split over as many devices, the batch over all
CLIPS_PER_CHIP = {"v5p": 4, "v5e": 1, "v6e": 2, "v4": 2}  # at any number of chips: weak scaling
REMAT = {"v5p": "none", "v5e": "blocks", "v6e": "kernels", "v4": "kernels"}  # what the memory of the chip allows
SHAPES = {
    "v5p": ("2x2x2", "4x4x4", "4x8x8"),
    "v5e": ("2x4", "8x8", "16x16"),
    "v6e": ("2x4", "8x8", "16x16"),
    "v4": ("2x2x2", "4x4x4", "4x8x8"),
}
TIMEOUT = 3600.0  # seconds for one compilation


@dataclasses.dataclass(frozen=True)
class Cell:
    """One plan: a paper's config on a topology."""

    paper: str
    topology: chips.Topology

    @property
    def name(self) -> str:
        return f"{self.paper}_{self.topology.kind}_{self.topology.num_devices}"

    @property
    def batch_size(self) -> int:
        return CLIPS_PER_CHIP[self.topology.kind] * self.topology.num_devices

    @property
    def file(self) -> Path:
        return HERE / "records" / f"{self.name}.json"


def _cells() -> dict[str, Cell]:
    cells = [Cell("ucf101", chips.topology(f"{kind}:{shape}")) for kind, shapes in SHAPES.items() for shape in shapes]
    cells += [Cell(paper, chips.topology("v5p:4x4x4")) for paper in ("bair", "kinetics600")]
    return {cell.name: cell for cell in cells}


CELLS = _cells()


def records() -> list[dict[str, Any]]:
    """Those that there are, in the order of the grid."""
    return [json.loads(cell.file.read_text()) for cell in CELLS.values() if cell.file.exists()]


def missing() -> list[str]:
    """Names of the plans without a record: where an interrupted run goes on."""
    return [name for name, cell in CELLS.items() if not cell.file.exists()]


def compute(name: str, environment: Environment) -> None:
    """Compiles one plan and writes its record.

    Raises:
      ValueError: the TPU compiler is not installed.
      JobFailed: it failed.
    """
    cell = CELLS[name]
    if not plan.can_compile(cell.topology):
        raise ValueError("the TPU compiler is not here: pip install --require-hashes -r requirements/tpu.txt")
    config = config_of(cell)
    facts = dataclasses.replace(_facts(cell.paper, config.run.remat), batch_size=cell.batch_size)
    axes = plan.axes_of(config, f"data=-1,fsdp={FSDP}", cell.topology)
    made = plan.plan(config, topology=cell.topology, axes=axes, data=DATA, facts=facts, timeout=TIMEOUT)
    record = {"name": name, "environment": dataclasses.asdict(environment)} | made
    cell.file.parent.mkdir(exist_ok=True)
    cell.file.write_text(json.dumps(record, indent=1) + "\n")


def config_of(cell: Cell) -> Config:
    """The paper's config with the batch and the policy that the chips allow."""
    config = PAPERS[cell.paper].get_config()
    config.run.remat = REMAT[cell.topology.kind]
    config.data.batch_size = config.evaluation.batch_size = cell.batch_size
    return config


@functools.cache
def _facts(paper: str, remat: str) -> Facts:
    config = PAPERS[paper].get_config()
    config.run.remat = remat
    return plan.facts_of(config, DATA)
