"""The command line that the studies share: compute what is missing, write the pages from the records, or check them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def main(
    study: str,
    doc: str | None,
    *,
    compute: Callable[[str | None], None],
    pages: Callable[[], Mapping[Path, str]],
    figures: Callable[[], None] = lambda: None,
    parts: Sequence[str] = (),
) -> None:
    """Exits with a message where `--check` finds a page that is not that of its records.

    Args:
      study: the module, for the message.
      doc: what `--help` says.
      compute: of one part, or, given None, of all that is missing; writes records.
      pages: path -> the text that it should have, from the records.
      figures: drawn from the records.
      parts: that `--only` takes; none: there is no such option.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    if parts:
        what.add_argument("--only", choices=parts, metavar="NAME", help=f"one of {', '.join(parts)}")
    what.add_argument("--draw", action="store_true", help="compute nothing; write pages and figures from the records")
    what.add_argument("--check", action="store_true", help="compute and write nothing; compare the pages")
    given = vars(parser.parse_args())
    if given["check"]:
        stale = [str(path) for path, text in pages().items() if text != path.read_text()]
        if stale:
            sys.exit(f"not those of the records: {', '.join(stale)}; run python -m {study} --draw, or undo the edit")
        return
    if not given["draw"]:
        compute(given["only"] if parts else None)
    draw(pages, figures)


def draw(pages: Callable[[], Mapping[Path, str]], figures: Callable[[], None] = lambda: None) -> None:
    """Writes pages and figures from the records as they are."""
    figures()
    for path, text in pages().items():
        path.write_text(text)
