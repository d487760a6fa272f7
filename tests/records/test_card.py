"""Cards are read as a stranger's: what is no card is refused by its name, before anything in it is used."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests import cards
from vdm.records import card, card_page, lock, weights
from vdm.records.record import Metric


@pytest.fixture
def folder(tmp_path):
    card.write(tmp_path / "card", cards.files(), cards.a_record())
    return tmp_path / "card"


@pytest.mark.feature("R9")
def test_a_card_comes_back_as_it_was_written(folder):
    read = card.read(folder)
    assert (read.record, read.replay, read.config) == (cards.a_record(), cards.a_replay(), cards.a_record().config)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), cards.PARAMS)
    jax.tree.map(np.testing.assert_array_equal, weights.read(read.weights, like), cards.PARAMS)
    manifest = json.loads((folder / card.MANIFEST).read_text())
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {
        name: len(content) for name, content in cards.files().items()
    }


def test_what_a_hub_puts_beside_a_card_is_not_looked_at_and_a_card_is_overwritten_whole(folder):
    (folder / ".git").mkdir()
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    without = {name: content for name, content in cards.files().items() if name != card.WEIGHTS}
    card.write(folder, without, cards.a_record())
    assert card.read(folder).weights is None and not (folder / card.WEIGHTS).exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds thesis\.tex, which is no part of a card; give another --out"):
        card.write(tmp_path, cards.files(), cards.a_record())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_files_of_a_cards_names_that_are_no_card_are_left_alone(tmp_path):
    """A repository of someone's own: its README and lock have the names that a card's have."""
    (tmp_path / ".git").mkdir()
    for name in (card.PAGE, card.LOCK):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=r"holds README\.md, requirements\.txt and no card\.json: no card, .* --out"):
        card.write(tmp_path, cards.files(), cards.a_record())
    assert (tmp_path / card.PAGE).read_text() == (tmp_path / card.LOCK).read_text() == "mine"


def test_a_file_beyond_its_bound_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"README\.md has 1048577 bytes; at most 1048576 are allowed"):
        card.write(tmp_path / "card", cards.files() | {card.PAGE: bytes(card.MIB + 1)}, cards.a_record())
    assert not (tmp_path / "card").exists()


def _add(name, content=b"x"):
    def change(folder):
        (folder / name).write_bytes(content)
        cards.reseal(folder)

    return change


def _list(name):
    """In the manifest alone: what would a reader open?"""

    def change(folder):
        manifest = json.loads((folder / card.MANIFEST).read_text())
        manifest["files"][name] = {"size": 1, "sha256": "0"}
        (folder / card.MANIFEST).write_text(json.dumps(manifest))

    return change


def _link(folder):
    secret = folder.parent / "secret"
    (folder / card.LOCK).rename(secret)
    (folder / card.LOCK).symlink_to(secret)  # its content is right, and its hash


def _link_to_a_folder(folder):
    (folder / card.WEIGHTS).unlink()
    (folder / card.WEIGHTS).symlink_to(folder.parent)


def _pipe(folder):
    (folder / card.SHEET).unlink()
    os.mkfifo(folder / card.SHEET)


def _inner_folder(folder):
    (folder / card.SHEET).unlink()
    (folder / card.SHEET).mkdir()


def _huge(name):
    def change(folder):
        size = card.FILES[name] + 1
        os.truncate(folder / name, size)  # sparse: it takes no room
        if name != card.MANIFEST:
            manifest = json.loads((folder / card.MANIFEST).read_text())
            manifest["files"][name]["size"] = size
            (folder / card.MANIFEST).write_text(json.dumps(manifest))

    return change


def _grown(folder):
    os.truncate(folder / card.SHEET, card.FILES[card.SHEET] + 1)


def _altered(name):
    def change(folder):
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return change


def _sealed(**files):
    return lambda folder: cards.reseal(folder, **files)


def _field(name, key, value):
    def change(folder):
        cards.edit(folder, name, lambda values: values.update({key: value}))

    return change


def _too_long(folder):
    cards.edit(folder, "replay.json", lambda values: values.update(losses=[1.0] * 21, gradient_norms=[1.0] * 21))


class _Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/vdm_card_was_executed",)


PICKLE = pickle.dumps(_Bomb())
OTHER_DTYPE = safetensors.numpy.save({"a": np.ones(10, np.float16)})
TOO_FEW = safetensors.numpy.save({"a": np.ones(9, np.float32)})
DEEP = b'{"version": 1, "files": ' + b"[" * 100_000


@pytest.mark.feature("R9")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_add("weights.pkl", PICKLE), r"weights\.pkl' is no file of a card; allowed are card\.json, README\.md"),
        (_add("config.py", b"raise SystemExit"), r"config\.py' is no file of a card"),
        (_add("\x1b[2J.json"), r"x1b\[2J\.json' is no file of a card"),
        (_list("../card/README.md"), r"lists '\.\./card/README\.md', which is no file of a card"),
        (_list("/etc/README.md"), r"lists '/etc/README\.md', which is no file"),
        (_list("../../etc/passwd"), r"lists '\.\./\.\./etc/passwd', which is no file"),
        (_list("card.json"), r"lists 'card\.json', which is no file"),
        (_link, r"requirements\.txt is a link; a card is plain files.*--local-dir"),
        (_link_to_a_folder, r"weights\.safetensors is a link"),
        (_pipe, r"sheet\.png is no plain file"),
        (_inner_folder, r"sheet\.png is no plain file"),
        (_huge("record.json"), r"record\.json has 268435457 bytes; at most 268435456 are allowed"),
        (_huge("card.json"), r"card\.json has 1048577 bytes; at most 1048576 are allowed"),
        (_grown, r"sheet\.png has 67108865 bytes; at most 67108864 are allowed"),
        (lambda folder: os.truncate(folder / card.SHEET, 3), r"sheet\.png has 3 bytes; card\.json says 13"),
        (lambda folder: (folder / card.PAGE).unlink(), r"do not list the same files: README\.md"),
        (lambda folder: (folder / card.MANIFEST).unlink(), r"holds no card\.json"),
        (_altered("weights.safetensors"), r"weights\.safetensors is not what card\.json says: its SHA-256 is"),
        (_altered("requirements.txt"), r"requirements\.txt is not what card\.json says"),
        (_altered("README.md"), r"README\.md is not what card\.json says"),
        (_sealed(weights=PICKLE), r"weights\.safetensors is not a safetensors file"),
        (_sealed(weights=OTHER_DTYPE), r"holds 10 numbers of F16; the record's network has 10 parameters of F32"),
        (_sealed(weights=TOO_FEW), r"holds 9 numbers of F32"),
        (_sealed(sheet=PICKLE), r"sheet\.png does not begin as such a file does"),
        (_sealed(config=PICKLE), r"config\.json is no UTF-8 text"),
        (_sealed(config=b"get_config()"), r"config\.json is not strict JSON"),
        (_sealed(config=b'{"seed": NaN}'), r"config\.json is not strict JSON \(it holds NaN\)"),
        (_sealed(config=b'{"seed": 1e999}'), r"config\.json is not strict JSON \(it holds 1e999"),
        (_sealed(config=b'{"seed": 1, "seed": 2}'), r"config\.json is not strict JSON \(it holds a key twice"),
        (_sealed(config=b"[1]"), r"config\.json is a list; it must be an object"),
        (_sealed(config=b"[" * 100_000), r"config\.json is not strict JSON"),
        (lambda folder: (folder / card.MANIFEST).write_bytes(DEEP), r"card\.json is not strict JSON"),
        (_field("record.json", "code", "import os"), r"record\.json has other keys .* unknown \['code'\]"),
        (_field("record.json", "num_steps", "6"), r"num_steps is '6' of type str; it must be int"),
        (_field("record.json", "config", {"seed": 3}), r"record\.json names run .*, but its config is .*: edited"),
        (_field("record.json", "version", 99), r"record\.json is of schema version 99"),
        (_field("replay.json", "losses", [1.0] * 21), r"replay\.json has 21 losses and 2 gradient norms"),
        (_too_long, r"replay\.json has 21 losses and 21 gradient norms; it must have as many of each, 1 to 20"),
        (_field("replay.json", "losses", ["1.0", 1.0]), r"losses\[0\] is '1\.0' of type str"),
        (_sealed(requirements=cards.LOCK + b"x==1\n"), r"requirements\.txt is not the lock that replay\.json names"),
    ],
)  # fmt: skip
def test_a_hostile_card_is_refused_and_says_why(folder, change, words):
    change(folder)
    with pytest.raises(ValueError, match=words):
        card.read(folder)
    assert not os.path.exists("/tmp/vdm_card_was_executed")


def test_a_record_that_is_nested_without_end_is_refused(folder):
    """JSON's own reader takes a depth that those who walk through it do not."""
    nested = '{"a":' * 900 + "1" + "}" * 900
    text = (folder / card.RECORD).read_text()
    cards.reseal(folder, record=text.replace('"config": {', f'"config": {{"deep": {nested},', 1).encode())
    with pytest.raises(ValueError, match=r"nested too deep|not strict JSON|but its config is"):
        card.read(folder)


def test_curves_that_are_not_those_of_the_manifest_are_refused(folder):
    manifest = json.loads((folder / card.MANIFEST).read_text())
    manifest["curves"]["train/loss"] = "0" * 64
    (folder / card.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"the curves of .*record\.json are not those of card\.json"):
        card.read(folder)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-r /etc/passwd", "pins no|package==version"),
        ("jax>=0.1", "pins no version"),
        ("jax @ http://x/y.whl", "pins no"),
        ("jax==1 ; os_name ~= 'x'", r"whose marker means nothing \(.*~=.*\); compile the lock anew with `make lock`"),
    ],
)
def test_a_lock_that_pins_nothing_or_nowhere_is_refused_by_its_line(line, words):
    with pytest.raises(ValueError, match=rf"requirements\.txt, line 2, is .*{words}"):
        lock.pinned(f"absl-py==2.5.1\n{line}\n", "requirements.txt")


def test_a_lock_is_that_of_this_python_and_names_what_is_foreign():
    text = "numpy==2.0.0 ; python_version >= '3.9'\nnumpy==1.0 ; python_version < '3.9'\nno_such-package==1\n"
    pins = lock.pinned(text, "lock")
    assert pins == {"numpy": "2.0.0", "no-such-package": "1"}
    assert lock.foreign({"numpy": np.__version__}) == ()
    assert lock.foreign(pins) == (f"numpy {np.__version__} (lock: 2.0.0)", "no-such-package absent (lock: 1)")


def test_words_of_a_record_cannot_leave_their_line_in_the_page():
    done = dataclasses.replace(cards.a_record(), name="a\n---\n<script>|`[x](http://e)", evaluated_step=1)
    page = card_page.render(done, cards.a_replay(), cards.files())
    assert "<script>" not in page and "](http://e)" not in page and page.count("\n---\n") == 1


def test_a_score_of_a_card_stands_beside_its_floor_and_where_it_leads():
    done = cards.a_record()
    fvd = Metric("FVD", 30.0, None, None, "", False, {"of": "clips"}, 12.5, 21.25, ((128, 30.0), (64, 38.75)))
    bare = Metric("KVD", 0.5, 0.25, 0.75, "", False, {"of": "others"})
    page = card_page.render(dataclasses.replace(done, metrics=(fvd, bare)), cards.a_replay(), cards.files())
    head, _, *rows = page.split("## Scores\n\n")[1].splitlines()
    assert head == "| score | value | 95 % | of the data themselves | of infinitely many samples | protocol |"
    assert rows[:2] == ["| FVD | 30 |  | 12.5 | 21.25 | 1 |", "| KVD | 0.5 | 0.25 to 0.75 |  |  | 2 |"]
