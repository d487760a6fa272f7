"""The house rules that can be read off the source: who may import whom, what may not be called, how long things get.

Every function takes a path (for the room it stands in) and source text, and returns one line per violation.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import tokenize
from collections.abc import Iterator
from pathlib import PurePosixPath

CORE = {"types", "diffusion", "tasks", "metrics", "nets", "data"}
VERBS = {"train", "sample", "evaluate", "compare", "plan", "check", "publish", "verify", "__main__"}
# what verbs share
SHARED = {"measures", "validation", "steps", "forensics", "scoring", "likelihoods", "traces"}
SHARED |= {"arms", "effort", "selection", "variance", "assembly"}  # parts of a comparison
ROOMS_OF_VERBS = {"runtime", "records", "costs", "refusals", "build", "configs"} | SHARED
# room -> the rooms that it may import, besides itself
ARROWS: dict[str, set[str]] = {
    "types": set(),
    "diffusion": {"types"},
    "tasks": {"types", "diffusion"},
    "metrics": {"types", "diffusion"},
    "nets": {"types"},
    "data": {"types"},
    "runtime": CORE,
    "records": CORE,
    "costs": {"types", "runtime"},
    "refusals": CORE | {"runtime"},
    "build": CORE | {"runtime", "records", "refusals"},
    "measures": CORE | {"build"},
    "scoring": CORE | {"runtime", "records", "build", "measures"},
    "validation": CORE | {"runtime", "build"},
    "steps": CORE | {"runtime", "build", "validation"},
    "forensics": CORE | {"runtime", "records", "build", "steps"},
    "likelihoods": CORE | {"runtime", "records", "build", "validation"},
    "traces": CORE | {"runtime", "costs", "build", "steps"},
    "arms": CORE | {"configs", "runtime", "records", "build", "measures", "evaluate", "likelihoods", "traces"},
    "effort": CORE | {"runtime", "records", "build", "steps", "arms"},
    "variance": CORE | {"records", "build", "evaluate", "sample", "arms"},
    "selection": CORE | {"runtime", "records", "build", "validation", "forensics", "train", "arms"},
    "assembly": CORE | {"runtime", "records", "build", "evaluate", "sample", "arms"},
    "configs": set(),
} | dict.fromkeys((*VERBS, "experiments"), CORE | VERBS | ROOMS_OF_VERBS)
ROOTS = {"vdm", "data", "configs", "experiments", "tests"}

# module -> the rooms that may import it
RESERVED = {"flax": {"nets"}, "tensorflow": set[str](), "torch": set[str]()}
PEERS = "experiments/speed/"  # where PyTorch runs beside us
# what a dotted name may not begin with -> what to use
BANNED = {
    "jax.experimental.pjit": "jax.jit with shardings",
    "jax.experimental.shard_map": "jax.shard_map",
    "jax.pmap": "jax.jit with shardings",
    "jax.tree_map": "jax.tree.map",
    "jax.tree_util.tree_map": "jax.tree.map",
    "flax.nnx.jit": "jax.jit",
    "flax.nnx.Optimizer": "optax",
}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_FUNCTION_LINES = 60


@dataclasses.dataclass(frozen=True)
class Import:
    """One name that a file imports: `module.name`, or `module` alone where name is empty."""

    module: str
    name: str
    line: int


def violations(path: str, source: str) -> list[str]:
    """All that the file breaks; `path` is relative to the repository, with forward slashes."""
    tree = ast.parse(source)
    checks = (
        _name(path),
        _arrows(path, tree),
        _banned(path, tree),
        _config_defaults(path, tree),
        _sizes(path, source, tree),
    )
    return [f"{path}:{line}" for check in checks for line in check]


def room_of(parts: tuple[str, ...]) -> str | None:
    """The room of a module or path: `vdm.nets.blocks` -> nets, `data.clips` -> data. None for what is not ours."""
    if not parts or parts[0] not in ROOTS:
        return None
    return parts[0] if parts[0] != "vdm" else parts[1] if len(parts) > 1 else "vdm"


def _path_room(path: str) -> str:
    return room_of(PurePosixPath(path).with_suffix("").parts) or "setup"


def _name(path: str) -> Iterator[str]:
    stem = PurePosixPath(path).stem
    if stem.removeprefix("test_") in FORBIDDEN_NAMES:
        yield f"1: a file named {stem} says nothing; name it after what it holds"


def _arrows(path: str, tree: ast.Module) -> Iterator[str]:
    room = _path_room(path)
    for entry in _imports(path, tree):
        parts = tuple(entry.module.split("."))
        if parts[0] == "torch" and path.startswith(PEERS):
            continue
        if parts[0] in RESERVED and room != "tests" and room not in RESERVED[parts[0]]:
            yield f"{entry.line}: {room} imports {parts[0]}; allowed in: {sorted(RESERVED[parts[0]]) or 'no room'}"
        # `from vdm import build` names its room after the import
        target = room_of((*parts, entry.name) if parts == ("vdm",) and entry.name else parts)
        if target is None or target == room or room == "tests" or path == "vdm/__init__.py":
            continue
        if room not in ARROWS:
            yield f"{entry.line}: the room {room} has no line in ARROWS; DESIGN names the rooms"
        elif target not in ARROWS[room]:
            yield f"{entry.line}: {room} imports {target}; allowed: {', '.join(sorted(ARROWS[room])) or 'nothing'}"


def _imports(path: str, tree: ast.Module) -> Iterator[Import]:
    package = PurePosixPath(path).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (Import(module, alias.name, node.lineno) for alias in node.names)


def _banned(path: str, tree: ast.Module) -> Iterator[str]:
    names = {}
    for entry in _imports(path, tree):
        full = f"{entry.module}.{entry.name}".rstrip(".")
        yield from _refuse(entry.line, full if full in BANNED else entry.module)
        if entry.name:
            names[entry.name] = full
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (dotted := _dotted(node)):
            first, _, rest = dotted.partition(".")
            yield from _refuse(node.lineno, f"{names.get(first, first)}.{rest}")


def _refuse(line: int, dotted: str) -> Iterator[str]:
    if dotted in BANNED:
        yield f"{line}: {dotted} is not used here; use {BANNED[dotted]}"


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain on a plain name, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _config_defaults(path: str, tree: ast.Module) -> Iterator[str]:
    everywhere = path == "vdm/build.py" or path.startswith("configs/")
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"):
            continue
        with_default = len(node.args) == 2 or any(keyword.arg == "default" for keyword in node.keywords)
        if with_default and (everywhere or "config" in _dotted(node.func.value)):
            yield f"{node.lineno}: .get with a default on a config; keys and defaults stand in configs/base.py"


def _sizes(path: str, source: str, tree: ast.Module) -> Iterator[str]:
    code = _code_lines(source, tree)
    limit = 600 if path.startswith("tests/") else 400
    if len(code) >= limit:
        yield f"1: {len(code)} lines of code; a file stays under {limit}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            if length >= MAX_FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {length} lines of code; the limit is {MAX_FUNCTION_LINES}"


def _code_lines(source: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines that hold code: neither blank, nor comment, nor docstring."""
    code: set[int] = set()
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in empty:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _has_docstring(
            node
        ):
            code -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return code


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return ast.get_docstring(node, clean=False) is not None
