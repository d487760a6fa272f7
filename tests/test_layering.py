import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import layering

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for root in layering.ROOTS for path in (ROOT / root).rglob("*.py"))


def test_the_house_keeps_its_rules():
    found = [
        line for path in FILES for line in layering.violations(path.relative_to(ROOT).as_posix(), path.read_text())
    ]
    assert not found, "\n" + "\n".join(found)


def test_every_room_is_seen():
    rooms = {layering.room_of(path.relative_to(ROOT).with_suffix("").parts) for path in FILES}
    assert {"types", "diffusion", "nets", "data", "metrics", "runtime", "records", "build", "configs"} <= rooms


def _long(num_lines):
    return "def f():\n" + "    x = 1\n" * num_lines


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("vdm/types.py", "import vdm.diffusion.process", "types imports diffusion; allowed: nothing"),
        ("vdm/diffusion/a.py", "def f():\n    from vdm.nets import blocks", ":2: diffusion imports nets"),
        ("vdm/diffusion/samplers/a.py", "from ...nets.blocks import Block", "diffusion imports nets"),
        ("vdm/nets/a.py", "from vdm import build", "nets imports build"),
        ("vdm/metrics/a.py", "from vdm.tasks import masks", "metrics imports tasks"),
        ("vdm/runtime/a.py", "from vdm.records import record", "runtime imports records"),
        ("vdm/records/a.py", "from vdm.runtime import mesh", "records imports runtime"),
        ("vdm/build.py", "from vdm import train", "build imports train"),
        ("data/sources/a.py", "from vdm.runtime import mesh", "data imports runtime"),
        ("vdm/train.py", "from experiments import grid", "train imports experiments"),
        ("vdm/build.py", "from tests import oracles", "build imports tests"),
        ("configs/a.py", "from vdm import build", "configs imports build"),
        ("vdm/parlour/a.py", "import vdm.types", "the room parlour has no line"),
        ("vdm/runtime/a.py", "from flax import nnx", "runtime imports flax; allowed in: ['nets']"),
        ("data/a.py", "import tensorflow as tf", "data imports tensorflow; allowed in: no room"),
        ("vdm/metrics/a.py", "import torch.nn", "metrics imports torch"),
        ("experiments/loop/a.py", "import torch", "experiments imports torch"),
        ("vdm/nets/a.py", "from flax import nnx\nnnx.jit(f)", ":2: flax.nnx.jit is not used here"),
        ("vdm/nets/a.py", "from flax.nnx import Optimizer", "flax.nnx.Optimizer"),
        ("vdm/nets/a.py", "import jax\njax.tree_map(f, x)", ":2: jax.tree_map is not used here; use jax.tree.map"),
        ("vdm/runtime/a.py", "from jax import pmap", "jax.pmap"),
        ("vdm/runtime/a.py", "import jax.experimental.pjit", "jax.experimental.pjit"),
        ("vdm/runtime/a.py", "from jax.experimental import shard_map", "jax.experimental.shard_map"),
        ("tests/a.py", "from jax.experimental.shard_map import shard_map", "jax.experimental.shard_map"),
        ("vdm/train.py", "x = config.data.get('a', 3)", ".get with a default on a config"),
        ("vdm/build.py", "x = data.get('a', default=3)", ".get with a default on a config"),
        ("vdm/nets/utils.py", "", "a file named utils"),
        ("tests/nets/test_helpers.py", "", "a file named test_helpers"),
        ("vdm/nets/a.py", _long(59), "f has 60 lines of code"),
        ("vdm/nets/a.py", "x = 1\n" * 400, "400 lines of code; a file stays under 400"),
        ("tests/a.py", "x = 1\n" * 600, "600 lines of code; a file stays under 600"),
    ],
)
def test_a_planted_violation_is_found(path, source, words):
    found = layering.violations(path, source)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("vdm/diffusion/samplers/a.py", "from ..process import spread\nfrom vdm.types import Video\nimport jax.numpy"),
        ("vdm/nets/a.py", "from flax import nnx\nnnx.Linear(1, 2)"),
        ("vdm/compare.py", "from vdm import build, train\nfrom data.sources import Splits\nfrom configs import base"),
        ("vdm/records/a.py", "x = {}.get('a', 3)\ny = table.get('a', 3)\nz = config.get('a')"),
        ("tests/nets/a.py", "from flax import nnx\nfrom tests import oracles\n" + "x = 1\n" * 590),
        ("vdm/nets/a.py", _long(58)),
        (
            "vdm/nets/a.py",
            'def f():\n    """A\n' + "    word\n" * 100 + '    """\n\n' + "    # why\n" * 100 + "    x = 1\n",
        ),
        ("vdm/nets/a.py", "x = 1\n\n# a comment\n" * 399),
    ],
)
def test_what_is_allowed_is_not_called_a_violation(path, source):
    assert layering.violations(path, source) == []


SPY = """
import importlib, json, sys

class Spy:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "torch"):
            raise ModuleNotFoundError(f"{name} was asked for", name=name)

sys.meta_path.insert(0, Spy())
names = json.loads(sys.argv[1])
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_is_imported_without_tensorflow_and_torch():
    """With both hidden: tensorboardX asks for torch and does without it; no module here may ask (the rule above)."""
    modules = [
        path.relative_to(ROOT).with_suffix("") for path in FILES if path.relative_to(ROOT).parts[0] in ("vdm", "data")
    ]
    names = [".".join(path.parts).removesuffix(".__init__") for path in modules]
    result = subprocess.run([sys.executable, "-c", SPY, json.dumps(names)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[-1]) == len(names) > 10
