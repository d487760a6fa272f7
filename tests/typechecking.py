"""The type checker that the import hook of conftest.py puts around every function of the product."""

from collections.abc import Callable

from beartype import BeartypeConf, beartype

_CHECKED = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as everywhere else in Python


def check(function: Callable) -> Callable:
    """beartype, but for __init__: jax rebuilds pytrees around shardings and shapes too, which no annotation fits."""
    return function if function.__name__ == "__init__" else _CHECKED(function)
