"""Every published objective by its name, on moving shapes with the network of base: the rows of one table.

    python -m vdm train --config=configs/objectives.py:edm --workdir=runs/edm

They differ in schedule, target, weighting and measure of noise levels, and where a paper needs it in the sampler or a
learned variance; what each really weighs is its effective weight, drawn in experiments/solvers.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base

_CHAIN = {"name": "ddpm_linear"}
_GRID = {"name": "grid"}
_SONG = {"name": "uniform", "uniform": {"min": 1e-5}}  # its training cut-off
_COSINE = {"name": "cosine"}


def _row(
    schedule: dict[str, Any], target: str, weighting: str, times: dict[str, Any], **more: Any
) -> dict[str, dict[str, Any]]:
    objective = {"target": target, "weighting": {"name": weighting}, "times": times}
    return {"schedule": schedule, "objective": objective | more}


ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "ddpm": _row(_CHAIN, "noise", "simple", _GRID),  # Ho et al. 2020
    "ddpm_vlb": _row(_CHAIN, "noise", "vlb", _GRID),  # Ho et al. 2020
    "ddpm_hybrid": _row({"name": "ddpm_cosine"}, "noise", "simple", _GRID, variance_weight=1e-3)  # Nichol & Dhariwal
    | {"network": {"learned_variance": True}, "sampler": {"name": "learned_ancestral"}},
    "ncsn": _row({"name": "smld"}, "score", "simple", _GRID),  # Song & Ermon 2019
    "vp_sde": _row({"name": "vp_linear"}, "score", "simple", _SONG),  # Song et al. 2021
    "vp_sde_likelihood": _row({"name": "vp_linear"}, "score", "likelihood", _SONG),  # Song et al. 2021b
    "sub_vp_sde": _row({"name": "sub_vp"}, "score", "simple", _SONG),
    "ve_sde": _row({"name": "ve"}, "score", "simple", _SONG),
    "vlb": _row(_COSINE, "noise", "likelihood", {"name": "uniform", "uniform": {"min": 0.0}}),  # Kingma et al. 2021
    "vdm": _row({"name": "learned"}, "noise", "likelihood", {"name": "uniform", "uniform": {"min": 0.0}}),  # the same
    "cosine_noise": _row(_COSINE, "noise", "simple", {"name": "uniform", "uniform": {"min": 0.0}}),  # Ho et al. 2022
    "cosine_v": _row(_COSINE, "v", "unit", {"name": "uniform", "uniform": {"min": 0.0}}),  # Ho et al. 2022
    "edm": _row({"name": "edm"}, "edm", "unit", {"name": "log_normal_sigma"}),  # Karras et al. 2022
    "min_snr": _row(_CHAIN, "noise", "min_snr", _GRID),  # Hang et al. 2023
    "p2": _row(_CHAIN, "noise", "p2", _GRID),  # Choi et al. 2022
    "sigmoid": _row(_COSINE, "v", "sigmoid", {"name": "uniform", "uniform": {"min": 0.0}}),  # Hoogeboom et al. 2024
    "flow": _row({"name": "flow"}, "flow", "unit", {"name": "uniform"}),  # Lipman et al. 2023
    "rectified_flow": _row({"name": "flow"}, "flow", "unit", {"name": "logit_normal"}),  # Esser et al. 2024
    "zero_terminal_v": _row(_CHAIN | {"zero_terminal_snr": True}, "v", "unit", _GRID)  # Lin et al. 2023
    | {"sampler": {"name": "ddim", "spacing": {"name": "trailing"}}},
}


def get_config(name: str = "ddpm") -> ConfigDict:
    """Base with the changes of one row.

    Raises:
      ValueError: there is no such row.
    """
    if name not in ROWS:
        raise ValueError(f"no objective is called {name!r}; there are: {', '.join(ROWS)}")
    config = base.get_config()
    config.name = f"objective_{name}"
    config.update(ROWS[name])
    return config
