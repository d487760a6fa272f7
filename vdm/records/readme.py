"""The generated parts of a Markdown page: what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def block(page: str, name: str) -> str:
    """What stands between the markers; empty where they are missing."""
    begin, end = _markers(name)
    return page.partition(begin)[2].partition(end)[0]


def replace_block(page: str, name: str, content: str) -> str:
    """The page with `content` between the markers. ValueError for a page without the two, in order."""
    begin, end = _markers(name)
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the page needs the lines {begin} and {end}, in this order; {name} goes between them")
    return f"{before}{begin}\n{content}\n{end}{after}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
