"""The verb `plan`: without the compiler an estimate, with it the step that `train` runs; errors before any compile."""

import importlib.util
import json

import jax
import pytest

from tests import tiny
from vdm import __main__, build, plan, steps, traces, train
from vdm.costs import blocks, chips, jaxpr, page, program
from vdm.nets.remat import REMAT
from vdm.runtime import mesh as meshes
from vdm.traces import Data

NO_COMPILER = importlib.util.find_spec("libtpu") is None
CONFIG = "--config=tests/tiny.py"


@pytest.fixture(scope="module")
def facts():
    return plan.facts_of(tiny.get_config(), Data(3, None))


def test_the_step_is_that_of_train_and_its_arguments_rest_where_training_puts_them():
    config = tiny.get_config()
    model = build.model(config, meshes.make_mesh(), num_channels=3, num_classes=None)
    step, (train_state, window, batch) = traces.step_of(model)
    experiment = build.experiment(config)
    with jax.set_mesh(experiment.mesh):
        real_state, _ = train.start(experiment, train.epath.Path("nowhere"))
        batches = steps.device_batches(experiment, 0)
        real_batch = next(batches)
        batches.close()
        after, _ = step(real_state, train.Window.empty(), real_batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(real_state)), "not donated"
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), train_state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), after
    )
    shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()}
    assert shapes == {name: (leaf.shape, leaf.dtype) for name, leaf in real_batch.items() if name in shapes}
    assert window.mean_loss.shape == ()


def test_facts_scale_with_the_clips_of_the_step(facts):
    """A step of 16 clips has 16 times the FLOPs of a clip; the parameters are those of the network."""
    config = tiny.get_config()
    config.data.batch_size = config.evaluation.batch_size = 16
    model = build.model(config, meshes.make_mesh(), num_channels=3, num_classes=None)
    step, arguments = traces.step_of(model)
    with jax.set_mesh(model.mesh):
        whole = jaxpr.work(step, *arguments)
    assert facts.work.flops * 16 == pytest.approx(whole.flops, rel=1e-3)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert facts.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert facts.state_bytes == pytest.approx(16 * facts.num_parameters, rel=1e-2)  # parameters, average, two moments


def test_the_models_flops_leave_out_what_is_recomputed(facts):
    config = tiny.get_config()
    config.run.remat = "blocks"
    again = plan.facts_of(config, Data(3, None))
    assert again.model_flops == facts.model_flops == pytest.approx(facts.work.flops)
    assert again.work.flops > 1.1 * again.model_flops


def test_an_estimate_is_called_one_and_goes_into_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "can_compile", lambda topology: False)
    file = tmp_path / "plan.json"
    code = __main__.main(["vdm", "plan", CONFIG, "--topology=v5e:2x4", "--mesh=data=4,fsdp=2", f"--json={file}"])
    printed = capsys.readouterr().out
    assert code == 0
    assert "ESTIMATE from the jaxpr alone" in printed
    written = json.loads(file.read_text())
    assert written["compiled"] is None
    assert written["mesh"] == {"data": 4, "fsdp": 2, "tensor": 1, "frames": 1}
    assert f"{written['parameters']:,}" in printed


def test_what_does_not_fit_ends_with_1_and_says_what_would(capsys, monkeypatch):
    monkeypatch.setattr(plan, "can_compile", lambda topology: False)
    small = chips.Chip(**{**vars(chips.CHIPS["v5e"]), "memory_bytes": 5e5})
    monkeypatch.setitem(chips.CHIPS, "v5e", small)
    assert __main__.main(["vdm", "plan", CONFIG, "--topology=v5e:2x2"]) == 1
    printed = capsys.readouterr().out
    assert "DOES NOT FIT" in printed
    assert "config.data.batch_size=4" in printed


def test_a_search_ranks_meshes_with_policies_and_plans_the_best_three(capsys, monkeypatch):
    monkeypatch.setattr(plan, "can_compile", lambda topology: False)
    assert __main__.main(["vdm", "plan", CONFIG, "--topology=v5e:2x4", "--search"]) == 0
    printed = capsys.readouterr().out
    rows = {tuple(line.split()[:2]) for line in printed.splitlines() if " ms " in line}
    meshes_of_search = ("data=8", "data=4,fsdp=2", "data=2,fsdp=4", "fsdp=8")
    same = {("data=8", "kernels")}  # as with "none"
    assert rows & same == set() and rows >= {(mesh, remat) for mesh in meshes_of_search for remat in REMAT} - same
    assert printed.count("tiny on v5e:2x4") == 3
    assert "The fastest that fits: --mesh=" in printed.splitlines()[-1]


def test_the_verdict_is_the_fastest_that_fits():
    def made(fits, estimated, compiled, mesh):
        line = None if compiled is None else {"roofline": {"seconds": compiled}}
        axes = {"data": 1, "fsdp": 1, "tensor": 1, "frames": 1} | mesh
        return {"fits": fits, "estimate": {"seconds": estimated}, "compiled": line, "mesh": axes, "remat": "none"}

    fast, slow, large = (
        made(True, 0.3, 0.1, {"fsdp": 4}), made(True, 0.1, 0.2, {"fsdp": 8}), made(False, 0.1, None, {"data": 8}),
    )  # fmt: skip
    assert "--mesh=fsdp=4 with --config.run.remat=none, 100.0 ms" in page.verdict([slow, large, fast])
    assert page.verdict([large]) == "None of these fits."


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--topology=v7:2x2"], "no known chip"),
        (["--topology=v5e:2x4", "--mesh=data=3"], "must multiply to that number"),
        (["--topology=v5e:2x4", "--mesh=rows=8"], "written as data=64,fsdp=4"),
        (["--topology=v5e:4x4", "--mesh=data=16"], "a batch of 8 clips cannot be split"),
        (["--topology=v5e:2x4", "--mesh=data=1,frames=8"], "4 frames cannot be split"),
        (["--topology=v5e:2x4", "--search", "--mesh=data=8"], "leave --mesh out"),
        (["--topology=v5e:2x4", "--config.network.class_conditional=True"], "--num_classes"),
        (["--topology=v5e:16x16", "--search"], "no mesh of 256 devices"),
        (["--topology=v5e:2x4", "--workdir=here"], "workdir"),
    ],
)
def test_what_cannot_work_is_refused_before_any_compile(options, words, capsys, monkeypatch):
    monkeypatch.setattr(plan.child, "run", lambda *args, **options: pytest.fail("compiled"))
    assert __main__.main(["vdm", "plan", CONFIG, *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("its process died with exit code -9", 1, "the compiler failed for v5e:2x4, mesh data=8: its process died"),
        ("RESOURCE_EXHAUSTED: Used 20G of 15G hbm", 1, "DOES NOT FIT"),
    ],
)
def test_a_compiler_that_fails_is_a_message(error, code, words, capsys, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError(error)

    monkeypatch.setattr(plan, "can_compile", lambda topology: True)
    monkeypatch.setattr(plan.child, "run", fail)
    assert __main__.main(["vdm", "plan", CONFIG, "--topology=v5e:2x4"]) == code
    printed = capsys.readouterr()
    assert words in printed.out + printed.err


def test_rows_are_summed_by_cause_and_small_exchanges_stand_apart():
    def exchange(sent, count, op_name="jit(step)/transpose(jvp())/dot"):
        return program.Collective("all-gather", count, sent, 4, "nets/blocks.py:40", op_name)

    rows = page.collectives_by_cause((exchange(2e6, 1), exchange(3e6, 2), exchange(10.0, 5)))
    assert [(row["count"], row["sent_bytes"], row["is_small"]) for row in rows] == [(3, 8e6, False), (5, 50.0, True)]
    assert {row["phase"] for row in rows} == {"backward"}


def test_time_at_the_roofline_is_summed_by_block_and_phase():
    chip = chips.topology("v5e:2x2").chip

    def kernel(op_name, count, seconds_of_flops, seconds_of_bytes):
        work = seconds_of_flops * chip.peak_flops, seconds_of_bytes * chip.memory_bandwidth
        return program.Kernel("dot", count, *work, 0, "", op_name, op_name)

    kernels = kernel("jit(step)/jvp(stem)/dot", 2, 1.0, 0.5), kernel("jit(step)/transpose(jvp(stem))/dot", 1, 1.0, 3.0)
    rows = page.kernels_by_block((*kernels, kernel("jit(step)/add", 1, 0.0, 7.0)), chip, ["stem", "head"])
    found = [(row["block"], row["phase"], pytest.approx(row["seconds"])) for row in rows]
    assert found == [(blocks.REST, "rest", 7.0), ("stem", "forward", 2.0), ("stem", "backward", 3.0)]


@pytest.mark.skipif(NO_COMPILER, reason="the TPU compiler (package libtpu, requirements/tpu.txt) is not installed")
def test_the_tpu_compiler_counts_the_flops_of_the_jaxpr(facts):
    config, slice_of = tiny.get_config(), chips.topology("v5e:2x2")
    axes = plan.axes_of(config, "data=2,fsdp=2", slice_of)
    made = plan.plan(config, topology=slice_of, axes=axes, data=Data(3, None), facts=facts, timeout=600.0)
    compiled = made["compiled"]
    assert compiled["flops"] == pytest.approx(made["executed_flops"], rel=0.02)
    of_blocks = sum(row["flops"] for row in compiled["blocks"] if row["block"] != blocks.REST)
    assert compiled["flops"] == pytest.approx(sum(row["flops"] for row in compiled["blocks"]))
    assert of_blocks > 0.98 * compiled["flops"]
    assert 0 < compiled["memory"]["arguments"] < 1e8
    kinds = {row["kind"] for row in compiled["collectives"]}
    assert kinds == {"all-gather", "reduce-scatter", "all-reduce"}  # nothing else is moved
