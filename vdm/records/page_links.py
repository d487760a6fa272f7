"""Where a report's page tells what a number comes from: the runs of an arm, and the protocol of a metric."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence

from vdm.records import comparison, identity
from vdm.records import page_parts as parts
from vdm.records.comparison import Arm


@dataclasses.dataclass(frozen=True)
class Links:
    """Anchors of the page.

    Attributes:
      arms: title of a run, or of an arm of the grid with its runs -> anchor.
      protocols: metric's name in the records -> number and text of its protocol, which is one for all arms.
    """

    arms: Mapping[str, str]
    protocols: Mapping[str, tuple[int, str]]

    def arm(self, title: str, slot: int | None = None) -> str:
        """The title, with the arm's mark where its slot is given."""
        return _linked(html.escape(title) if slot is None else parts.key(slot, title), self.arms.get(title))

    def run(self, arm: Arm, slot: int) -> str:
        return _linked(parts.key(slot, arm.title), of_run(arm))

    def metric(self, name: str, more: str = "") -> str:
        """The name, and more words that are no part of it."""
        number, _ = self.protocols.get(name, (None, ""))
        return _linked(html.escape(f"{name}{more}"), None if number is None else f"protocol-{number}")

    def protocol(self, name: str) -> str:
        """Of a metric that arms have, for beneath its title."""
        number, _ = self.protocols[name]
        return f'<small><a href="#protocol-{number}">protocol {number}</a></small>'


def of(arms: Sequence[Arm]) -> Links:
    grouped = {title: of_slot(slot) for slot, title in parts.legend(arms)}
    return Links(grouped | {arm.title: of_run(arm) for arm in arms}, protocols(arms))


def of_run(arm: Arm) -> str:
    """Where the page has the record of a run."""
    return html.escape(f"run-{arm.name}")


def of_slot(slot: int) -> str:
    """Where it has those of all runs of an arm of the grid."""
    return f"arm-{slot}"


def protocols(arms: Sequence[Arm]) -> dict[str, tuple[int, str]]:
    """Metric's name -> number and text of its protocol, in which a run's own seed is called so."""
    found = {
        metric.name: identity.canonical_json(comparison.protocol_of(arm, metric))
        for arm in arms
        for metric in arm.record.metrics
    }
    order = list(dict.fromkeys(found.values()))
    return {name: (order.index(text) + 1, text) for name, text in found.items()}


def _linked(content: str, anchor: str | None) -> str:
    return content if anchor is None else f'<a href="#{anchor}">{content}</a>'
