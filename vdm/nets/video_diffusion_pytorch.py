"""Weights of `Unet3D` of the package video-diffusion-pytorch (0.7.0) as parameters of `UNet3D`, and back.

The network is one config of parts, `PARTS`; what is here is the names and the layout of its arrays. PyTorch is not
needed: a state dict is a mapping of names to numpy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vdm.nets import module
from vdm.nets.embeddings import rotary_frequencies
from vdm.nets.layout import UNet3DConfig
from vdm.nets.unet3d import unet3d
from vdm.types import Params

PARTS: dict[str, Any] = {  # of UNet3DConfig; channels and multipliers are its `dim` and `dim_mults`
    "num_blocks": 2,
    "num_heads": 8,
    "head_dim": 32,
    "norm": "rms",
    "attention_norm": "layer",
    "block": "conv_first",
    "embedding": "scale_shift",
    "noise_level": "cosine_step",
    "stem": "wide_temporal",
    "attention": "linear_time",
    "position": "rotary_bucket",
    "resampling": "conv_4x4",
    "skips": "levels",
    "patch": 1,
}

Array = np.ndarray
Layout = tuple[Callable[[Array], Array], Callable[[Array], Array]]  # theirs to ours, ours to theirs


def _of_axes(order: tuple[int, ...], *ones: int) -> Layout:
    """Theirs has axes of length 1 at `ones`; without them, its axes in `order` are ours."""
    return (
        lambda theirs: theirs.squeeze(ones).transpose(order),
        lambda ours: np.expand_dims(ours.transpose(np.argsort(order)), ones),
    )


_SAME = _of_axes((0,))
_TABLE = _of_axes((0, 1))
_LINEAR = _of_axes((1, 0))
_LINEAR_2D = _of_axes((1, 0), 2, 3)
_LINEAR_3D = _of_axes((1, 0), 2, 3, 4)
_CONV = _of_axes((2, 3, 1, 0), 2)
_TRANSPOSED_CONV = _of_axes((2, 3, 0, 1), 2)
_RMS = _of_axes((0,), 1, 2, 3)
_LAYER = _of_axes((0,), 0, 2, 3, 4)
_HEADS = ("query", "key", "value")

Pair = tuple[str, str, Layout]  # path of ours, name of theirs, layout


def from_state_dict(state_dict: Mapping[str, Array], config: UNet3DConfig) -> Params:
    """The parameters of `UNet3D` that compute what `Unet3D` does with these.

    Equal where temporal attention is not held at the identity: for clips that are images `Unet3D` leaves temporal
    attention out, and `UNet3D` passes values through it (Ho et al. 2022).

    Args:
      state_dict: of `Unet3D(dim=config.channels, dim_mults=config.multipliers)`. Of a checkpoint of the package's
        `Trainer` these are the arrays whose names start with "denoise_fn.", without that.
      config: of our network, with `PARTS`.

    Raises:
      ValueError: a config with other parts; a name that is missing or left over; an array of another shape; rotary
        frequencies that are not those of the package.
    """
    _check(config)
    left, tree = dict(state_dict), {}
    for name in [name for name in left if name.endswith("rotary_emb.freqs")]:
        if not np.allclose(left.pop(name), rotary_frequencies(config.head_dim), rtol=1e-6, atol=0):
            raise ValueError(f"{name} are not the rotary frequencies of the package: were they trained?")
    for path, name, (ours, _) in _pairs(config):
        module.put(tree, path, np.ascontiguousarray(ours(_taken(left, name))))
    for path, name, (ours, _) in _queries_keys_values(config):
        kernels = np.split(ours(_taken(left, name)), 3, axis=1)
        for head, kernel in zip(_HEADS, kernels, strict=True):
            columns = _columns(path, head, kernel.shape[1])
            module.put(tree, f"{path}/{head}/kernel", np.ascontiguousarray(kernel[:, columns]))
    if left:
        raise ValueError(f"the state dict has more than {config} needs: {', '.join(sorted(left))}")
    _check_shapes(tree, config)
    return tree


def to_state_dict(params: Params, config: UNet3DConfig) -> dict[str, Array]:
    """The inverse of `from_state_dict`: a trained network for `Unet3D.load_state_dict`.

    Raises:
      ValueError: a config with other parts, or parameters of other shapes.
    """
    _check(config)
    _check_shapes(params, config)
    found = {}
    for path, name, (_, theirs) in _pairs(config):
        found[name] = np.ascontiguousarray(theirs(np.asarray(module.subtree(params, path))))
    for path, name, (_, theirs) in _queries_keys_values(config):
        kernels = {head: np.asarray(module.subtree(params, f"{path}/{head}/kernel")) for head in _HEADS}
        turned = [kernel[:, np.argsort(_columns(path, head, kernel.shape[1]))] for head, kernel in kernels.items()]
        found[name] = np.ascontiguousarray(theirs(np.concatenate(turned, axis=1)))
        if "temporal" in path:
            rotary = name.removesuffix("to_qkv.weight") + "rotary_emb.freqs"
            found[rotary] = np.asarray(rotary_frequencies(config.head_dim), np.float32)
    return found


def _check(config: UNet3DConfig) -> None:
    wrong = {name: getattr(config, name) for name, value in PARTS.items() if getattr(config, name) != value}
    if config.attention_levels != tuple(range(len(config.multipliers))):
        wrong["attention_levels"] = config.attention_levels
    if config.num_classes is not None or config.learned_variance:
        wrong |= {"num_classes": config.num_classes, "learned_variance": config.learned_variance}
    if wrong:
        raise ValueError(f"Unet3D has no such parts: {wrong}; take those of configs/video_diffusion_pytorch.py")


def _check_shapes(params: Params, config: UNet3DConfig) -> None:
    def shapes(tree: Params) -> dict[str, tuple[int, ...]]:
        return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    given, needed = shapes(params), shapes(jax.eval_shape(unet3d(config).init, jax.random.key(0)))
    wrong = [
        f"{path} {given.get(path, 'missing')} where {needed.get(path, 'nothing')} is needed"
        for path in sorted(given.keys() | needed.keys())
        if given.get(path) != needed.get(path)
    ]
    if wrong:
        raise ValueError(
            f"arrays of another network: {'; '.join(wrong[:3])}{' ...' * (len(wrong) > 3)}; channels "
            f"{config.channels} must be its `dim`, multipliers {config.multipliers} its `dim_mults`"
        )


def _columns(path: str, head: str, width: int) -> Array:
    """Which column of their kernel each of ours is: where positions turn pairs of numbers, theirs are neighbours, and
    ours halves of a head apart."""
    if "temporal" not in path or head == "value":
        return np.arange(width)
    return np.arange(width).reshape(-1, PARTS["head_dim"] // 2, 2).swapaxes(1, 2).ravel()


def _taken(left: dict[str, Array], name: str) -> Array:
    if name not in left:
        raise ValueError(
            f"the state dict has no {name!r}: is it one of Unet3D with these `dim` and `dim_mults`, names without "
            '"denoise_fn."?'
        )
    return left.pop(name)


def _pairs(config: UNet3DConfig) -> Iterator[Pair]:
    """All arrays but those of queries, keys and values."""
    yield from _layer("level/dense_1", "time_mlp.1", _LINEAR)
    yield from _layer("level/dense_2", "time_mlp.3", _LINEAR)
    yield "position/bias", "time_rel_pos_bias.relative_attention_bias.weight", _TABLE
    yield from _layer("stem", "init_conv", _CONV)
    yield from _layer("head", "final_conv.1", _LINEAR_3D)
    for ours, theirs, width_in, width in _blocks(config):
        yield from _block(ours, theirs, has_skip=width_in != width, is_told=ours != "last/block_0")
    for ours, theirs, _ in _attentions(config):
        yield f"{ours}/norm/scale", f"{theirs}.fn.norm.gamma", _LAYER
        is_linear = "linear" in ours
        inner = _inside(ours, theirs)
        yield f"{ours}/heads/out/kernel", f"{inner}.to_out.weight", _LINEAR_2D if is_linear else _LINEAR
        if is_linear:
            yield f"{ours}/heads/out/bias", f"{inner}.to_out.bias", _SAME
    last = len(config.multipliers) - 1
    for level in range(last):
        yield from _layer(f"down_{level}/downsample/conv", f"downs.{level}.4", _CONV)
        yield from _layer(f"up_{level + 1}/upsample/conv", f"ups.{last - level - 1}.4", _TRANSPOSED_CONV)


def _layer(ours: str, theirs: str, kernel: Layout) -> Iterator[Pair]:
    yield f"{ours}/kernel", f"{theirs}.weight", kernel
    yield f"{ours}/bias", f"{theirs}.bias", _SAME


def _block(ours: str, theirs: str, *, has_skip: bool, is_told: bool) -> Iterator[Pair]:
    yield from _layer(f"{ours}/conv_1", f"{theirs}.block1.proj", _CONV)
    yield f"{ours}/embedding/norm/scale", f"{theirs}.block1.norm.gamma", _RMS
    yield from _layer(f"{ours}/conv_2", f"{theirs}.block2.proj", _CONV)
    yield f"{ours}/norm_2/scale", f"{theirs}.block2.norm.gamma", _RMS
    if is_told:
        yield from _layer(f"{ours}/embedding/dense", f"{theirs}.mlp.1", _LINEAR)
    if has_skip:
        yield from _layer(f"{ours}/skip", f"{theirs}.res_conv", _LINEAR_3D)


def _blocks(config: UNet3DConfig) -> Iterator[tuple[str, str, int, int]]:
    """Path of ours, name of theirs, channels in and out."""
    before, last = config.channels, len(config.multipliers) - 1
    for level in range(last + 1):
        width = config.width(level)
        yield f"down_{level}/block_0", f"downs.{level}.0", before, width
        yield f"down_{level}/block_1", f"downs.{level}.1", width, width
        above = config.width(level - 1) if level else config.channels
        yield f"up_{level}/block_0", f"ups.{last - level}.0", 2 * width, above
        yield f"up_{level}/block_1", f"ups.{last - level}.1", above, above
        before = width
    yield "middle/block_0", "mid_block1", before, before
    yield "middle/block_1", "mid_block2", before, before
    yield "last/block_0", "final_conv.0", 2 * config.channels, config.channels


def _attentions(config: UNet3DConfig) -> Iterator[tuple[str, str, Layout]]:
    """Path of ours, name of theirs, layout of the kernel of queries, keys and values."""
    yield "stem_temporal", "init_temporal_attn", _LINEAR
    yield "middle/spatial_0", "mid_spatial_attn", _LINEAR
    yield "middle/temporal_0", "mid_temporal_attn", _LINEAR
    last = len(config.multipliers) - 1
    for level in range(last + 1):
        for ours, theirs in ((f"down_{level}", f"downs.{level}"), (f"up_{level}", f"ups.{last - level}")):
            yield f"{ours}/linear_1", f"{theirs}.2", _LINEAR_2D
            yield f"{ours}/temporal_1", f"{theirs}.3", _LINEAR


def _queries_keys_values(config: UNet3DConfig) -> Iterator[Pair]:
    for ours, theirs, layout in _attentions(config):
        yield f"{ours}/heads", f"{_inside(ours, theirs)}.to_qkv.weight", layout


def _inside(ours: str, theirs: str) -> str:
    """The attention itself, in its wrappers: a residual and a norm, and but for the linear one a change of axes."""
    return f"{theirs}.fn.fn" if "linear" in ours else f"{theirs}.fn.fn.fn"
