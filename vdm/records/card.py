"""A card: a folder that says how a run was made and what came out, for others to read, run again and check.

Its files lie side by side, as a model hub wants them; `card.json` lists each with its size and SHA-256. A card is read
as a stranger's: nothing in it is executed, unpacked or drawn. There is no pickle and no Python, no file but those of
`FILES`, no link, no folder, no path that is opened, no file beyond its bound, and no JSON but strict JSON of known keys
and types. Whatever breaks that is a ValueError that names the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from etils import epath

from vdm.records import identity, lock, record, replay, schema, weights
from vdm.records.record import Record, write_whole
from vdm.records.replay import Replay

VERSION = 1
MANIFEST, PAGE, CONFIG, RECORD, REPLAY = "card.json", "README.md", "config.json", "record.json", "replay.json"
LOCK, SHEET, SAMPLES, WEIGHTS = "requirements.txt", "sheet.png", "samples.gif", "weights.safetensors"
MIB = 2**20
FILES = {  # the only names there are -> bytes at most
    MANIFEST: MIB,
    PAGE: MIB,
    CONFIG: MIB,
    RECORD: 256 * MIB,
    REPLAY: MIB,
    LOCK: 4 * MIB,
    SHEET: 64 * MIB,
    SAMPLES: 64 * MIB,
    WEIGHTS: 64 * 1024 * MIB,
}
OPTIONAL = (WEIGHTS,)
HUBS_OWN = (".git", ".gitattributes", ".cache")  # what a hub puts beside the files; never opened
_BEGINS = {SHEET: b"\x89PNG\r\n\x1a\n", SAMPLES: b"GIF8"}
_CHUNK = 16 * MIB


@dataclasses.dataclass(frozen=True)
class Entry:
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Attributes:
    files: name -> size in bytes and hash, of every file but the manifest.
    curves: name -> `curve_digest` of the record's.
    """

    version: int
    files: dict[str, Entry]
    curves: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Card:
    """What a card says, checked for form, not for truth: that is `python -m vdm verify`'s business.

    Attributes:
      config: resolved; perhaps not the record's.
      pins: package -> version that its lock has for this Python and platform.
      weights: of its averaged parameters' file; None if it has none.
    """

    config: dict[str, Any]
    record: Record
    replay: Replay
    pins: dict[str, str]
    weights: Path | None


def curve_digest(curve: record.Curve) -> str:
    """SHA-256 of the canonical JSON of a curve's points."""
    return hashlib.sha256(identity.canonical_json([list(point) for point in curve]).encode()).hexdigest()


def require_vacant(folder: Path) -> None:
    """Raises ValueError, before anything is computed, where a card cannot be written: the folder has other files, or
    files of a card's names and is none.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the card")
    found = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    other = [name for name in found if name not in (*FILES, *HUBS_OWN)]
    if other:
        raise ValueError(f"{folder} holds {', '.join(other[:8])}, which is no part of a card; give another --out")
    replaced = [name for name in found if name not in HUBS_OWN]
    if replaced and MANIFEST not in replaced:
        raise ValueError(
            f"{folder} holds {', '.join(replaced)} and no {MANIFEST}: no card, and a card would replace it; move it "
            "away, or give another --out"
        )


def write(folder: Path, files: Mapping[str, bytes], done: Record) -> None:
    """Writes a card's files, and the manifest last. The card that was there before is overwritten.

    Raises:
      ValueError: a file is missing, unknown or beyond its bound.
    """
    for name, content in files.items():
        _require_known(folder, name, len(content))
    _require_complete(folder, files)
    require_vacant(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    entries = {name: Entry(len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()}
    manifest = Manifest(VERSION, entries, {name: curve_digest(curve) for name, curve in done.curves.items()})
    for name, content in {**files, MANIFEST: schema.dumps(manifest, MANIFEST).encode()}.items():
        write_whole(epath.Path(folder / name), content)


def read(folder: Path) -> Card:
    """Reads a card without trusting it.

    Raises:
      ValueError: it is not a card, or one that breaks the rules above; says which file, and what to do.
    """
    try:
        return _read_card(folder)
    except RecursionError as error:
        raise ValueError(f"a file of {folder} is nested too deep. {_ANEW}") from error


def _read_card(folder: Path) -> Card:
    _require_plain(folder)
    manifest = schema.loads(Manifest, _read(folder, MANIFEST, None).decode(errors="replace"), MANIFEST, VERSION)
    for name, entry in manifest.files.items():
        _require_known(folder, name, entry.size)
    _require_complete(folder, manifest.files)
    present = {entry.name for entry in os.scandir(folder)} - {MANIFEST, *HUBS_OWN}
    if present != manifest.files.keys():
        unlike = sorted(present ^ manifest.files.keys())
        raise ValueError(f"{folder} and its {MANIFEST} do not list the same files: {', '.join(unlike)}. {_ANEW}")
    text = {name: _text(folder, name, manifest) for name in (PAGE, CONFIG, RECORD, REPLAY, LOCK)}
    for name, begin in _BEGINS.items():
        if not _read(folder, name, manifest.files[name]).startswith(begin):
            raise ValueError(f"{folder / name} does not begin as such a file does. {_ANEW}")
    done = record.loads(text[RECORD], RECORD)
    curves = {name: curve_digest(curve) for name, curve in done.curves.items()}
    if curves != manifest.curves:
        raise ValueError(f"the curves of {folder / RECORD} are not those of {MANIFEST}. {_ANEW}")
    has_weights = WEIGHTS in manifest.files
    if has_weights:
        _require_hash(folder, WEIGHTS, manifest.files[WEIGHTS])
        weights.check(folder / WEIGHTS, done.num_parameters)
    made, locked = _replay(text[REPLAY]), manifest.files[LOCK].sha256
    if made.inputs.environment.lock_sha256 != locked:
        raise ValueError(f"{folder / LOCK} is not the lock that {REPLAY} names. {_ANEW}")
    return Card(
        config=_object(schema.strict(text[CONFIG], CONFIG)),
        record=done,
        replay=made,
        pins=lock.pinned(text[LOCK], LOCK),
        weights=folder / WEIGHTS if has_weights else None,
    )


_ALLOWED = ", ".join(FILES)
_ANEW = "Get the card anew from whom you have it."


def _require_plain(folder: Path) -> None:
    """Refuses what is no folder of plain files, by their names alone."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; name the folder of a card, which holds {MANIFEST}")
    for entry in os.scandir(folder):
        if entry.name in HUBS_OWN:
            continue
        if entry.name not in FILES:
            raise ValueError(f"{entry.path!a} is no file of a card; allowed are {_ALLOWED}. Remove it")
        if entry.is_symlink():
            raise ValueError(
                f"{entry.path} is a link; a card is plain files. Where a hub's cache made it, download to a folder of "
                "your own (hf download --local-dir=...)"
            )
        if not entry.is_file(follow_symlinks=False):
            raise ValueError(f"{entry.path} is no plain file. {_ANEW}")
    if not (folder / MANIFEST).exists():
        raise ValueError(f"{folder} holds no {MANIFEST}; name the folder of a card")


def _require_known(folder: Path, name: str, size: int) -> None:
    """By the name as it is written: it is no path."""
    if name not in FILES or name == MANIFEST:
        raise ValueError(f"{MANIFEST} of {folder} lists {name!a}, which is no file of a card; allowed are {_ALLOWED}")
    if not 0 <= size <= FILES[name]:
        raise ValueError(f"{folder / name} has {size} bytes; at most {FILES[name]} are allowed")


def _require_complete(folder: Path, files: Mapping[str, Any]) -> None:
    missing = [name for name in FILES if name not in (MANIFEST, *OPTIONAL) and name not in files]
    if missing:
        raise ValueError(f"the card {folder} lacks {', '.join(missing)}. {_ANEW}")


@contextlib.contextmanager
def _opened(folder: Path, name: str, entry: Entry | None) -> Iterator[BinaryIO]:
    """The file, if it is a plain one of the size that the manifest says (None: of the manifest itself)."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"{folder / name} cannot be opened ({error.strerror}). {_ANEW}") from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{folder / name} is no plain file. {_ANEW}")
        if status.st_size > FILES[name]:
            raise ValueError(f"{folder / name} has {status.st_size} bytes; at most {FILES[name]} are allowed")
        if entry is not None and status.st_size != entry.size:
            raise ValueError(f"{folder / name} has {status.st_size} bytes; {MANIFEST} says {entry.size}. {_ANEW}")
        yield file


def _read(folder: Path, name: str, entry: Entry | None) -> bytes:
    with _opened(folder, name, entry) as file:
        content = file.read(FILES[name] + 1)
    if entry is not None:
        _compare_hash(folder / name, hashlib.sha256(content).hexdigest(), entry)
    return content


def _require_hash(folder: Path, name: str, entry: Entry) -> None:
    digest = hashlib.sha256()
    with _opened(folder, name, entry) as file:
        while part := file.read(_CHUNK):
            digest.update(part)
    _compare_hash(folder / name, digest.hexdigest(), entry)


def _compare_hash(path: Path, found: str, entry: Entry) -> None:
    if found != entry.sha256:
        raise ValueError(
            f"{path} is not what {MANIFEST} says: its SHA-256 is {found[:12]}..., not the one listed. {_ANEW}"
        )


def _text(folder: Path, name: str, manifest: Manifest) -> str:
    try:
        return _read(folder, name, manifest.files[name]).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder / name} is no UTF-8 text ({error.reason}). {_ANEW}") from error


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{CONFIG} is a {type(value).__name__}; it must be an object. {_ANEW}")
    return value


def _replay(text: str) -> Replay:
    made = schema.loads(Replay, text, REPLAY, replay.VERSION)
    if not 1 <= len(made.losses) == len(made.gradient_norms) <= replay.NUM_STEPS:
        raise ValueError(
            f"{REPLAY} has {len(made.losses)} losses and {len(made.gradient_norms)} gradient norms; it must have as "
            f"many of each, 1 to {replay.NUM_STEPS}. {_ANEW}"
        )
    return made
