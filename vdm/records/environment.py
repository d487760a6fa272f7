"""Where a run ran: code, lock, versions, compiler flags, devices and threads, as they are at the moment of the call."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import jax

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections", "grain")
FLAG_VARIABLES = (
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "OMP_NUM_THREADS",
    "NPROC",  # XLA's CPU threads, in place of the cores that the process may use
)


@dataclasses.dataclass(frozen=True)
class Code:
    """The state of the source tree. `commit` is None outside a git checkout, and `note` says why.

    `diff_sha256` is the hash of `diff`, what differs from the commit: changes of tracked files, and Python files that
    git does not know.
    """

    commit: str | None
    dirty: bool
    diff_sha256: str | None
    note: str


@dataclasses.dataclass(frozen=True)
class Environment:
    """One machine's answer to "what was this computed with?".

    Attributes:
      lock_sha256: of requirements.txt; None where the file is not beside the package.
      versions: of Python and of the packages that numbers depend on; `absent` where one is not installed.
      flags: environment variables that change what is compiled; unset ones are left out.
      devices: kind -> number, over all processes.
      num_cpus: cores of this machine; `affinity` are those that this process may use.
    """

    code: Code
    lock_sha256: str | None
    versions: dict[str, str]
    flags: dict[str, str]
    platform: str
    devices: dict[str, int]
    num_processes: int
    num_cpus: int
    affinity: tuple[int, ...]


def read_environment(repository: Path = REPOSITORY) -> Environment:
    """Starts JAX's backend if it has not started, so distributed set-up must come before."""
    num_cpus = os.cpu_count() or 1
    return Environment(
        code=read_code(repository),
        lock_sha256=_sha256(repository / "requirements.txt"),
        versions={"python": platform.python_version()} | {name: version_of(name) for name in PACKAGES},
        flags={name: os.environ[name] for name in FLAG_VARIABLES if name in os.environ},
        platform=f"{platform.system()} {platform.machine()}",
        devices=dict(collections.Counter(device.device_kind for device in jax.devices())),
        num_processes=jax.process_count(),
        num_cpus=num_cpus,
        affinity=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(num_cpus)),
    )


def read_code(repository: Path = REPOSITORY) -> Code:
    """The commit and the hash of what differs from it.

    Works outside a git checkout and without git: the commit is then None.
    """
    if not (repository / ".git").exists():
        return Code(None, False, None, "not a git checkout")
    if shutil.which("git") is None:
        return Code(None, False, None, "git is not installed")
    try:
        commit = _git(repository, "rev-parse", "HEAD").decode().strip()
        changes = diff(repository)
    except subprocess.CalledProcessError as error:
        return Code(None, False, None, f"git refused: {error.stderr.decode(errors='replace').strip()}")
    return Code(commit, bool(changes), hashlib.sha256(changes).hexdigest() if changes else None, "")


def diff(repository: Path = REPOSITORY) -> bytes:
    """What differs from the commit, as a patch: tracked files, then Python files that git does not know.

    Empty in a clean tree.
    """
    patch = _git(repository, "diff", "--binary", "--no-color", "--no-ext-diff", "HEAD")
    unknown = _git(repository, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py").split(b"\0")
    for name in filter(None, map(os.fsdecode, unknown)):
        patch += _git(
            repository, "diff", "--no-color", "--no-ext-diff", "--no-index", "/dev/null", name, allowed=(0, 1)
        )
    return patch


def _git(repository: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> bytes:
    result = subprocess.run(["git", *arguments], cwd=repository, capture_output=True)
    if result.returncode not in allowed:
        raise subprocess.CalledProcessError(result.returncode, result.args, result.stdout, result.stderr)
    return result.stdout


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def version_of(package: str) -> str:
    """Of an installed package, or `absent`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
