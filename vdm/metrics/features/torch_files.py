"""Reads the tensors of files that PyTorch wrote, without PyTorch: state dicts (zip archives, and the streams of before
version 1.6) and TorchScript modules.

Their pickles are read by a stack machine that knows data alone: it has no operation that imports, calls or sets
anything, so nothing of a file is ever run, and a name that is not in its tables is refused. Sizes that a file claims
are held against what it has before memory is taken for them.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

MAX_BYTES = 2**28  # of a file; the two with I3D's weights have 51 MB
MAX_OPERATIONS = 2**18  # of a pickle; theirs have some ten thousand
_MAX_RANK = 5  # of a tensor
_MAGIC = 0x1950A86A20F9469CFC6C  # that a stream begins with
_DTYPES = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}
_SCRIPTED = "__torch__"  # the package of all classes of a TorchScript archive


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    key: str
    size: int  # in elements

    @property
    def num_bytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, record: bytes) -> np.ndarray:
        """Raises ValueError for a record that is smaller than the storage."""
        if len(record) < self.storage.num_bytes:
            raise ValueError(
                f"the storage {self.storage.key} must have {self.storage.num_bytes} bytes and has {len(record)}"
            )
        values = np.frombuffer(record, self.storage.dtype, self.storage.size)[self.offset :]
        strides = [stride * self.storage.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values, self.shape, strides, writeable=False)


class _Module(dict):
    """The attributes of a scripted module, in the order in which it defines them."""


def tensors(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a state dict by their names, or of a scripted module by their attributes' (a.b.c), in order.

    Raises:
      ValueError: a file that is damaged, of another kind, or whose pickle has more in it than data.
    """
    read = _archive if content.startswith(b"PK") else _stream
    try:
        tree, records = read(content)
        return {name: tensor.array(records[tensor.storage.key]) for name, tensor in _named(tree)}
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise ValueError(f"the file is damaged, or none that PyTorch wrote ({error!r})") from error


def _named(tree: Any) -> Iterator[tuple[str, _Tensor]]:
    """Depth first; what two names stand for comes once, under the first."""
    waiting, seen = [("", tree)], set()
    while waiting:
        name, part = waiting.pop()
        if isinstance(part, _Tensor):
            yield name, part
        elif isinstance(part, dict) and id(part) not in seen:
            seen.add(id(part))
            prefix = f"{name}." if name else ""
            waiting += [(f"{prefix}{key}", below) for key, below in reversed(part.items())]


def _archive(content: bytes) -> tuple[Any, dict[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _members(archive, len(content))
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise ValueError(f"the file is a damaged zip archive: {error}") from error


def _members(archive: zipfile.ZipFile, num_bytes: int) -> tuple[Any, dict[str, bytes]]:
    """The archive's pickle and the records of the storages that it names."""
    left = num_bytes

    def read(name: str) -> bytes:
        nonlocal left
        member = archive.getinfo(name)
        left -= member.file_size
        if member.compress_type != zipfile.ZIP_STORED or left < 0:  # PyTorch compresses no tensors
            raise ValueError(f"the archive's {name} would unpack to more than the file has")
        return archive.read(member)

    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError("the archive has no data.pkl, which all that PyTorch writes has")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and read(f"{root}byteorder") != b"little":
        raise ValueError("the file was written on a big-endian machine, which is not read")
    machine = _Machine(io.BytesIO(read(pickles[0])))
    tree = machine.load()
    return tree, {key: read(f"{root}data/{key}") for key in machine.storages}


def _stream(content: bytes) -> tuple[Any, dict[str, bytes]]:
    file = io.BytesIO(content)
    machine = _Machine(file)
    if not content.startswith(b"\x80\x02") or machine.load() != _MAGIC:
        raise ValueError("the file is none that PyTorch wrote")
    machine.load()  # of the format, 1001
    if not machine.load()["little_endian"]:
        raise ValueError("the file was written on a big-endian machine, which is not read")
    tree, keys = machine.load(), machine.load()
    records = {}
    for key in keys:
        file.read(8)  # the size once more
        records[key] = file.read(machine.storages[_text(key)].num_bytes)
    return tree, records


class _Machine:
    """Reads the pickles of a file one by one; see the module."""

    def __init__(self, file: io.BytesIO):
        self.file = file
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        """The next pickle."""
        self.stack, self.memo = [], {}
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self.file)):
            if opcode.name == "STOP":
                break
            if count == MAX_OPERATIONS:
                raise ValueError(f"the file's pickle has more than {MAX_OPERATIONS} operations")
            if opcode.name not in _OPERATIONS:
                raise ValueError(f"the file's pickle has the operation {opcode.name}, which no weights need")
            _OPERATIONS[opcode.name](self, argument)
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    def name(self, name: str) -> None:
        """A name stays a string; what it stands for is looked up in a table."""
        if name not in (*_MAKERS, *_DTYPES) and not name.startswith(_SCRIPTED):
            raise ValueError(
                f"the file names {name.replace(' ', '.')}; weights are tensors in dictionaries or in a scripted "
                "module, nothing else"
            )
        self.push(name)

    def since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:  # an IndexError where there is none
            place -= 1
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def last(self, count: int) -> list[Any]:
        items = [self.stack.pop() for _ in range(count)]
        return items[::-1]

    def extend(self, items: list[Any]) -> None:
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_text(key)] = value

    def make(self) -> None:
        """What a call would make."""
        name, arguments = self.last(2)
        self.push(_MAKERS[_text(name)](*arguments))

    def make_module(self) -> None:
        name, _ = self.last(2)
        if not _text(name).startswith(_SCRIPTED):
            raise ValueError(f"the file makes a {name}, which is no module")
        self.push(_Module())

    def set_state(self) -> None:
        """A module's attributes; those of an OrderedDict are no weights."""
        target, state = self.last(2)
        if isinstance(target, _Module) and isinstance(state, dict):
            target.update(state)
        self.push(target)

    def storage(self) -> None:
        kind, dtype, key, _, size, *view = self.stack.pop()
        if kind != "storage" or type(size) is not int or size < 0 or any(view):
            raise ValueError("the file's pickle refers to something that is no storage")
        found = _Storage(_DTYPES[_text(dtype)], _text(key), size)
        if self.storages.setdefault(key, found) != found:
            raise ValueError(f"the file describes the storage {key} twice, differently")
        self.push(found)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Raises ValueError for a view that leaves its storage."""
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > _MAX_RANK or not all(type(number) is int for number in numbers):
        raise ValueError("the file has a tensor whose shape cannot be read")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if not all(0 <= number <= storage.size for number in numbers) or last >= storage.size > 0:
        raise ValueError(f"a tensor of shape {shape} leaves its storage of {storage.size} elements")
    if math.prod(shape) > storage.size:
        raise ValueError(f"a tensor of shape {shape} is larger than its storage of {storage.size} elements")
    return _Tensor(storage, offset, shape, strides)


def _same(value: Any, *_: Any) -> Any:
    return value


def _text(value: Any) -> str:
    """Of what the file uses as a name or a key; hashing anything else might never end."""
    if not isinstance(value, str):
        raise ValueError(f"the file has a {type(value).__name__} where a name is needed")
    return value


_MARK = object()
_MAKERS: Mapping[str, Callable[..., Any]] = {
    "collections OrderedDict": lambda: {},
    "torch._utils _rebuild_tensor_v2": _tensor,
    **{f"torch.jit._pickle build_{kind}list": _same for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle restore_type_tag": _same,
}
_OPERATIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.push(_MARK),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.last(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.last(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.last(3))),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.update(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "REDUCE": lambda machine, _: machine.make(),
    "NEWOBJ": lambda machine, _: machine.make_module(),
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.storage(),
}
