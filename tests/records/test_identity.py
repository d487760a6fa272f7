import hashlib
import json

import pytest
from ml_collections import ConfigDict

from configs import base, demo, folder, objectives
from configs.base import get_config
from configs.paper import bair, kinetics600, ucf101
from vdm.records import identity


def _config(**overrides):
    config = get_config()
    config.update_from_flattened_dict(overrides)
    return config


@pytest.mark.feature("R9")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.moving_digits.num_digits", 1),
        ("optimizer.adamw.weight_decay", 0.3),
        ("schedule.ddpm_linear.beta_end", 0.5),
        ("sampler.spacing.karras.rho", 5.0),
        ("sampler.guidance.classifier_free.weight", 3.0),
        ("data.tfds.dataset", "ucf101"),
        ("run.num_steps", 7),
        ("compare.question", "which?"),
    ],
)
def test_what_is_not_chosen_and_what_may_change_is_no_part_of_the_identity(key, value):
    assert identity.identity_hash(_config(**{key: value})) == identity.identity_hash(get_config())


@pytest.mark.feature("R9")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("name", "other"),
        ("data.moving_shapes.radius", 2.25),
        ("data.moving_shapes.colours", ("green", "red", "blue")),
        ("network.unet3d.dropout", 0.1),
        ("objective.times.uniform.min", 1e-5),
        ("optimizer.name", "adamw"),
        ("sampler.spacing.name", "trailing"),
        ("sampler.spacing.uniform.t_min", 0.02),
        ("sampler.threshold.name", "dynamic"),
        ("sampler.guidance.name", "classifier_free"),
        ("evaluation.num_samples", 255),
    ],
)
def test_everything_else_is(key, value):
    assert identity.identity_hash(_config(**{key: value})) != identity.identity_hash(get_config())


def test_the_choices_beside_a_choice_are_those_that_are_meant_to_be():
    """An option with a key `name` would be taken for a choice of its own, and recorded though it is not chosen."""

    def inner(value, where=""):
        for key, entry in value.items():
            if isinstance(entry, ConfigDict):
                if "name" in value and "name" in entry and where:
                    yield f"{where}{key}"
                yield from inner(entry, f"{where}{key}.")

    assert set(inner(get_config())) == {
        f"sampler.{part}" for part in ("spacing", "threshold", "guidance", "task", "conditioning")
    }


def test_an_option_joins_the_identity_when_it_is_chosen():
    one, two = (_config(**{"optimizer.name": "adamw", "optimizer.adamw.weight_decay": decay}) for decay in (0.1, 0.2))
    assert identity.identity_hash(one) != identity.identity_hash(two)
    assert identity.differences(one, two) == ("optimizer.adamw.weight_decay: 0.1 -> 0.2",)


def test_a_choice_inside_an_option_and_a_choice_without_parameters():
    inner = {"name": "b", "a": {"x": 1}, "b": {"y": 2}, "shared": 3}
    assert identity.resolve({"outer": {"name": "chosen", "chosen": inner, "other": {"z": 4}}}) == {
        "outer": {"name": "chosen", "chosen": {"name": "b", "b": {"y": 2}, "shared": 3}}
    }
    assert identity.resolve({"name": "root", "optimizer": {"name": "adam", "adamw": {"decay": 1.0}}}) == {
        "name": "root",
        "optimizer": {"name": "adam"},
    }


def test_a_dict_without_a_name_keeps_all_its_parts():
    resolved = identity.resolve(get_config())
    assert set(resolved["objective"]) == set(get_config().objective)
    assert set(resolved["run"]["mesh"]) == {"data", "fsdp", "tensor", "frames"}


def _without(resolved, key):
    """Takes a key out, and the section with its only key."""
    first, _, rest = key.partition(".")
    value = _without(resolved[first], rest) if rest else resolved.pop(first)
    if rest and not resolved[first]:
        del resolved[first]
    return value


@pytest.mark.feature("R9")
@pytest.mark.parametrize("key", identity.LATER)
def test_a_record_from_before_a_key_is_of_the_same_run_until_the_key_is_used(key):
    config = get_config()
    recorded = identity.resolve(config)
    assert _without(recorded, key) == identity.LATER[key], "base.py has another default: earlier records are lost"
    identity.require_same_identity(recorded, config, "here")
    assert identity.resolve(identity.rebuild(get_config(), recorded)) == identity.resolve(config)
    assert not identity.differences(recorded, config)
    used = _config(**{key: {"int": 4, "str": "another"}[type(identity.LATER[key]).__name__]})
    assert identity.identity_hash(recorded) != identity.identity_hash(used)
    assert any(key in line for line in identity.differences(identity.identity(recorded), identity.identity(used)))


@pytest.mark.feature("R9")
def test_the_hash_is_sha256_of_sorted_json():
    """By hand: the text that the rule describes, hashed by hashlib."""
    config = ConfigDict({"b": 0.1, "a": (1, True, None), "run": {"n": 3}, "c": "\u00e9"})
    text = r'{"a":[1,true,null],"b":0.1,"c":"\u00e9"}'
    assert identity.identity_hash(config) == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_differences_name_each_key_once_with_both_values():
    new = _config(**{"data.batch_size": 32, "optimizer.name": "adamw", "run.num_steps": 5})
    assert identity.differences(get_config(), new) == (
        "data.batch_size: 64 -> 32",
        "optimizer.adamw.weight_decay: (absent) -> 0.01",
        'optimizer.name: "adam" -> "adamw"',
        "run.num_steps: 1000 -> 5",
    )
    assert identity.differences(new, new) == ()


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "nan"), (float("inf"), "inf"), (object(), "object"), ((1, 1j), r"\[1\]")]
)
def test_a_value_without_json_is_refused_by_its_key(value, words):
    with pytest.raises(ValueError, match=rf"config\.data\.x.*{words}"):
        identity.resolve({"data": {"x": value}})


def test_another_identity_in_the_workdir_is_refused_with_the_differences_and_the_ways_out():
    recorded = identity.resolve(get_config())
    identity.require_same_identity(recorded, _config(**{"run.num_steps": 9}), "runs/a")
    with pytest.raises(
        ValueError, match=r"runs/a holds run(.|\n)*data\.batch_size: 64 -> 32(.|\n)*another --workdir, or delete"
    ) as error:
        identity.require_same_identity(recorded, _config(**{"data.batch_size": 32, "run.num_steps": 9}), "runs/a")
    assert "run.num_steps" not in str(error.value)


def test_the_order_of_keys_is_no_part_of_the_identity():
    one = {"a": {"x": 1, "y": 2}, "b": 3}
    two = {"b": 3, "a": {"y": 2, "x": 1}}
    assert identity.identity_hash(one) == identity.identity_hash(two)


def _shipped():
    """Every config of configs/ and every named objective."""
    yield from ((module.__name__, module.get_config()) for module in (base, demo, folder, bair, kinetics600, ucf101))
    yield from ((name, objectives.get_config(name)) for name in objectives.ROWS)


@pytest.mark.feature("R9")
@pytest.mark.parametrize(("name", "config"), list(_shipped()), ids=lambda value: value if type(value) is str else "")
def test_a_config_comes_back_from_its_resolved_json(name, config):
    before = base.get_config()
    resolved = json.loads(json.dumps(identity.resolve(config)))
    rebuilt = identity.rebuild(before, resolved)
    assert identity.resolve(rebuilt) == resolved and identity.identity_hash(rebuilt) == identity.identity_hash(config)
    assert before == base.get_config(), "the base was changed"
    assert type(rebuilt.evaluation.log_snrs) is tuple and rebuilt.is_locked
    assert rebuilt.optimizer.adamw == config.optimizer.adamw or config.optimizer.name != "adamw"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.batchsize", 3, r"config\.data\.batchsize is no key .*batch_size"),
        ("compare", {"seeds": [0]}, "config.compare is no key"),
        ("data.batch_size", 64.0, "config.data.batch_size is 64.0 of type float; it must be int"),
        ("data.batch_size", True, "of type bool; it must be int"),
        ("optimizer.learning_rate", "__import__('os')", "of type str; it must be float"),
        ("evaluation.log_snrs", 1.0, "it must be a list"),
        ("evaluation.log_snrs", [[1.0]], r"log_snrs\[0\] is \[1.0\] of type list; it must be float or int"),
        ("network.unet3d", 3, "config.network.unet3d is 3; it must be an object with the keys .*channels"),
        ("network.name", None, "it must be str"),
    ],
)
def test_a_resolved_config_with_other_keys_or_types_is_refused_by_its_key(key, value, words):
    resolved = identity.resolve(get_config())
    *parents, last = key.split(".")
    place = resolved
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(ValueError, match=words):
        identity.rebuild(get_config(), resolved)


def test_a_resolved_config_that_lacks_a_key_is_not_filled_with_a_default():
    resolved = identity.resolve(get_config())
    del resolved["optimizer"]["clip_norm"]
    with pytest.raises(ValueError, match=r"optimizer\.clip_norm: \(absent\) -> 1\.0.*the commit that wrote it"):
        identity.rebuild(get_config(), resolved)
