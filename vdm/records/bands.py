"""A healthy run to compare with: the range of every curve over repetitions of one experiment."""

from __future__ import annotations

import json
from collections.abc import Iterable

from etils import epath

from vdm.records.record import Record, write_whole

Bands = dict[str, tuple[tuple[int, float, float], ...]]


def over(records: Iterable[Record]) -> Bands:
    """Curve name -> (step, lowest, highest value), at the steps that every record has. ValueError without records."""
    curves = [{name: dict(curve) for name, curve in record.curves.items()} for record in records]
    if not curves:
        raise ValueError("a band needs the curves of at least one run")
    bands = {}
    for name in curves[0]:
        rows = [curve[name] for curve in curves if name in curve]
        shared = sorted(set.intersection(*(set(row) for row in rows)))
        if len(rows) == len(curves) and shared:
            bands[name] = tuple((step, *_ends([row[step] for row in rows])) for step in shared)
    return bands


def write(path: epath.PathLike, bands: Bands) -> None:
    """Writes the bands as JSON, a curve a line."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(points)}" for name, points in sorted(bands.items())]
    write_whole(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read(path: epath.PathLike) -> Bands:
    """What `write` wrote. ValueError, naming the file, for anything else."""
    path = epath.Path(path)
    try:
        return {
            name: tuple((int(step), float(low), float(high)) for step, low, high in points)
            for name, points in json.loads(path.read_text()).items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} holds no bands of curves ({error}); `compare --write_bands` writes such a file"
        ) from error


def _ends(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)
