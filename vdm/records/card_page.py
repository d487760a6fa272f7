"""The README.md of a card: YAML for the hub, samples, scores with their protocols, and how to check it all."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping

from vdm.records import card, identity
from vdm.records.readme import table
from vdm.records.record import Metric, Record
from vdm.records.replay import TOLERANCES, Replay

TAGS = ("video-diffusion", "jax")


def render(done: Record, replay: Replay, files: Mapping[str, bytes]) -> str:
    """The page. Every word from the record is escaped, and the strings of the YAML are JSON, which YAML reads."""
    sections = (
        _front_matter(done),
        _about(done),
        _scores(done),
        _protocols(done),
        _check(replay),
        _made_with(replay),
        _files(files),
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(done: Record) -> str:
    tags = "\n".join(f"- {json.dumps(tag)}" for tag in (*TAGS, done.config["data"]["name"]))
    return f"---\nlibrary_name: vdm\ntags:\n{tags}\n---"


def _about(done: Record) -> str:
    data, objective = done.config["data"], done.config["objective"]
    size = f"{data['num_frames']} x {data['height']} x {data['width']}"
    return (
        f"# {_word(done.name)}\n\n"
        f"![Samples: {_word(done.name)}]({card.SAMPLES})\n\n"
        f"A video diffusion model of {done.num_parameters:,} parameters, trained for {done.evaluated_step} steps of "
        f"{data['batch_size']} clips of {size} (frames x height x width) of {_word(data['name'])}, whose fingerprint "
        f"is `{_word(done.data_fingerprint)}`; schedule {_word(done.config['schedule']['name'])}, target "
        f"{_word(objective['target'])}, weighting {_word(objective['weighting']['name'])}. Run "
        f"`{done.identity_hash}`. Clip by clip, frame by frame: [{card.SHEET}]({card.SHEET})."
    )


def _scores(done: Record) -> str:
    numbers = {protocol: number for number, protocol in enumerate(_distinct(done), start=1)}
    heads = ("score", "value", "95 %", "of the data themselves", "of infinitely many samples", "protocol")
    rows = [
        (
            _word(metric.name),
            _value(metric, metric.value),
            _interval(metric),
            *("" if value is None else _value(metric, value) for value in (metric.floor, metric.at_infinity)),
            str(numbers[identity.canonical_json(metric.protocol)]),
        )
        for metric in done.metrics
    ]
    rows += [
        (f"{_word(name)} at log-SNR {log_snr:g}", f"{loss:.4g}", "", "", "", "held-out clips")
        for name, points in done.level_losses.items()
        for log_snr, loss in points
    ]
    return f"## Scores\n\n{table(heads, rows)}"


def _protocols(done: Record) -> str:
    """Each on a line of its own: JSON without line breaks cannot leave its fence."""
    lines = ["All numbers are of the averaged parameters. The protocols that the scores name:", ""]
    for number, protocol in enumerate(_distinct(done), start=1):
        lines += [f"{number}.", "", "```json", protocol, "```", ""]
    return "\n".join(lines).rstrip()


def _distinct(done: Record) -> tuple[str, ...]:
    return tuple(dict.fromkeys(identity.canonical_json(metric.protocol) for metric in done.metrics))


def _check(replay: Replay) -> str:
    met, num_steps = replay.of_the_run, len(replay.losses)
    passed = "" if met is None else f" They pass through {met.num_points} points of the run's curve: {met.verdict}."
    tolerances = ", ".join(f"{tolerance:g} in {dtype}" for dtype, tolerance in TOLERANCES.items())
    return (
        "## Check it\n\n"
        "```bash\n"
        "python -m vdm verify THIS_FOLDER           # the first steps: bitwise equal, within tolerance or different\n"
        "python -m vdm verify THIS_FOLDER --full    # all steps and the scores\n"
        "```\n\n"
        f"`{card.REPLAY}` has loss and gradient norm of the first {num_steps} steps to the last bit.{passed} "
        "XLA repeats them bitwise on one kind of device with the same versions, flags and number of CPU threads (a GPU "
        f"needs its deterministic flags). Elsewhere the tolerance is, relative, {tolerances}."
    )


def _made_with(replay: Replay) -> str:
    environment = replay.inputs.environment
    code = environment.code
    facts = {
        "code": f"{code.commit or code.note}{' with changes' if code.dirty else ''}",
        "lock": f"{card.LOCK}, SHA-256 {environment.lock_sha256}",
        "versions": ", ".join(f"{name} {version}" for name, version in environment.versions.items()),
        "devices": ", ".join(f"{number} x {kind}" for kind, number in environment.devices.items()),
        "CPU threads": str(len(environment.affinity)),
        "flags": " ".join(f"{name}={value}" for name, value in environment.flags.items()) or "none",
        "mesh": ", ".join(f"{axis}={size}" for axis, size in replay.inputs.mesh.items()),
    }
    return "\n".join(
        ["## Made with", "", "| | |", "|---|---|", *(f"| {name} | {_word(value)} |" for name, value in facts.items())]
    )


def _files(files: Mapping[str, bytes]) -> str:
    meanings = {
        card.CONFIG: "the resolved config; the rest has the defaults of the code",
        card.RECORD: "what the run did: starts, environments, curves, scores with their protocols",
        card.REPLAY: "the first steps",
        card.LOCK: "the lock of the packages",
        card.SHEET: "samples, a clip a row",
        card.SAMPLES: "samples, moving",
        card.WEIGHTS: "the averaged parameters",
        card.MANIFEST: "size and SHA-256 of each, and digests of the curves",
    }
    kept = (name for name in meanings if name in files or name == card.MANIFEST)
    return "\n".join(["## Files", "", *(f"- [{name}]({name}): {meanings[name]}" for name in kept)])


def _value(metric: Metric, value: float) -> str:
    return f"{value:.1%}" if metric.unit == "%" else f"{value:.4g} {_word(metric.unit)}".strip()


def _interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"{_value(metric, metric.low)} to {_value(metric, metric.high)}"


def _word(text: str) -> str:
    """The text in a line or a cell of Markdown."""
    escaped = html.escape(text.replace("\n", " "), quote=False)
    return escaped.translate({ord(letter): f"&#{ord(letter)};" for letter in "|`[]"})
