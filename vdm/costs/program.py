"""What a compiled program does on one device: its kernels with FLOPs and bytes, and its collectives; loops multiplied.

A kernel is an instruction of the schedule: a fusion, or an operation that stands alone. It reads and writes main memory
once per buffer; what lies beside the cores (a TPU's vector memory) costs nothing, and the copies that bring it there
are kernels of their own.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

from vdm.costs.convolutions import pairs
from vdm.costs.hlo import Buffer, Computation, Instruction, Module

COLLECTIVES = {  # opcode -> what each device sends, in units of the larger of operand and result, by group size n
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "ragged-all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
    "collective-broadcast": lambda n: 1.0,
}
# They compute nothing and move nothing: names, views, the ends of what was started before, and control.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional", "call"}
_FREE |= {"partition-id", "replica-id", "opt-barrier", "domain", "add-dependency", "iota"}
_SLICES = {"dynamic-slice", "slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices.

    Attributes:
      kind: opcode; a sum of which every device keeps its part is a reduce-scatter, also where the compiler writes it as
        a fusion of an all-reduce and a slice.
      count: how often it happens.
      sent_bytes: by each device, each time, the least that the exchange needs: (n-1)/n of the whole for a gather.
      group_size: devices that exchange with each other.
      where: the line of source that caused it, and its callers.
      op_name: the JAX operation's path.
    """

    kind: str
    count: int
    sent_bytes: float
    group_size: int
    where: str
    op_name: str


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One instruction of the schedule.

    Attributes:
      count: how often it happens.
      flops: of matrix products and convolutions in it, each time.
      bytes: that it reads from and writes to main memory, each time, padding of tiles included.
      cycles: the compiler's own estimate of its length, each time; 0 where it has none.
      belongs: as `op_name`; of what the compiler made anew, that of something inside it, or else of an operand.
    """

    name: str
    count: int
    flops: float
    bytes: float
    cycles: int
    where: str
    op_name: str
    belongs: str


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program's work on one device.

    Attributes:
      num_unknown_loops: loops whose length the text does not tell; their bodies are counted once.
    """

    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    num_unknown_loops: int


def program(module: Module) -> Program:
    """Walks the schedule from the entry through loops, branches and calls. Of branches every one is counted."""
    kernels, collectives, unknown = [], [], 0
    for computation, instruction, count in _schedule(module, module.entry, 1):
        if instruction.opcode == "while":
            unknown += trip_count(module, instruction) is None
        found = _collective(module, instruction)
        if found is not None:
            kind, sent, size, source = found
            where, op_name = module.where(source) or module.where(instruction), source.op_name or instruction.op_name
            collectives.append(Collective(kind, count, sent, size, where, op_name))
        elif instruction.opcode not in _FREE and not instruction.opcode.endswith("-done"):
            if _progress(module, instruction) == "ends":
                continue
            kernels.append(_kernel(module, computation, instruction, count))
    return Program(tuple(kernels), tuple(collectives), unknown)


def _schedule(module: Module, name: str, count: int) -> Iterator[tuple[Computation, Instruction, int]]:
    computation = module.computations[name]
    for instruction in computation.instructions.values():
        yield computation, instruction, count
        if instruction.opcode == "while":
            times = trip_count(module, instruction) or 1
            yield from _schedule(module, instruction.called("body")[0], count * times)
        elif instruction.opcode in ("call", "conditional"):
            for called in instruction.called():
                yield from _schedule(module, called, count)


def trip_count(module: Module, loop: Instruction) -> int | None:
    """How often a loop's body runs, by the compiler's word or by `i < constant` of an i counting from 0; else None."""
    known = re.search(r'known_trip_count":?=?\{"?n"?:"?(\d+)', loop.attributes)
    if known:
        return int(known[1])
    condition = module.computations[loop.called("condition")[0]]
    limits = [_compared_constant(inner) for inner in (condition, *_fused(module, condition))]
    constants = [int(i.literal) for i in condition.instructions.values() if _is_count(i)]
    found = [limit for limit in limits if limit is not None]
    if found:
        return found[0]
    return constants[0] if len(constants) == 1 and any(_has_less_than(c) for c in _fused(module, condition)) else None


def _fused(module: Module, computation: Computation) -> list[Computation]:
    return [module.computations[name] for i in computation.instructions.values() for name in i.called("calls")]


def _is_count(instruction: Instruction) -> bool:
    whole = instruction.opcode == "constant" and instruction.buffers[0].kind[0] in "su"
    return whole and instruction.literal.strip().isdecimal()


def _has_less_than(computation: Computation) -> bool:
    root = computation.instructions[computation.root]
    return root.opcode == "compare" and "direction=LT" in root.attributes


def _compared_constant(computation: Computation) -> int | None:
    if not computation.root or not _has_less_than(computation):
        return None
    operands = [computation.instructions[name] for name in computation.instructions[computation.root].operands]
    limit = operands[-1]
    return int(limit.literal) if _is_count(limit) else None


def _collective(module: Module, instruction: Instruction) -> tuple[str, float, int, Instruction] | None:
    """Kind, bytes sent, group size, and the instruction that says where it is from; None for what is no exchange."""
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in COLLECTIVES and not instruction.opcode.endswith("-done"):
        return _exchange(opcode, instruction, scattered=False)
    inner = _inner_collective(module, instruction)
    if inner is None or _progress(module, instruction):
        return None
    body, candidate = inner
    opcode = candidate.opcode.removesuffix("-start")
    scattered = opcode == "all-reduce" and any("slice" in each.opcode for each in body.instructions.values())
    return _exchange(opcode, candidate, scattered)


def _inner_collective(module: Module, instruction: Instruction) -> tuple[Computation, Instruction] | None:
    if instruction.opcode not in ("fusion", "async-start", "custom-call"):
        return None
    for body in (module.computations[name] for name in instruction.called("calls")):
        for each in body.instructions.values():
            if each.opcode.removesuffix("-start") in COLLECTIVES:
                return body, each
    return None


def _progress(module: Module, instruction: Instruction) -> str:
    """What a fusion does for an exchange that an earlier one has started: "goes on" beside a kernel, "ends", or ""."""
    inner = _inner_collective(module, instruction)
    if inner is None:
        return ""
    targets = " ".join(each.attributes for each in inner[0].instructions.values() if each.opcode == "custom-call")
    if "AsyncCollectiveDone" in targets:
        return "ends"
    parameters = (each for each in inner[0].instructions.values() if each.opcode == "parameter")
    is_handed_on = any("S(2)" in buffer.layout for each in parameters for buffer in each.buffers)  # its semaphores
    return "goes on" if is_handed_on and "AsyncCollectiveStart" not in targets else ""


def _exchange(opcode: str, instruction: Instruction, scattered: bool) -> tuple[str, float, int, Instruction]:
    size = _group_size(instruction.attributes)
    buffers = [buffer.bytes for buffer in instruction.buffers if buffer.kind != "u32" or buffer.dims]
    if instruction.opcode.endswith("-start") and opcode != "all-reduce":  # (operands, results): gather's results larger
        whole = max(buffers, default=0)
    else:
        whole = sum(buffers)
    if opcode == "reduce-scatter":
        whole *= size
    kind = "reduce-scatter" if scattered else opcode
    return kind, whole * COLLECTIVES[kind](size) if size > 1 else 0.0, size, instruction


def _group_size(attributes: str) -> int:
    """Devices in a replica group, in any of the forms that XLA writes."""
    if "source_target_pairs=" in attributes:
        return 2
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*?\{([^}]*)\}", attributes)
    if mesh:
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else sizes[axis] for axis, part in parts)
    grid = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", attributes)
    if grid:
        return int(grid[2])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    return len(listed[1].split(",")) if listed else 1


def _kernel(module: Module, computation: Computation, instruction: Instruction, count: int) -> Kernel:
    cycles = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
    return Kernel(
        name=instruction.name,
        count=count,
        flops=_flops(module, computation, instruction),
        bytes=_bytes(module, computation, instruction),
        cycles=int(cycles[1]) if cycles else 0,
        where=module.where(instruction),
        op_name=instruction.op_name,
        belongs=_belongs(module, computation, instruction),
    )


def _belongs(module: Module, computation: Computation, instruction: Instruction) -> str:
    if instruction.op_name:
        return instruction.op_name
    inside = [
        each.op_name for name in instruction.called("calls") for each in module.computations[name].instructions.values()
    ]
    operands = (computation.instructions.get(name) for name in instruction.operands)
    around = (each.op_name for each in operands if each is not None)
    return next((name for name in (*reversed(inside), *around) if name), "")


def _flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    if instruction.opcode in ("dot", "convolution"):
        left, right = (computation.instructions[name].buffers[0] for name in instruction.operands[:2])
        make = _dot_flops if instruction.opcode == "dot" else _convolution_flops
        return make(instruction, left, right)
    total = 0.0
    for name in instruction.called("calls"):
        inner = module.computations[name]
        total += sum(_flops(module, inner, each) for each in inner.instructions.values())
    return total


def _dot_flops(instruction: Instruction, left: Buffer, right: Buffer) -> float:
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    summed = math.prod(left.dims[int(axis)] for axis in found[1].split(",") if axis) if found else 1
    return 2.0 * math.prod(instruction.buffers[0].dims) * summed


def _convolution_flops(instruction: Instruction, left: Buffer, right: Buffer) -> float:
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        raise ValueError(f"the convolution {instruction.name} of the compiled program has no dim_labels")
    out = instruction.buffers[0].dims
    taps = 1
    for number, axis in enumerate(sorted(set(labels[3]) - {"b", "f"})):
        sizes = (left.dims[labels[1].index(axis)], right.dims[labels[2].index(axis)], out[labels[3].index(axis)])
        taps *= pairs(*sizes, **_window(instruction.attributes, number))
    channels_in = right.dims[labels[2].index("i")]
    return 2.0 * out[labels[3].index("b")] * out[labels[3].index("f")] * channels_in * taps


def _window(attributes: str, number: int) -> dict[str, int]:
    window = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}

    def at(name: str, default: str) -> str:
        return fields[name].split("x")[number] if name in fields else default

    return {
        "stride": int(at("stride", "1")),
        "low": int(at("pad", "0_0").split("_")[0]),
        "hole": int(at("lhs_dilate", "1")),
        "spread": int(at("rhs_dilate", "1")),
        "is_reversed": int(at("rhs_reversal", "0")),
    }


def _bytes(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Operands read and results written in main memory; of what is only sliced or updated in place, the part alone."""
    inner = [module.computations[name] for name in instruction.called("calls")]
    results = list(instruction.buffers)
    if instruction.opcode.endswith("-start"):  # (operand, result, context): source and destination
        return float(sum(_moved(buffer, results) for buffer in results if buffer.dims))
    total = 0.0
    for position, name in enumerate(instruction.operands):
        for buffer in computation.instructions[name].buffers if name in computation.instructions else ():
            if buffer.is_main:
                total += _read(inner[0], position, buffer) if inner else _read_alone(instruction, position, buffer)
    return total + sum(_written(inner, computation, instruction))


def _moved(buffer: Buffer, results: list[Buffer]) -> float:
    """A started copy of a slice moves the slice, not what it is cut from."""
    smallest = min(each.padded_bytes for each in results if each.dims)
    return float(smallest) if buffer.is_main else 0.0


def _read_alone(instruction: Instruction, position: int, buffer: Buffer) -> float:
    if instruction.opcode in COLLECTIVES or instruction.opcode == "tuple":  # of an exchange that goes on; handed on
        return 0.0
    if position == 0 and instruction.opcode in _SLICES:
        return float(sum(each.padded_bytes for each in instruction.buffers))
    if position == 0 and instruction.opcode == "dynamic-update-slice":
        return 0.0
    return float(buffer.padded_bytes)


def _read(inner: Computation, position: int, buffer: Buffer) -> float:
    parameter = next(
        (i for i in inner.instructions.values() if i.opcode == "parameter" and i.literal.strip() == str(position)), None
    )
    if parameter is None:
        return float(buffer.padded_bytes)
    users = [i for i in inner.instructions.values() if parameter.name in i.operands]
    parts = [_read_alone(user, user.operands.index(parameter.name), buffer) for user in users]
    return min(float(buffer.padded_bytes), sum(parts)) if users else 0.0


def _written(inner: list[Computation], computation: Computation, instruction: Instruction) -> Iterator[float]:
    home = inner[0] if inner else computation
    root = home.instructions[home.root] if inner else instruction
    leaves = [home.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for number, buffer in enumerate(instruction.buffers):
        leaf = leaves[number] if number < len(leaves) else None
        handed_on = leaf is not None and (leaf.opcode == "parameter" or leaf.opcode in COLLECTIVES)
        if not buffer.is_main or (inner and handed_on):
            yield 0.0
        elif leaf is not None and leaf.opcode == "dynamic-update-slice":
            yield float(home.instructions[leaf.operands[1]].buffers[0].padded_bytes)
        else:
            yield float(buffer.padded_bytes)
