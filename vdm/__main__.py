"""python -m vdm VERB --config=configs/NAME.py --workdir=DIR [--config.KEY=VALUE ...]

`plan` needs no --workdir, `publish` no --config, and `verify` takes the folder of a card in place of both.

Verbs:
{verbs}

`python -m vdm VERB --help` explains one. Every key of a config can be overridden on the command line, as in
`--config.optimizer.learning_rate=1e-3`; configs/base.py lists them all.

Exit codes: 0 done; 1 it ran and failed (a loss that is not finite, a full disk, an arm that failed, a line of a
comparison that is not passed, a card that is different); 2 refused before any compute; 75 ended because another process
of the run is gone, 143 stopped by SIGTERM after saving: after either the same command, for all processes, goes on.
"""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from vdm.runtime.host_memory import keep_freed_memory
from vdm.runtime.processes import JobFailed

VERBS = {
    "train": "train one config, or go on where its work directory stopped",
    "sample": "draw clips from a trained run: MP4, GIF and a contact sheet",
    "evaluate": "score a trained run: losses per noise level, and what an oracle reads from its samples",
    "compare": "train and evaluate a grid of configs on the same data, noise and network: report.html",
    "plan": "compile a config's step for TPUs that need not be there: does it fit, and what bounds it",
    "check": "check on this machine that its compiler and devices compute what they should",
    "publish": "write a card of a trained and evaluated run, for others to run again and check",
    "verify": "check a card: its environment, its first steps or all of them, and its scores",
}
SAVES_ON_SIGTERM = ("train",)
MEANINGS = {  # of what a verb may take besides its options
    "config": "the experiment: a file of configs/",
    "workdir": "where the run lives, created where needed",
    "card": "the folder of a card",
}
EXAMPLES = {"config": "configs/NAME.py", "workdir": "DIR", "card": ""}
UNNAMED = ("card",)  # of these, what is written without its name


def main(argv: Sequence[str]) -> int:
    """Returns the exit code that the module's docstring explains."""
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print((__doc__ or "").format(verbs="\n".join(f"  {name:<10}{what}" for name, what in VERBS.items())))
        return 0
    if argv[1] not in VERBS:
        print(f"error: unknown verb {argv[1]!r}; the verbs are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    keep_freed_memory()
    verb = importlib.import_module(f"vdm.{argv[1]}")
    if any(word in ("-h", "--help") for word in argv[2:]):
        print(_help(argv[1], verb))
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    # One flag set a call, so that verbs can be called twice in one process. absl's global flags are marked as parsed
    # because grain's worker processes read them.
    values = _flags(verb.OPTIONS, _places(verb), argv[1:])
    flags.FLAGS.mark_as_parsed()
    from vdm.runtime import distributed  # it imports JAX: see keep_freed_memory

    return distributed.ended(lambda: _run(verb, values, argv[1:]))


def _run(verb, values: flags.FlagValues, arguments: Sequence[str]) -> int:
    from vdm import build
    from vdm.runtime import distributed

    try:
        places = _places(verb)
        _parse(values, places, arguments)
        if {"config", "workdir"} <= set(places):  # what trains or looks at no run is one process
            several = values.config.run.distributed
            way = build.lookup(distributed.WAYS, several.name, "run.distributed.name")
            distributed.start(way, several, saves_on_sigterm=arguments[0] in SAVES_ON_SIGTERM)
        given = [values[name].value for name in places]
        return verb.main(*given, **{name: values[name].value for name, _, _ in verb.OPTIONS})
    except (ValueError, FloatingPointError, JobFailed, OSError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        print(f"error: {_printable(str(error))}\n  (raised in {last.filename}, line {last.lineno})", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def _printable(text: str) -> str:
    """The text with control characters spelled out: what an error names may come from a stranger's file."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def _places(verb) -> tuple[str, ...]:
    """What every call of the verb must give: a config and a work directory, unless the verb's TAKES says otherwise."""
    return getattr(verb, "TAKES", ("config", "workdir"))


def _flags(options, places: Sequence[str], arguments: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    for name in places:
        if name == "config":
            config_flags.DEFINE_config_file(name, help_string="", flag_values=values, sys_argv=list(arguments))
        else:
            flags.DEFINE_string(name, None, MEANINGS[name], flag_values=values)
    define = {int: flags.DEFINE_integer, bool: flags.DEFINE_bool, str: flags.DEFINE_string}
    for name, default, meaning in options:
        define[type(default)](name, default, meaning, flag_values=values)
    return values


def _parse(values: flags.FlagValues, places: Sequence[str], arguments: Sequence[str]) -> None:
    try:
        rest = values(list(arguments))
        if "config" in places and values.config is not None:
            _ = values.config.to_dict  # a file that cannot be loaded says so at the first touch
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{error}. configs/base.py lists every key with its meaning.") from error
    for name, word in zip((name for name in places if name in UNNAMED), rest[1:], strict=False):
        values[name].value = word
        rest.remove(word)
    if len(rest) > 1:
        raise ValueError(f"cannot read {' '.join(rest[1:])!r}; options are written as --name=value")
    for name in places:
        if values[name].value is None:
            raise ValueError(
                f"{_written(name, '...')} is missing; `python -m vdm {arguments[0]} --help` shows an example"
            )


def _written(place: str, value: str) -> str:
    return place.upper() if place in UNNAMED else f"--{place}={value}"


def _help(name: str, verb) -> str:
    places = _places(verb)
    options = [(name.upper() if name in UNNAMED else f"--{name}", MEANINGS[name]) for name in places]
    options += [(f"--{option}", f"{meaning} (default: {default})") for option, default, meaning in verb.OPTIONS]
    if "config" in places:
        options.append(
            ("--config.KEY=VALUE", "override any key of the config; configs/base.py lists them with their meaning")
        )
    lines = [f"  {option:<24}{meaning}" for option, meaning in options]
    command = " ".join(_written(place, EXAMPLES[place]) for place in places)
    return f"python -m vdm {name} {command}\n\n{verb.__doc__.strip()}\n\nOptions:\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
