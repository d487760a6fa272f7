"""The train state: everything that resume needs besides the config.

The data position and all randomness follow from `step`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from vdm.nets.sharding import Rule, shardings
from vdm.runtime.optimizer import Optimizer, average, clip_by_norm
from vdm.types import Key, Params, register_tree

# It runs once, and the compiler would otherwise spend most of a CPU's minute on hundreds of random draws.
_COMPILER_OPTIONS = {"cpu": {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}}


@register_tree
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters and all that their training carries along.

    Attributes:
      step: steps done, which is also the index of the next one.
      params: what is trained.
      ema: the exponential moving average of `params`; it starts at the first parameters.
      opt_state: of the optax transform.
      num_clipped: steps so far whose gradient was clipped.
      proposal: what the proposal of noise levels remembers of past losses; () for one that remembers nothing.
      ema_short: a second average that forgets sooner; () where there is none.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params
    opt_state: optax.OptState
    num_clipped: Int[Array, ""]
    proposal: PyTree[Any] = ()
    ema_short: Params | tuple[()] = ()


AVERAGES = ("long", "short")


def averages(state: TrainState) -> dict[str, Params]:
    """Those that a state has, by their names in `AVERAGES`."""
    return {"long": state.ema} | ({"short": state.ema_short} if jax.tree.leaves(state.ema_short) else {})


def abstract_state(
    init: Callable[[Key], Params],
    optimizer: Optimizer,
    mesh: Mesh,
    rules: Sequence[Rule],
    proposal: PyTree[Any] = (),
) -> TrainState:
    """The shapes, types and resting places of the state, without computing any of it: what a restore needs.

    Returns:
      A TrainState of `jax.ShapeDtypeStruct` with shardings.

    Raises:
      ValueError: as `sharding.spec_of`, when the table does not place a parameter.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))  # no number is computed: the mesh may be of devices that are absent
    shapes = jax.eval_shape(_initialiser(init, optimizer, proposal), key)
    everywhere = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), shapes.proposal)
    places = shardings(dataclasses.replace(shapes, proposal=()), rules, mesh)
    places = dataclasses.replace(places, proposal=everywhere)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
    )


def init_state(
    init: Callable[[Key], Params],
    optimizer: Optimizer,
    key: Key,
    mesh: Mesh,
    rules: Sequence[Rule],
    proposal: PyTree[Any] = (),
) -> TrainState:
    """The state before the first step, made in its resting place: no device ever holds more than its share.

    Args:
      init: the network's, key to parameters.
      optimizer: as in every later step.
      key: of `Purpose.INIT`; the parameters depend on it alone, not on the mesh.
      mesh: of all devices.
      rules: the sharding table.
      proposal: what the proposal of noise levels remembers at first; every device holds it whole.

    Raises:
      ValueError: as `abstract_state`.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(init, optimizer, mesh, rules, proposal))
    options = _COMPILER_OPTIONS.get(jax.default_backend())
    return jax.jit(_initialiser(init, optimizer, proposal), out_shardings=places, compiler_options=options)(key)


def _initialiser(
    init: Callable[[Key], Params], optimizer: Optimizer, proposal: PyTree[Any]
) -> Callable[[Key], TrainState]:
    def initialise(key: Key) -> TrainState:
        params = init(key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=params,  # jit gives every output memory of its own, so the two can be donated side by side
            opt_state=optimizer.transform.init(params),
            num_clipped=jnp.zeros((), jnp.int32),
            proposal=proposal,
            ema_short=params if optimizer.ema_decay_short else (),
        )

    return initialise


def apply_gradients(
    state: TrainState, gradients: Params, optimizer: Optimizer
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One step of the optimiser and of the average.

    Args:
      state: before the step.
      gradients: of the loss, structured like `state.params`.
      optimizer: what to do with them.

    Returns:
      The state after the step, and its scalars: `gradient_norm` (before clipping), `clipped` (1 if this step was, else
      0), `clipped_share` (of all steps so far) and `learning_rate`.
    """
    clipped_gradients, norm = clip_by_norm(gradients, optimizer.clip_norm)
    updates, opt_state = optimizer.transform.update(clipped_gradients, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    clipped = norm > optimizer.clip_norm
    num_clipped = state.num_clipped + clipped
    after = TrainState(
        step=state.step + 1,
        params=params,
        ema=average(state.ema, params, optimizer.ema_decay),
        opt_state=opt_state,
        num_clipped=num_clipped,
        proposal=state.proposal,
        ema_short=average(state.ema_short, params, optimizer.ema_decay_short) if optimizer.ema_decay_short else (),
    )
    scalars = {
        "gradient_norm": norm,
        "clipped": clipped.astype(jnp.float32),
        "clipped_share": num_clipped / (state.step + 1),
        "learning_rate": jnp.asarray(optimizer.learning_rate(state.step), jnp.float32),
    }
    return after, scalars
