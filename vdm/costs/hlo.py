"""Reads the text of a compiled program (HLO): computations, instructions, buffers, and their lines of source.

Only what a cost is counted from is read. The text is XLA's own, after partitioning and scheduling: shapes are of one
device. A layout in it says how a buffer lies in memory: `{2,1,0:T(8,128)(2,1)S(1)}` has its last two dimensions padded
to tiles of 8 x 128, and lies in the memory space 1, which on a TPU is beside its cores and not the main memory.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_BUFFER = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"\b(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_FRAME_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One array in the memory of a device."""

    kind: str  # of number: bf16, f32, s32, ...
    dims: tuple[int, ...]
    layout: str

    @property
    def bytes(self) -> int:
        """Of its numbers alone."""
        return math.prod(self.dims) * _item_bits(self.kind) // 8

    @property
    def padded_bytes(self) -> int:
        """With what the layout's first tile pads it to."""
        tile = re.search(r":T\(([\d,*]+)\)", self.layout)
        if tile is None or not self.dims or "*" in tile[1]:
            return self.bytes
        order = [int(axis) for axis in self.layout.split(":")[0].split(",")]
        dims = [self.dims[axis] for axis in reversed(order)]
        sides = [int(side) for side in tile[1].split(",")][-len(dims) :]
        padded = [-(-dim // side) * side for dim, side in zip(dims[-len(sides) :], sides, strict=True)]
        return math.prod(dims[: -len(sides)]) * math.prod(padded) * _item_bits(self.kind) // 8

    @property
    def is_main(self) -> bool:
        """Whether it lies in the device's main memory."""
        return re.search(r"S\([1-9]\d*\)", self.layout) is None


def _item_bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    digits = re.search(r"\d+", kind)
    return int(digits[0]) if digits else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `name = buffers opcode(operands), attributes`.

    Attributes:
      buffers: of its result, a tuple's leaves one after the other.
      operands: names of instructions of the same computation.
      literal: what stands between the parentheses.
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    buffers: tuple[Buffer, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def called(self, *roles: str) -> tuple[str, ...]:
        """Computations that it calls as body, condition, calls, ...; all of them if no role is named."""
        names = [name for role, name in _CALLED.findall(self.attributes) if not roles or role in roles]
        branches = _BRANCHES.search(self.attributes)
        if branches and (not roles or "branch_computations" in roles):
            names += [name.strip().lstrip("%") for name in branches[1].split(",")]
        return tuple(names)

    @property
    def op_name(self) -> str:
        """Of the JAX operation that it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order."""

    name: str
    instructions: dict[str, Instruction]
    root: str


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program.

    Attributes:
      frames: id of a stack frame -> (file, line, function, id of the caller's frame).
    """

    computations: dict[str, Computation]
    entry: str
    frames: dict[int, tuple[str, int, str, int]]

    def where(self, instruction: Instruction) -> str:
        """The line of source that it comes from, and the two that called it: "blocks.py:71 < blocks.py:60"; or ""."""
        direct = re.search(r'source_file="([^"]*)" source_line=(\d+)', instruction.attributes)
        if direct:
            return f"{_short(direct[1])}:{direct[2]}"
        found = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        number, lines = int(found[1]) if found else 0, []
        while number in self.frames and len(lines) < 3:
            file, line, _, parent = self.frames[number]
            lines.append(f"{_short(file)}:{line}")
            number = parent if parent != number else 0
        return " < ".join(lines)


def _short(file: str) -> str:
    """The last two parts of a path."""
    return "/".join(file.split("/")[-2:])


def parse(text: str) -> Module:
    """Reads the text of `jax.stages.Compiled.as_text()`.

    Raises:
      ValueError: it is no HLO, is cut off, or a line of it is not understood; says which.
    """
    computations: dict[str, Computation] = {}
    entry, open_name, instructions, root = "", "", {}, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not open_name:
            header = _HEADER.match(line)
            if header:
                open_name, instructions, root = header[2], {}, ""
                entry = open_name if header[1] else entry
        elif line.startswith("}"):
            computations[open_name] = Computation(open_name, instructions, root)
            open_name = ""
        elif line.strip():
            made, is_root = _instruction(line, number)
            instructions[made.name] = made
            root = made.name if is_root else root
    if open_name:
        raise ValueError(f"the compiled program is cut off inside the computation {open_name}")
    if not entry:
        raise ValueError("the text has no ENTRY computation: it is not the HLO of a compiled program")
    _check_calls(computations)
    return Module(computations, entry, _frames(text))


def _instruction(line: str, number: int) -> tuple[Instruction, bool]:
    found = _INSTRUCTION.match(line)
    if found is None:
        raise ValueError(f"line {number} of the compiled program is no instruction: {line[:120]!r}")
    rest = found[3]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    call = re.match(r"\s*([\w\-]+)\(", rest[end:]) if end > 0 else None
    if call is None:
        raise ValueError(f"line {number} of the compiled program has no operation: {line[:120]!r}")
    start = end + call.end() - 1
    close = _closing(rest, start)
    if close < 0:
        raise ValueError(f"line {number} of the compiled program is cut off: {line[:120]!r}")
    literal = rest[start + 1 : close]
    buffers = tuple(_buffers(rest[:end]))
    operands = () if call[1] in ("constant", "parameter") else tuple(re.findall(r"%([\w.\-]+)", literal))
    return Instruction(found[2], call[1], buffers, operands, literal, rest[close + 1 :]), bool(found[1])


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes; -1 if it does not."""
    depth = 0
    for place in re.finditer(r"[()]", text[start:]):
        depth += 1 if place[0] == "(" else -1
        if depth == 0:
            return start + place.start()
    return -1


def _buffers(text: str) -> Iterator[Buffer]:
    for kind, dims, layout in _BUFFER.findall(text):
        yield Buffer(kind, tuple(int(dim.lstrip("<=")) for dim in dims.split(",") if dim), layout)


def _check_calls(computations: dict[str, Computation]) -> None:
    for computation in computations.values():
        for instruction in computation.instructions.values():
            missing = [name for name in instruction.called() if name not in computations]
            if missing:
                raise ValueError(f"{instruction.name} calls {missing[0]}, which the compiled program does not have")


def _frames(text: str) -> dict[int, tuple[str, int, str, int]]:
    tables: dict[str, dict[int, str]] = {name: {} for name in _FRAME_TABLES}
    table = ""
    for line in text.splitlines():
        if _HEADER.match(line):
            break
        if line in tables:
            table = line
        elif table and (found := re.match(r"(\d+) (.*)$", line)):
            tables[table][int(found[1])] = found[2].strip('"')
    files, functions, locations, stack = (tables[name] for name in _FRAME_TABLES)
    frames = {}
    for number, row in stack.items():
        facts = _numbers(row)
        place = _numbers(locations.get(facts["file_location_id"], ""))
        file, function = (
            files.get(place.get("file_name_id", 0), ""),
            functions.get(place.get("function_name_id", 0), ""),
        )
        frames[number] = (file, place.get("line", 0), function, facts.get("parent_frame_id", 0))
    return frames


def _numbers(row: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", row)}
