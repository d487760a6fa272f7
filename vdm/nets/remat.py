"""What the backward pass finds kept of a block, and what it computes again: policies by name.

Layers name the values that policies speak of with `checkpoint_name`.
"""

from __future__ import annotations

from typing import Any

import jax

PRODUCT = "product"  # what a convolution or a dense layer gives
# What may hand a gathered kernel on: these operations, and those that turn arrays of no more axes than kernels have.
_OF_GATHERING = ("convert_element_type", "custom_vjp_call", "reshape", "squeeze")
_OF_TURNING, _KERNEL_AXES = ("transpose", "broadcast_in_dim"), 3


def _all_but_kernels(operation: Any, *given: Any, **_: Any) -> bool:
    """An operation's result may be kept, unless a gathered kernel could be had from it. What products there are of
    those with a gradient of their own is kept by its name."""
    turns_a_kernel = operation.name in _OF_TURNING and given[0].ndim <= _KERNEL_AXES
    return operation.name not in _OF_GATHERING and not turns_a_kernel


_policies = jax.checkpoint_policies
REMAT = {  # those that keep most first
    "none": _policies.everything_saveable,  # gathered kernels are kept too: memory of whole parameters
    "kernels": _all_but_kernels,  # are gathered again
    "products": _policies.save_only_these_names(PRODUCT),  # norms, SiLUs and attention weights are computed again
    "blocks": _policies.nothing_saveable,  # all but the block's input is
}
