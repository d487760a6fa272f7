"""Frozen dataclasses to strict JSON and back.

The dataclass is the schema: what its types do not say is an error that names the place.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


def dumps(value: Any, name: str) -> str:
    """Indented strict JSON of a dataclass or of plain values; `name` says in an error which document it was.

    NaN and infinity are a ValueError: JSON has no word for them, and a number that does not exist is None.
    """
    return json.dumps(_plain(value, name), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def loads(kind: type[T], text: str, name: str, version: int) -> T:
    """Reads what `dumps` wrote of a dataclass whose `version` is the schema's.

    Broken JSON, another version, a missing or unknown key, or a value of another type is a ValueError that names the
    place.
    """
    return read(kind, parse(text, name, version), name)


def parse(text: str, name: str, version: int) -> dict[str, Any]:
    """The plain values of a document that `dumps` wrote. Broken JSON or another version is a ValueError."""
    value = strict(text, name)
    written = value.get("version") if isinstance(value, dict) else None
    if written != version:
        raise ValueError(
            f"{name} is of schema version {written!r}; this code reads {version}. Use the commit that wrote it."
        )
    return value


def strict(text: str, name: str) -> Any:
    """The plain values of strict JSON: no NaN or infinity, however it is written, and no key twice in one object.

    Anything else is a ValueError with the `name` of the document.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} is not strict JSON ({error}). Was it cut short or edited? Restore it or delete it."
        ) from error


def read(kind: Any, value: Any, where: str) -> Any:
    """Plain values as the dataclass, or other type, `kind`; `where` they stand, for the errors of `loads`."""
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        # Optional values only: None, or the one other kind.
        return None if value is None else read(next(part for part in arguments if part is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} is {value!r}; allowed: {', '.join(map(repr, arguments))}.")
        return value
    if origin is tuple:
        return _read_tuple(arguments, _expect(list, value, where), where)
    if origin in (dict, Mapping):
        return {key: read(arguments[1], entry, f"{where}.{key}") for key, entry in _expect(dict, value, where).items()}
    if kind is float and type(value) is int:
        return float(value)
    return _expect(kind, value, where)


def _plain(value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name), f"{where}.{field.name}")
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}; keys of a JSON object are strings.")
        return {key: _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which strict JSON cannot hold. A number that does not exist is None.")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(
        f"{where} is a {type(value).__name__} ({value!r}); convert it to a plain bool, int, float or str first."
    )


def _refuse_constant(word: str) -> None:
    raise ValueError(f"it holds {word}")


def _finite(word: str) -> float:
    if not math.isfinite(value := float(word)):
        raise ValueError(f"it holds {word}, which is beyond a float")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(value := dict(pairs)) < len(pairs):
        raise ValueError("it holds a key twice in one object")
    return value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    hints, given, fields = typing.get_type_hints(kind), set(_expect(dict, value, where)), dataclasses.fields(kind)
    known = {field.name for field in fields}
    # what None stands for as a default is "not measured", which is true of a document older than the key
    needed = {field.name for field in fields if field.default is not None}
    missing, unknown = sorted(needed - given), sorted(given - known)
    if missing or unknown:
        raise ValueError(f"{where} has other keys than this version writes: missing {missing}, unknown {unknown}.")
    return kind(**{name: read(hints[name], value[name], f"{where}.{name}") for name in value})


def _read_tuple(arguments: tuple[Any, ...], value: list[Any], where: str) -> tuple[Any, ...]:
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ValueError(f"{where} has {len(value)} entries; it needs {len(arguments)}.")
    return tuple(
        read(kind, entry, f"{where}[{index}]") for index, (kind, entry) in enumerate(zip(arguments, value, strict=True))
    )


def _expect(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r} of type {type(value).__name__}; it must be {kind.__name__}.")
    return value
