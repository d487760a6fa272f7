"""Does a config fit a slice of TPUs, and what bounds its step: compiled for it, without having it.

The real TPU compiler (package `libtpu`, `pip install --require-hashes -r requirements/tpu.txt`) compiles the very step
that `train` would run, for chips that need not be there. Printed are parameters, memory, FLOPs, exchanges with the
lines that cause them, the roofline time and what bounds it, and the predicted utilisation: the FLOPs of the model,
with nothing recomputed or padded, over peak times the sum over kernels of max(FLOPs/peak, bytes/bandwidth) and
exchanges. Without libtpu, and for GPUs, there is an estimate from the jaxpr alone, and it is called one. No data are
opened. The exit code is 1 where the step does not fit the memory; what would make it fit is said, by the estimate.

Topologies: v4:2x2x4, v5p:4x4x4, v5e:16x16, v6e:8x8, tpu7x:2x2x2 (chips along each side); h100:8 for an estimate.

Example: python -m vdm plan --config=configs/paper/ucf101.py --topology=v5p:2x2x4 --mesh=data=4,fsdp=4
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.util
import json as text
import time
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from vdm import refusals, traces
from vdm.costs import blocks, child, chips, estimate, hlo, jaxpr, page, program
from vdm.costs.chips import Topology
from vdm.costs.estimate import Estimate, Facts
from vdm.costs.roofline import Roofline, roofline
from vdm.nets.remat import REMAT
from vdm.runtime import mesh as meshes
from vdm.runtime.processes import JobFailed
from vdm.traces import Data
from vdm.types import MESH_AXES, Config

TAKES = ("config",)
OPTIONS = (
    ("topology", "", "the chips: KIND:SIDES, such as v5e:16x16"),
    ("mesh", "", "devices along each axis, such as data=64,fsdp=4; empty: config.run.mesh"),
    ("json", "", "a file that the plan is written to"),
    ("search", False, "rank meshes and policies of run.remat by the estimate, and compile the best three"),
    ("num_classes", 0, "of the data, for a network that is told the class"),
    ("num_channels", 3, "of the videos"),
    ("timeout_minutes", 60, "after which a compilation is stopped"),
)
_NUM_COMPILED = 3  # meshes with policies of a search
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def main(
    config: Config,
    *,
    topology: str,
    mesh: str,
    json: str,
    search: bool,
    num_classes: int,
    num_channels: int,
    timeout_minutes: int,
) -> int:
    if search and mesh:
        raise ValueError("--search looks for the mesh; leave --mesh out, or --search")
    slice_of, data = chips.topology(topology), _data(config, num_channels, num_classes)
    axes = axes_of(config, mesh, slice_of)
    if not search:  # a search looks at no mesh that the batch cannot be laid out on
        refusals.check_config(config, meshes.abstract_mesh(**axes))
    plan_of = functools.partial(plan, data=data, topology=slice_of, timeout=60.0 * timeout_minutes)
    if search:
        plans = [plan_of(made, axes=axes, facts=facts) for made, axes, facts in _searched(config, slice_of, data)]
        print(page.verdict(plans))
    else:
        plans = [plan_of(config, axes=axes, facts=facts_of(config, data))]
    if json:
        epath.Path(json).write_text(text.dumps(plans if search else plans[0], indent=1) + "\n")
    return 0 if any(each["fits"] for each in plans) else 1


def _searched(config: Config, topology: Topology, data: Data) -> list[tuple[Config, dict[str, int], Facts]]:
    """The best few configs and meshes by the estimate, and the facts; prints the ranking."""
    by_policy = facts_under(tuple(REMAT), config, data)
    ranks = estimate.ranked(by_policy, topology.num_devices, topology.chip)
    if not ranks:
        raise ValueError(
            f"no mesh of {topology.num_devices} devices divides a batch of {config.data.batch_size} clips of "
            f"{config.data.num_frames} frames: set config.data.batch_size to a multiple of the devices"
        )
    print(page.ranking(ranks, topology))
    return [(traces.with_remat(config, rank.remat), rank.axes, by_policy[rank.remat]) for rank in ranks[:_NUM_COMPILED]]


def plan(
    config: Config, *, topology: Topology, axes: dict[str, int], data: Data, facts: Facts, timeout: float
) -> dict[str, Any]:
    """Plans one mesh and prints it; compiles where the compiler is there.

    Raises:
      JobFailed: the compiler failed, other than for want of memory.
    """
    guess = estimate.estimate(facts, axes, topology.chip)
    made: dict[str, Any] = {
        "config": config.name,
        "topology": topology.name,
        "mesh": axes,
        "remat": config.run.remat,
        "batch_size": config.data.batch_size,
        "parameters": facts.num_parameters,
        "model_flops": facts.model_flops * config.data.batch_size / topology.num_devices,
        "executed_flops": facts.work.flops * config.data.batch_size / topology.num_devices,
        "estimate": _written(guess),
        "compiled": None,
        "fits": guess.fits(topology.chip),
    }
    if can_compile(topology):
        try:
            arguments = (config, topology, axes, data)
            compiled = child.run(compile_step, *arguments, timeout=timeout, environment=child.TPU_ENVIRONMENT)
            line = Roofline(*(compiled["roofline"][part.name] for part in dataclasses.fields(Roofline)))
            compiled["utilisation"] = line.utilisation(made["model_flops"], topology.chip)
            made |= {"compiled": compiled, "fits": compiled["memory"]["total"] <= topology.chip.memory_bytes}
        except RuntimeError as error:
            if _OUT_OF_MEMORY not in str(error):
                raise JobFailed(
                    f"the compiler failed for {topology.name}, mesh {estimate.spell(axes)}: {error}"
                ) from error
            made |= {"fits": False, "refusal": str(error).splitlines()[0]}
    if not made["fits"]:
        made["levers"] = estimate.levers(facts, axes, topology.chip, _lighter(config, data))
    print(page.page(made, topology.chip), flush=True)
    return made


def can_compile(topology: Topology) -> bool:
    """Whether the compiler for these chips is installed."""
    return topology.kind in chips.TPUS and importlib.util.find_spec("libtpu") is not None


def axes_of(config: Config, mesh: str, topology: Topology) -> dict[str, int]:
    """Devices along each axis of the mesh, from "data=64,fsdp=4" or else from `config.run.mesh`.

    Raises:
      ValueError: an axis that there is not, a size that is no number, or axes that do not multiply to the devices.
    """
    asked = dict(config.run.mesh)
    if mesh:
        asked = dict.fromkeys(MESH_AXES, 1)
        for word in mesh.split(","):
            axis, _, size = word.partition("=")
            if axis not in MESH_AXES or not size.lstrip("-").isdecimal():
                raise ValueError(
                    f"--mesh={mesh} has {word!r}; it is written as data=64,fsdp=4, of {', '.join(MESH_AXES)}"
                )
            asked[axis] = int(size)
    shape = meshes.complete(tuple(asked[axis] for axis in MESH_AXES), topology.num_devices)
    return dict(zip(MESH_AXES, shape, strict=True))


def facts_of(config: Config, data: Data) -> Facts:
    """Counts the step's jaxpr on one device; see `facts_under`."""
    return facts_under((config.run.remat,), config, data)[config.run.remat]


def facts_under(policies: Sequence[str], config: Config, data: Data) -> dict[str, Facts]:
    """The facts under policies of `config.run.remat`: the step is traced once without recomputing, for the model's
    FLOPs, and at two numbers of clips under each.
    """
    shapes = traces.model(traces.with_clips(config, 1), data, traces.here()).abstract_state()
    clips, more = traces.TRACED_CLIPS, 2 * traces.TRACED_CLIPS
    model_flops = traces.flops_a_clip(config, data)
    found = {}
    for remat in policies:
        few, many = (
            traces.traced(traces.with_clips(traces.with_remat(config, remat), count), data) for count in (clips, more)
        )
        found[remat] = Facts(
            num_parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes.params)),
            state_bytes=float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))),
            compute_bytes=jnp.dtype(config.network[config.network.name].compute_dtype).itemsize,
            work=jaxpr.work_of(few).times(1 / clips),
            model_flops=model_flops,
            activation_bytes=(jaxpr.peak_bytes(many) - jaxpr.peak_bytes(few)) / (more - clips),
            batch_size=config.data.batch_size,
            num_frames=config.data.num_frames,
            num_microbatches=config.run.num_microbatches,
            num_gathers=estimate.gathers_under(remat),
        )
    return found


def _lighter(config: Config, data: Data) -> dict[str, Facts]:
    """The facts under the policies that keep less than the config's own."""
    policies = list(REMAT)
    less = policies[policies.index(config.run.remat) + 1 :]
    return facts_under(less, config, data) if less else {}


def _data(config: Config, num_channels: int, num_classes: int) -> Data:
    if config.network.class_conditional and num_classes < 1:
        raise ValueError(
            "config.network.class_conditional is True, and plan opens no data: say how many classes they have with "
            "--num_classes=101, say"
        )
    return Data(num_channels, num_classes if config.network.class_conditional else None)


def compile_step(config: Config, topology: Topology, axes: dict[str, int], data: Data) -> dict[str, Any]:
    """Compiles the step for chips that are absent, and reads what came out: plain numbers, for another process."""
    from jax.experimental import topologies

    options = chips.TOPOLOGY_OPTIONS.get(topology.kind, {})
    absent = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    model = traces.model(config, data, meshes.make_mesh(**axes, devices=absent.devices))
    step, arguments = traces.step_of(model)
    since = time.monotonic()
    with jax.set_mesh(model.mesh):  # only now: nothing can be computed under a mesh of absent devices
        lowered = step.lower(*arguments)
    lowered_after = time.monotonic() - since
    since = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - since
    found = program.program(hlo.parse(compiled.as_text()))
    facts = read(found, topology.chip, blocks.names(arguments[0].params))
    versions = {"jax": jax.__version__, "libtpu": importlib.metadata.version("libtpu")}
    timing = {"lower_seconds": lowered_after, "compile_seconds": seconds}
    return facts | timing | {"memory": memory_of(compiled), "compiler": _own_analysis(compiled), "versions": versions}


def read(found: program.Program, chip: chips.Chip, named: Collection[str]) -> dict[str, Any]:
    """Sums, roofline and collectives of a compiled program; `named`: the network's blocks."""
    sent = sum(each.count * each.sent_bytes for each in found.collectives)
    line = roofline(found.kernels, sent, chip)
    return {
        "flops": sum(each.flops * each.count for each in found.kernels),
        "bytes": sum(each.bytes * each.count for each in found.kernels),
        "cycles": sum(each.cycles * each.count for each in found.kernels),
        "num_unknown_loops": found.num_unknown_loops,
        "roofline": dataclasses.asdict(line) | {"seconds": line.seconds, "bound": line.bound},
        "collectives": page.collectives_by_cause(found.collectives),
        "kernels": page.kernels_by_cause(found.kernels, chip),
        "blocks": page.kernels_by_block(found.kernels, chip, named),
    }


def memory_of(compiled: Any) -> dict[str, int]:
    """Bytes of a device: `total` is what it must hold at once, donated arguments counted once."""
    stats = compiled.memory_analysis()
    parts = {
        "arguments": stats.argument_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "results_not_donated": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }
    return parts | {"total": sum(parts.values())}


def _own_analysis(compiled: Any) -> dict[str, float]:
    """XLA's own count, in which a loop's body stands once and a TPU's vector memory counts as memory."""
    analysis = compiled.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return {"flops": analysis.get("flops", 0.0), "bytes": analysis.get("bytes accessed", 0.0)}


def _written(guess: Estimate) -> dict[str, Any]:
    return dataclasses.asdict(guess) | {
        "bytes": guess.bytes,
        "seconds": guess.roofline.seconds,
        "bound": guess.roofline.bound,
    }
