"""What a run is: its resolved config and the way back, the hash that names it, and the differences between two of them.

A choice in a config is a dict with a string at `name`: the dicts beside that `name` are its options, and only the one
that carries the chosen name is read and recorded; a choice without parameters (`adam`, `heun`) has no dict at all. A
dict beside it that has a `name` itself (`sampler.spacing`) is no option but one more choice, and always recorded. The
root is no choice: its `name` is the experiment's, for people. `config.compare` says which runs and `config.scores` what
is measured of them, not what a run is: they are left out. `config.run` may change when a run resumes; all the rest is
the identity. A key that came later is no part of it at the value that says what was so before (`LATER`): records, cards
and checkpoints of earlier code stay those of the same run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

SHORT_HASH_LENGTH = 12
LEFT_OUT = ("compare", "scores")  # sections that say nothing of what a run is
LATER = {  # key that earlier code had not -> what it did
    "task.name": "generation",
    "sampler.task.name": "generation",
    "sampler.conditioning.name": "given",
    "network.unet3d.num_heads": 0,
    "network.unet3d.attention_norm": "as_blocks",
    "network.unet3d.block": "norm_first",
    "network.unet3d.noise_level": "fourier",
    "network.unet3d.stem": "conv",
}


def resolve(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain JSON values: without `LEFT_OUT`, and with the chosen option of every choice only.

    Resolving twice changes nothing. Tuples become lists. A value that is not None, bool, int, finite float, string or a
    sequence of these is a ValueError that names its key.
    """
    return {key: _resolve(value, key) for key, value in _items(config) if key not in LEFT_OUT}


def rebuild(base: ConfigDict, resolved: Mapping[str, Any]) -> ConfigDict:
    """The config whose resolved form is given: the inverse of `resolve` but for `LEFT_OUT` and options not chosen.

    Args:
      base: a config with every key; what `resolved` does not hold keeps its values. It is left as it is.
      resolved: of a stranger, perhaps: keys and types are checked, lists become tuples, nothing is evaluated.

    Raises:
      ValueError: a key that base lacks, a value of another type than base's, or a key of base's that is missing; names
        the key.
    """
    config = base.copy_and_resolve_references()
    _fill(config, resolved, "config", [key for key in config if key not in LEFT_OUT])
    lacking = differences(resolved, config)
    if lacking:
        raise ValueError(
            f"this config is not one of this code (given -> with the defaults of configs/base.py): {'; '.join(lacking)}"
            ". Use the commit that wrote it."
        )
    return config.lock()


def identity(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config without `run` and `LATER` at its old values: what may not change when a run resumes."""
    return _without_later({key: value for key, value in resolve(config).items() if key != "run"})


def _without_later(resolved: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    kept = {
        key: _without_later(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in resolved.items()
        if f"{prefix}{key}" not in LATER or LATER[f"{prefix}{key}"] != value
    }
    sections = {later.rpartition(".")[0] for later in LATER}  # one that came later is empty at its old values
    return {key: value for key, value in kept.items() if value != {} or f"{prefix}{key}" not in sections}


def identity_hash(config: ConfigDict | Mapping[str, Any]) -> str:
    """The first 12 hex digits of the SHA-256 of the identity's canonical JSON.

    It names run, checkpoint, record and grid cell.
    """
    return hashlib.sha256(canonical_json(identity(config)).encode()).hexdigest()[:SHORT_HASH_LENGTH]


def canonical_json(value: Any) -> str:
    """One text per value: keys sorted, no spaces, ASCII, floats as the shortest repr that reads back equal."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def differences(old: ConfigDict | Mapping[str, Any], new: ConfigDict | Mapping[str, Any]) -> tuple[str, ...]:
    """A line per key whose value differs, sorted by key:

    `data.batch_size: 64 -> 32`; `(absent)` where a side lacks it.
    """
    return tuple(f"{key}: {before} -> {after}" for key, (before, after) in differing_keys([old, new]).items())


def differing_keys(configs: Sequence[ConfigDict | Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Key -> its value in every config, as text, for the keys on which the configs do not all agree; sorted by key."""
    flat = [_flatten(resolve(config)) for config in configs]
    keys = sorted({key for config in flat for key in config})
    shown = {key: tuple(_show(config, key) for config in flat) for key in keys}
    return {key: values for key, values in shown.items() if len(set(values)) > 1}


def require_same_identity(recorded: Mapping[str, Any], config: ConfigDict | Mapping[str, Any], workdir: str) -> None:
    """Raises ValueError, naming the differences, unless the recorded config and `config` are one identity."""
    if identity_hash(recorded) == identity_hash(config):
        return
    lines = "\n".join(f"  {line}" for line in differences(identity(recorded), identity(config)))
    raise ValueError(
        f"{workdir} holds run {identity_hash(recorded)}, not {identity_hash(config)} (recorded -> given):\n{lines}\n"
        "Only config.run may change when a run resumes. Give another --workdir, or delete this one to start afresh."
    )


def _resolve(value: Any, where: str) -> Any:
    if isinstance(value, ConfigDict | Mapping):
        chosen = dict(_items(value)).get("name")
        kept = (
            (key, entry)
            for key, entry in _items(value)
            if key == chosen or not isinstance(chosen, str) or not _is_option(entry)
        )
        return {key: _resolve(entry, f"{where}.{key}") for key, entry in kept}
    if isinstance(value, tuple | list):
        return [_resolve(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"config.{where} is {value}, which strict JSON cannot hold; give a finite number or None.")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(
        f"config.{where} is a {type(value).__name__} ({value!r}); give None, bool, int, float, str or tuples of these."
    )


def _is_option(entry: Any) -> bool:
    return isinstance(entry, ConfigDict | Mapping) and "name" not in entry


def _fill(config: ConfigDict, values: Any, where: str, known: Sequence[str]) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {values!r}; it must be an object with the keys {', '.join(known)}.")
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{where}.{key} is no key of configs/base.py; there are {', '.join(known)}.")
        default, place = config[key], f"{where}.{key}"
        if isinstance(default, ConfigDict):
            _fill(default, value, place, list(default))
        elif isinstance(default, tuple):
            if not isinstance(value, list):
                raise ValueError(f"{place} is {value!r} of type {type(value).__name__}; it must be a list.")
            kinds = {type(entry) for entry in default} or {bool, int, float, str}
            for index, entry in enumerate(value):
                _require_type(entry, kinds | ({int} if float in kinds else set()), f"{place}[{index}]")
            config[key] = tuple(value)
        else:
            _require_type(value, {type(default)}, place)
            config[key] = value


def _require_type(value: Any, kinds: set[type], where: str) -> None:
    if type(value) not in kinds:
        allowed = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"{where} is {value!r} of type {type(value).__name__}; it must be {allowed}.")


def _items(config: ConfigDict | Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(config.items())


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            flat |= _flatten(entry, f"{prefix}{key}.")
        else:
            flat[prefix + key] = entry
    return flat


def _show(flat: Mapping[str, Any], key: str) -> str:
    if key in flat or key in LATER:
        return canonical_json(flat.get(key, LATER.get(key)))
    return "(absent)"
