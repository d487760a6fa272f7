"""python -m vdm VERB --config=configs/NAME.py --workdir=DIR [--config.KEY=VALUE ...]   (plan needs no --workdir)

Verbs:
{verbs}

`python -m vdm VERB --help` explains one. Every key of a config can be overridden on the command line, as in
`--config.optimizer.learning_rate=1e-3`; configs/base.py lists them all.

Exit codes: 0 done; 1 it ran and failed (a loss that is not finite, a full disk, an arm that failed, a line of a
comparison that is not passed); 2 refused before any compute; 75 ended because another process of the run is gone, 143
stopped by SIGTERM after saving: after either the same command, for all processes, goes on.
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
}
SAVES_ON_SIGTERM = ("train",)


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
        if "workdir" in places:  # what leaves nothing behind runs by itself
            several = values.config.run.distributed
            way = build.lookup(distributed.WAYS, several.name, "run.distributed.name")
            distributed.start(way, several, saves_on_sigterm=arguments[0] in SAVES_ON_SIGTERM)
        given = [values[name].value for name in places]
        return verb.main(*given, **{name: values[name].value for name, _, _ in verb.OPTIONS})
    except (ValueError, FloatingPointError, JobFailed, OSError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        print(f"error: {error}\n  (raised in {last.filename}, line {last.lineno})", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def _places(verb) -> tuple[str, ...]:
    """What every call of the verb must give: the config, and a work directory unless the verb leaves nothing there."""
    return ("config", "workdir") if getattr(verb, "NEEDS_WORKDIR", True) else ("config",)


def _flags(options, places: Sequence[str], arguments: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", help_string="the experiment", flag_values=values, sys_argv=list(arguments)
    )
    if "workdir" in places:
        flags.DEFINE_string("workdir", None, "where the run lives", flag_values=values)
    define = {int: flags.DEFINE_integer, bool: flags.DEFINE_bool, str: flags.DEFINE_string}
    for name, default, meaning in options:
        define[type(default)](name, default, meaning, flag_values=values)
    return values


def _parse(values: flags.FlagValues, places: Sequence[str], arguments: Sequence[str]) -> None:
    try:
        rest = values(list(arguments))
        if values.config is not None:
            _ = values.config.to_dict  # a file that cannot be loaded says so at the first touch
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{error}. configs/base.py lists every key with its meaning.") from error
    if len(rest) > 1:
        raise ValueError(f"cannot read {' '.join(rest[1:])!r}; options are written as --name=value")
    for name in places:
        if values[name].value is None:
            raise ValueError(f"--{name}=... is missing; `python -m vdm {arguments[0]} --help` shows an example")


def _help(name: str, verb) -> str:
    meanings = {
        "config": "the experiment: a file of configs/",
        "workdir": "where the run lives, created where needed",
    }
    options = [(place, meanings[place]) for place in _places(verb)]
    options += [(option, f"{meaning} (default: {default})") for option, default, meaning in verb.OPTIONS]
    lines = [f"  --{option:<22}{meaning}" for option, meaning in options]
    lines.append(
        f"  --{'config.KEY=VALUE':<22}override any key of the config; configs/base.py lists them with their meaning"
    )
    required = " --workdir=DIR" if "workdir" in _places(verb) else ""
    return (
        f"python -m vdm {name} --config=configs/NAME.py{required}\n\n{verb.__doc__.strip()}\n\nOptions:\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
