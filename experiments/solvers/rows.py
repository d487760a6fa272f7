"""The named objectives of configs/objectives.py, built for a world of clips."""

from __future__ import annotations

import dataclasses

from configs import objectives
from vdm import build
from vdm.diffusion import schedules
from vdm.diffusion.objectives import Objective
from vdm.diffusion.proposals import Proposal

DRAWN = "cosine_v"  # the objective whose levels are drawn in other ways too


@dataclasses.dataclass(frozen=True)
class Row:
    """An objective and how its noise levels are drawn."""

    name: str
    objective: Objective
    proposal: Proposal


def rows(data_std: float) -> list[Row]:
    """Every named objective, for data of that root mean square; a schedule that is learned is as before its training.

    A learned variance is left out: it has no part in the gradient of the mean.
    """
    return [_row(name, name, data_std) for name in objectives.ROWS]


def trained_rows(data_std: float) -> list[Row]:
    """`rows` without the learned schedule, which is no number of the networks here: its effective weight is that of
    `vlb` whatever it learns.
    """
    return [row for row in rows(data_std) if not isinstance(row.objective.schedule, schedules.Learned)]


def proposals(data_std: float) -> list[Row]:
    """One objective, its levels drawn independently and loss-aware (elsewhere they are stratified)."""
    return [_row(f"{DRAWN}, {name}", DRAWN, data_std, proposal=name) for name in ("independent", "loss_aware")]


def _row(title: str, name: str, data_std: float, proposal: str | None = None) -> Row:
    config = objectives.get_config(name)
    config.objective.update(data_std=data_std, variance_weight=0.0)
    if proposal is not None:
        config.objective.proposal.name = proposal
    objective = build.make_objective(config.objective, build.make_schedule(config.schedule))
    return Row(title, objective, build.choose(build.PROPOSALS, config.objective.proposal, "objective.proposal"))
