"""Pytrees made of dataclasses: what a compiled function knows them by."""

import jax
import jax.numpy as jnp

from vdm.diffusion import schedules
from vdm.types import Level


def test_structures_tell_classes_apart():
    """Else a function that was compiled for one schedule may be run on another with as many numbers."""
    linear, cosine = schedules.vp_linear(0.1, 20.0), schedules.cosine(-20.0, 20.0)
    assert jax.tree.structure(linear) != jax.tree.structure(cosine)
    assert jax.tree.structure(linear) == jax.tree.structure(schedules.vp_linear(0.2, 10.0))


def test_trees_name_their_fields_and_are_rebuilt_around_anything():
    level = Level(*jnp.arange(3.0).reshape(3, 1, 1))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(level)]
    assert paths == [".alpha", ".sigma", ".log_snr"]
    described = jax.tree.map(lambda leaf: f"{leaf.item():g}", level)
    assert (described.alpha, described.sigma, described.log_snr) == ("0", "1", "2")
