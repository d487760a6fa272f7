"""PyTorch's files read without it: files that it wrote, I3D as a whole, and files that mean harm."""

import functools
import hashlib
import io
import itertools
import struct
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import tiny
from vdm import scoring
from vdm.measures import measures_of
from vdm.metrics.features import extractor, i3d, torch_files, weights

WRITTEN = Path(__file__).parent / "torch_written"  # by PyTorch itself: see make.py there
SHAPES = {
    "branch.1.conv3d.weight": (2, 2, 1, 2, 1),
    "branch.1.batch3d.weight": (2,),
    "branch.1.batch3d.bias": (2,),
    "branch.1.batch3d.running_mean": (2,),
    "branch.1.batch3d.running_var": (2,),
    "branch.1.batch3d.num_batches_tracked": (),
    "last.conv3d.weight": (3, 2, 1, 2, 1),
    "last.conv3d.bias": (3,),
}

# The format, written down from PyTorch's own files: operations of pickle protocol 2.


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def called(module, name, *arguments):
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def items(pairs):
    return b"(" + b"".join(text(key) + value for key, value in pairs.items()) + b"u"


def module(attributes, name="Module"):
    return named("__torch__.some", name) + b")\x81}" + items({"training": b"\x89"} | attributes) + b"b"


def state_dict(pairs):
    return called("collections", "OrderedDict") + items(pairs)


def tensor(key, shape, strides=None, *, offset=0, size=None, dtype="FloatStorage"):
    strides = strides or [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    size = int(np.prod(shape)) if size is None else size
    storage = b"(" + text("storage") + named("torch", dtype) + text(key) + text("cpu") + number(size) + b"tQ"
    rest = number(offset), numbers(shape), numbers(strides), b"\x89", called("collections", "OrderedDict")
    return called("torch._utils", "_rebuild_tensor_v2", storage, *rest)


def archive(pickle, records=None, *, compression=zipfile.ZIP_STORED, rest=None):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as members:
        members.writestr("some/data.pkl", b"\x80\x02" + pickle + b".")
        members.writestr("some/version", b"3\n")
        for key, record in (records or {}).items():
            members.writestr(f"some/data/{key}", record)
        for name, content in (rest or {}).items():
            members.writestr(f"some/{name}", content)
    return file.getvalue()


def nested(arrays, records):
    """Dotted names as modules inside modules."""
    attributes = {}
    for head, group in itertools.groupby(arrays, lambda name: name.partition(".")[0]):
        below = {name.partition(".")[2]: arrays[name] for name in group}
        attributes[head] = leaf(below[""], records) if "" in below else nested(below, records)
    return module(attributes)


def leaf(array, records):
    key = str(len(records))
    records[key] = array.tobytes()
    return tensor(key, array.shape)


def as_state_dict(arrays):
    records = {}
    return archive(state_dict({name: leaf(array, records) for name, array in arrays.items()}), records)


def as_module(arrays):
    records = {}
    return archive(nested(arrays, records), records)


@functools.cache
def packaged():
    """Of each layer, the vectors of its batch norm as the package has them, or the bias, and its kernel."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(weights.I3D.read())
    flat = {"/".join(step.key for step in path): leaf for path, leaf in leaves}
    layers = {}
    for layer in i3d.kernel_shapes():
        layers[layer] = {"kernel": flat[f"params/{layer}/Conv_0/kernel"]}
        if layer.startswith("Logits"):
            layers[layer]["bias"] = flat[f"params/{layer}/Conv_0/bias"]
        else:
            norm = ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var")
            layers[layer] |= {part: flat[f"{group}/{layer}/BatchNorm_0/{part}"].reshape(-1) for group, part in norm}
    return layers


# TATS' convert_tf_pretrained.py names the convolutions of a block so
UNITS = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}


def videogpt(layer):
    block, _, unit = layer.partition("/")
    return "logits" if block == "Logits" else f"{block}.{UNITS[unit]}" if unit else block


def torch_arrays(layers, name_of, norm):
    """In PyTorch's layout, with the order of the layers."""
    arrays = {}
    for layer, parts in layers.items():
        unit = name_of(layer)
        arrays[f"{unit}.conv3d.weight"] = parts["kernel"].transpose(4, 3, 0, 1, 2)
        if "bias" in parts and "mean" not in parts:
            arrays[f"{unit}.conv3d.bias"] = parts["bias"]
        else:
            arrays[f"{unit}.{norm}.weight"] = np.ones_like(parts["bias"])
            arrays[f"{unit}.{norm}.bias"] = parts["bias"]
            arrays[f"{unit}.{norm}.running_mean"] = parts["mean"]
            arrays[f"{unit}.{norm}.running_var"] = parts["var"]
    return arrays


def as_videogpt(layers):
    arrays = torch_arrays(layers, videogpt, "bn")
    return as_state_dict({name: arrays[name] for name in sorted(arrays)})  # the order of names tells nothing


def as_stylegan_v(layers):
    """The modules' names are not known to us: numbers."""
    numbered = {layer: f"layer_{i}" for i, layer in enumerate(layers)}
    return as_module(torch_arrays(layers, numbered.get, "batch3d"))


def swapped(one, other):
    return packaged() | {one: packaged()[other], other: packaged()[one]}


@pytest.mark.feature("M3")
@pytest.mark.parametrize("name", ["archive", "stream", "scripted"])
def test_files_that_pytorch_wrote(name):
    found = torch_files.tensors((WRITTEN / f"{name}.pt").read_bytes())
    turned = {} if name == "scripted" else {"turned": (1, 2, 1, 2, 3)}
    assert {key: array.shape for key, array in found.items()} == SHAPES | turned
    assert list(found) == list(SHAPES | turned)
    for i, (key, shape) in enumerate(SHAPES.items()):
        expected = i + np.arange(np.prod(shape)).reshape(shape) / 8
        np.testing.assert_array_equal(found[key], expected)
    if turned:
        np.testing.assert_array_equal(found["turned"], found["last.conv3d.weight"].transpose(2, 3, 4, 1, 0))


@pytest.mark.feature("M3")
@pytest.mark.parametrize("write", [as_videogpt, as_stylegan_v])
def test_the_whole_of_i3d_is_read_back(write):
    found = i3d.from_torch(torch_files.tensors(write(packaged())))
    expected = i3d.from_flax(weights.I3D.read())
    assert list(found) == list(expected)
    for layer, parts in expected.items():
        for part, array in parts.items():
            np.testing.assert_array_equal(found[layer][part], array)


@pytest.mark.feature("M3")
def test_fvd_with_a_user_s_file_names_it_in_its_protocol(tmp_path):
    content = as_stylegan_v(packaged())
    (tmp_path / "i3d.pt").write_bytes(content)
    config = tiny.get_config()
    config.scores.metrics = ("kvd", "fvd")
    measures = measures_of(config, i3d_weights=str(tmp_path / "i3d.pt"))
    assert measures[0].extractor is measures[1].extractor
    for measure in measures:
        protocol = scoring.protocol_of(config, measure)
        assert (protocol.extractor, protocol.extractor_sha256) == ("i3d", hashlib.sha256(content).hexdigest())


def test_a_file_that_nothing_would_read_is_refused():
    config = tiny.get_config()
    config.scores.metrics = ("motion",)
    with pytest.raises(ValueError, match=r"--i3d_weights=i3d.pt is given, and .*\('motion',\): fvd and kvd see"):
        measures_of(config, i3d_weights="i3d.pt")
    config.scores.metrics = ("fvd",)
    with pytest.raises(ValueError, match=r"there is no file /nowhere/i3d.pt"):
        measures_of(config, i3d_weights="/nowhere/i3d.pt")


ALIKE = [pair for pair in itertools.combinations(i3d.kernel_shapes().items(), 2) if pair[0][1] == pair[1][1]]


@pytest.mark.feature("M3")
@pytest.mark.parametrize(
    "pair",
    [ALIKE[0], *(pytest.param(pair, marks=pytest.mark.slow) for pair in ALIKE[1:])],
    ids=lambda pair: f"{pair[0][0]}-{pair[1][0]}".replace("/", "."),
)
def test_layers_in_another_order_are_no_i3d(pair, tmp_path):
    """Where shapes cannot tell two layers apart, the published logits do."""
    assert len(ALIKE) == 11
    (one, _), (other, _) = pair
    file = tmp_path / "i3d.pt"
    file.write_bytes(as_stylegan_v(swapped(one, other)))
    with pytest.raises(ValueError, match=r"i3d.pt is refused .* not the weights of FVD's I3D: .* Give i3d_pretrained"):
        extractor.i3d_kinetics(str(file))


TURNED = {  # (layer, kernel [t, h, w, in, out]) -> what a converter could make of it
    "colours": lambda layer, kernel: kernel[..., ::-1, :] if layer == "Conv3d_1a_7x7" else kernel,
    "rows and columns": lambda _, kernel: kernel.swapaxes(1, 2),
}


@pytest.mark.feature("M3")
@pytest.mark.parametrize("what", ["colours", pytest.param("rows and columns", marks=pytest.mark.slow)])
def test_a_network_that_sees_a_black_clip_rightly_and_others_not_is_no_i3d(what, tmp_path):
    layers = {layer: parts | {"kernel": TURNED[what](layer, parts["kernel"])} for layer, parts in packaged().items()}
    file = tmp_path / "i3d.pt"
    file.write_bytes(as_stylegan_v(layers))
    with pytest.raises(ValueError, match=r"not the weights of FVD's I3D: .* three logits of 15 coloured frames are"):
        extractor.i3d_kinetics(str(file))


def test_not_even_a_number_is_no_i3d():
    layers = {name: dict(parts) for name, parts in i3d.from_flax(weights.I3D.read()).items()}
    layers["Mixed_5c/Branch_0/Conv3d_0a_1x1"]["bias"] = np.full(384, np.nan, np.float32)
    with pytest.raises(ValueError, match="are nan, nan"):
        i3d.require_published(layers)


@pytest.mark.feature("M3")
def test_missing_and_misplaced_layers_are_named():
    layers = packaged()
    arrays = torch_arrays(layers, videogpt, "bn")
    del arrays["Mixed_4d.b1a.bn.running_var"]
    with pytest.raises(ValueError, match=r"Mixed_4d/Branch_1/Conv3d_0a_1x1 lacks Mixed_4d\.b1a\.bn\.running_var"):
        i3d.from_torch(arrays)
    wrong = swapped("Conv3d_2b_1x1", "Conv3d_2c_3x3")
    order = {name: wrong[name] for name in wrong}
    with pytest.raises(ValueError, match=r"layer Conv3d_2b_1x1 has a kernel of \(1, 1, 1, 64, 64\) .*layer_1\.conv3d"):
        i3d.from_torch(torch_files.tensors(as_stylegan_v(order)))
    with pytest.raises(ValueError, match="I3D has 58 convolutions and 57 batch norms; the file has 2 and 1 that"):
        i3d.from_torch(torch_files.tensors((WRITTEN / "scripted.pt").read_bytes()))


FLOATS = {"0": np.arange(6, dtype="<f4").tobytes()}


def read(pickle, records=FLOATS, **rest):
    return torch_files.tensors(archive(pickle, records, **rest))


def test_views_of_a_storage():
    found = read(state_dict({"a": tensor("0", (2, 2), (1, 3), offset=1, size=6)}))
    np.testing.assert_array_equal(found["a"], [[1, 4], [2, 5]])


@pytest.mark.feature("M3")
@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (called("os", "system", text("touch /tmp/harm")), "names os.system; weights are tensors"),
        (named("__builtin__", "eval"), "names __builtin__.eval; weights are tensors"),
        (called("torch._utils", "_rebuild_parameter", tensor("0", (6,))), "names torch._utils._rebuild_parameter"),
        (tensor("0", (6,), dtype="HalfStorage"), "names torch.HalfStorage"),
        (called("__torch__.evil", "Module"), "damaged"),  # a module is made, never called
        (b"(ios\nsystem\n", "operation INST, which no weights need"),
        (text("os") + text("system") + b"\x93", "operation STACK_GLOBAL"),
        (tensor("0", (7,)), r"storage 0 must have 28 bytes and has 24"),
        (tensor("0", (2**28,)), r"storage 0 must have 1073741824 bytes and has 24"),
        (tensor("0", (7,), size=6), r"shape \(7,\) leaves its storage of 6"),
        (tensor("0", (3, 2), (3, 1), size=6), r"shape \(3, 2\) leaves its storage"),
        (tensor("0", (2,), offset=5, size=6), "leaves its storage"),
        (tensor("0", (2,), (-1,), offset=3, size=6), "leaves its storage"),
        (tensor("0", (6, 6, 6), (0, 0, 1), size=6), "larger than its storage"),
        (tensor("0", (1,) * 6, size=6), "whose shape cannot be read"),
        (tensor("0", (6,), size=-1), "refers to something that is no storage"),
        (tensor("../../etc/passwd", (6,)), "damaged"),
        (tensor("1", (6,)), "There is no item named 'some/data/1'"),
        (b"(" + tensor("0", (6,)) + tensor("0", (5,)) + b"t", "describes the storage 0 twice"),
        (b"}" + b")" + text("x") + b"s", "has a tuple where a name is needed"),
        (text("cut")[:-1], "exhausted before seeing STOP"),
        (b"t", "damaged, or none that PyTorch wrote"),
        (b"N" * (torch_files.MAX_OPERATIONS + 1), "more than 262144 operations"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_data_is_refused_by_name(pickle, message):
    with pytest.raises(ValueError, match=message):
        read(pickle)


@pytest.mark.feature("M3")
def test_a_pickle_that_makes_itself_callable_stays_data():
    """State that would shadow `__setstate__` in Python's unpickler, and be called by the next BUILD."""
    evil = module({"__setstate__": named("torch._utils", "_rebuild_tensor_v2"), "w": tensor("0", (6,))})
    found = read(evil + b"(" + text("os") + text("system") + b"t" + b"b")
    np.testing.assert_array_equal(found["w"], np.arange(6))


def test_archives_that_are_none():
    good = archive(state_dict({"a": tensor("0", (6,))}), FLOATS)
    for content, message in (
        (b"", "none that PyTorch wrote"),
        (b"\x89PNG\r\n", "none that PyTorch wrote"),
        (b"\x80\x02J\x01\x00\x00\x00.", "none that PyTorch wrote"),
        (good[:200], "damaged zip archive"),
        (good.replace(FLOATS["0"], bytes(24)), "damaged zip archive: Bad CRC-32"),
        (good.replace(b"data.pkl", b"date.pkl"), "has no data.pkl"),
        (archive(tensor("0", (2**20,)), {"0": bytes(2**22)}, compression=zipfile.ZIP_DEFLATED), "unpack to more"),
        (archive(tensor("0", (6,)), FLOATS, rest={"byteorder": b"big"}), "big-endian machine"),
    ):
        with pytest.raises(ValueError, match=message):
            torch_files.tensors(content)


def test_a_stream_that_ends_early_is_refused():
    content = (WRITTEN / "stream.pt").read_bytes()
    with pytest.raises(ValueError, match=r"storage .* must have \d+ bytes and has \d"):
        torch_files.tensors(content[:-1])
    for length in range(0, len(content) - 1, 7):
        with pytest.raises(ValueError):
            torch_files.tensors(content[:length])


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(ValueError, match="has 11 bytes; a file of weights has at most 10"):
        weights.read(tmp_path / "large", 10)
