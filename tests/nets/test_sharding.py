"""The table of rules: who wins, what it covers, what it refuses. Split arrays on real meshes: test_eight_devices.py."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from tests.runtime import toy
from vdm.nets import sharding
from vdm.nets.unet3d import UNet3DConfig, unet3d
from vdm.runtime import mesh
from vdm.types import MESH_AXES

MESH = AbstractMesh((1, 4, 2, 1), MESH_AXES)  # fsdp 4, tensor 2
RULES = (("special/kernel$", PartitionSpec()), ("kernel$", PartitionSpec("fsdp", "tensor")))


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("special/kernel", (8, 8), PartitionSpec()),  # the first match wins
        ("conv/kernel", (3, 3, 8, 6), PartitionSpec(None, None, "fsdp", "tensor")),
        ("dense/kernel", (8, 6), PartitionSpec("fsdp", "tensor")),
        ("stem/kernel", (3, 3, 3, 6), PartitionSpec(None, None, None, "tensor")),  # 4 does not divide 3
        ("head/kernel", (3, 3, 8, 3), PartitionSpec(None, None, "fsdp", None)),  # 2 does not divide 3
        ("opt_state/0/count", (), PartitionSpec()),  # a number needs no rule
    ],
)
def test_spec_of(path, shape, spec):
    assert sharding.spec_of(path, shape, RULES, MESH) == spec


def test_no_match_names_the_path_and_the_table():
    with pytest.raises(ValueError, match=r"'down_0/gamma'.*'special/kernel\$', 'kernel\$'"):
        sharding.spec_of("down_0/gamma", (4,), RULES, MESH)


def test_a_rule_of_more_dimensions_than_the_array_names_both():
    with pytest.raises(ValueError, match=r"'kernel\$'.*'odd/kernel'.*\(8,\)"):
        sharding.spec_of("odd/kernel", (8,), RULES, MESH)


def test_the_table_places_every_parameter_of_the_unet():
    config = UNet3DConfig(3, 3, 16, (1, 2), 1, (0, 1), 8, patch=2, num_classes=4)
    shapes = jax.eval_shape(unet3d(config).init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    placed = [
        (path, leaf, sharding.spec_of(path, leaf.shape, sharding.UNET_RULES, MESH))
        for path, leaf in ((sharding.path_of(key_path), leaf) for key_path, leaf in leaves)
    ]
    whole = sum(leaf.size for _, leaf, spec in placed if not any(spec))
    assert whole < 0.05 * sum(leaf.size for _, leaf in leaves)  # what rests on every device is a few percent
    specs = {path[path.index("heads") :]: spec for path, _, spec in placed if "spatial_0/heads" in path}
    assert specs["heads/query/kernel"] == specs["heads/key/kernel"] == PartitionSpec("fsdp", "tensor")
    assert specs["heads/out/kernel"] == PartitionSpec("tensor", "fsdp")  # no exchange between the heads and it


def test_moments_and_average_rest_where_their_parameter_rests():
    state = toy.abstract_state(mesh.make_mesh())
    places = sharding.shardings(state, sharding.UNET_RULES, MESH)
    assert places.params["layer"]["kernel"].spec == PartitionSpec("fsdp", "tensor")
    assert places.ema == places.params == places.opt_state[0].mu == places.opt_state[0].nu


def test_numbers_and_arrays_of_any_kind_have_a_path():
    tree = {"a": [jnp.zeros(1), {"kernel": jnp.zeros((4, 2))}]}
    assert [sharding.path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)] == ["a/0", "a/1/kernel"]
