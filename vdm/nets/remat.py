"""What the backward pass finds kept of a block, and what it computes again: policies by name.

Layers name the values that policies speak of with `checkpoint_name`.
"""

from __future__ import annotations

from typing import Any

import jax

PRODUCT = "product"  # what a convolution or a dense layer gives
_OF_GATHERING = ("convert_element_type", "custom_vjp_call")  # operations that a gathered kernel comes from


def _all_but_kernels(operation: Any, *_: Any, **__: Any) -> bool:
    """An operation's result may be kept, unless a gathered kernel could be had from it. All conversions count, and all
    operations with a gradient of their own; what products there are of these is kept by its name."""
    return operation.name not in _OF_GATHERING


_policies = jax.checkpoint_policies
REMAT = {  # those that keep most first
    "none": _policies.everything_saveable,  # gathered kernels are kept too: memory of whole parameters
    "kernels": _all_but_kernels,  # are gathered again
    "products": _policies.save_only_these_names(PRODUCT),  # norms, SiLUs and attention weights are computed again
    "blocks": _policies.nothing_saveable,  # all but the block's input is
}
