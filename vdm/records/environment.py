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
ABSENT = "absent"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections", "grain")
# of an accelerator: numbers depend on these too; what is not installed is not listed
ACCELERATOR_PACKAGES = (
    *("jax-cuda12-plugin", "jax-cuda12-pjrt", "jax-cuda13-plugin", "jax-cuda13-pjrt", "libtpu"),
    *("nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cuda-nvcc-cu12", "nvidia-nccl-cu12"),
    *("nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cuda-nvcc", "nvidia-nccl-cu13"),
)
EXTRAS = {"gpu": "cuda", "tpu": "tpu"}  # JAX's backend -> the lock of requirements/ that is installed besides
# What a study or a page is left with while it runs: none of it is code that a number depends on.
GENERATED = ("README.md", "experiments/*/README.md", "experiments/*/records/**", "experiments/*/figures/**")
FLAG_VARIABLES = (
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "NPROC",  # XLA's CPU threads, in place of the cores that the process may use
)


@dataclasses.dataclass(frozen=True)
class Code:
    """The state of the source tree. `commit` is None outside a git checkout, and `note` says why.

    `diff_sha256` is the hash of `diff`, what differs from the commit: changes of tracked files but those that studies
    write (`GENERATED`), and Python files that git does not know.
    """

    commit: str | None
    dirty: bool
    diff_sha256: str | None
    note: str


@dataclasses.dataclass(frozen=True)
class Environment:
    """One machine's answer to "what was this computed with?".

    Attributes:
      lock_sha256: of `lock_of`; None where the file is not beside the package.
      versions: of Python and of the packages that numbers depend on, `absent` where one is not installed; those of
        `ACCELERATOR_PACKAGES` only where they are.
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
        lock_sha256=None if (lock := lock_of(repository)) is None else hashlib.sha256(lock).hexdigest(),
        versions={"python": platform.python_version()} | _versions(),
        flags={name: os.environ[name] for name in FLAG_VARIABLES if name in os.environ},
        platform=f"{platform.system()} {platform.machine()}",
        devices=dict(collections.Counter(device.device_kind for device in jax.devices())),
        num_processes=jax.process_count(),
        num_cpus=num_cpus,
        affinity=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(num_cpus)),
    )


def lock_of(repository: Path = REPOSITORY) -> bytes | None:
    """What this environment was installed from: requirements.txt and, on an accelerator, its extra of requirements/.

    None where requirements.txt is not there. Starts JAX's backend as `read_environment`.
    """
    files = [repository / "requirements.txt"]
    if jax.default_backend() in EXTRAS:
        files.append(repository / "requirements" / f"{EXTRAS[jax.default_backend()]}.txt")
    return b"".join(path.read_bytes() for path in files if path.exists()) if files[0].exists() else None


def _versions() -> dict[str, str]:
    found = {name: version_of(name) for name in (*PACKAGES, *ACCELERATOR_PACKAGES)}
    return {name: version for name, version in found.items() if name in PACKAGES or version != ABSENT}


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
    """What differs from the commit, as a patch: tracked files but the `GENERATED`, then Python files that git does not
    know.

    Empty in a clean tree.
    """
    code = [f":(exclude,glob){path}" for path in GENERATED]
    patch = _git(repository, "diff", "--binary", "--no-color", "--no-ext-diff", "HEAD", "--", ".", *code)
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


def version_of(package: str) -> str:
    """Of an installed package, or `absent`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT
