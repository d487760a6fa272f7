"""From every number of a report's page a link leads to its runs and to its protocol, and what it leads to is there."""

import dataclasses
import itertools
import re

import pytest

from tests.records import examples
from vdm.records import page, page_links
from vdm.records.comparison import OverSeeds, PassLine, Selection, Spread, Tried

PLACES = re.compile(r"<tr\b.*?</tr>|<article\b.*?</article>", re.DOTALL)  # rows and cards; none lies in another


def links_of(place):
    return re.findall(r'href="#([^"]+)"', place)


def with_everything(num_pairs):
    """Arms with two seeds each and whatever a report can say of them."""
    made = examples.a_report_of_seeds()
    arms = tuple(dataclasses.replace(arm, flops=1e12) for arm in made.arms)
    tried = tuple(Tried(factor, 1e-3 * factor, {"long": abs(factor - 1)}) for factor in (0.5, 1.0, 2.0))
    metrics = itertools.islice(itertools.cycle(("valid clips", "valid clips, common_8")), num_pairs)
    return dataclasses.replace(
        made,
        arms=arms,
        over_seeds=tuple(OverSeeds(metric, "arm 0", "arm 1", (0.1, 0.2), "%", 0.04) for metric in metrics),
        pass_lines=(
            PassLine("valid clips", arms[1].title, 0.5, ">=", 0.4, "%"),
            PassLine("valid clips", "real clips", 1.0, ">=", 0.9, "%"),
        ),
        selections=(Selection("arm 0", tried), Selection("arm 1", tried)),
        spreads=(Spread("valid clips", "arm 1", "init", (0.5, 0.6), "%"),),
    )


@pytest.fixture(params=[2, 9], ids=["cards", "a table"])
def shown(request):
    return page.render(with_everything(request.param))


@pytest.mark.feature("O20")
def test_every_number_stands_in_a_row_that_leads_on(shown):
    ids = re.findall(r' id="([^"]+)"', shown)
    assert len(set(ids)) == len(ids) and set(links_of(shown)) <= set(ids)
    places = [place for place in PLACES.findall(shown) if 'class="num"' in place or "<dd>" in place]
    assert len(places) > 15
    for place in places:
        to_runs = [link for link in links_of(place) if link.startswith(("arm-", "run-"))]
        assert to_runs or ("real clips" in place and links_of(place)), place


@pytest.mark.feature("O20")
def test_a_verdict_leads_to_both_arms_and_to_the_protocol(shown):
    section = shown.split("Do the arms differ?")[1].split("</section>")[0]
    verdicts = [links_of(place) for place in PLACES.findall(section) if "separated" in place.lower()]
    assert len(verdicts) in (2, 9)
    assert {tuple(links) for links in verdicts} == {("arm-0", "arm-1", "protocol-1"), ("arm-0", "arm-1", "protocol-2")}


@pytest.mark.feature("O20")
def test_a_mean_leads_to_its_runs(shown):
    """The mean's row leads to the arm's title above where its runs come from, and these stand below it side by side."""
    scores = shown.split("mean over seeds</th>")[1].split("</tbody>")[0]
    assert [links_of(row) for row in scores.split("<tr>")[1:]] == [["arm-0"], ["arm-1"]]
    head, runs = shown.split("Where this comes from")[1].split("<table")[1].split("</tr>")[:2]
    assert re.findall(r'id="([^"]+)" colspan="(\d)"', head) == [("arm-0", "2"), ("arm-1", "2")]
    assert re.findall(r'id="([^"]+)"', runs) == ["run-0_0", "run-0_1", "run-1_0", "run-1_1"]


def test_a_title_leads_to_the_protocol_of_all_arms():
    """Runs that were each measured with their own seed have one protocol; of the others' seeds a page must tell."""
    arms = examples.a_report_of_seeds().arms
    found = page_links.protocols(arms)
    assert '"seed":"the run\'s"' in found["valid clips, common_8"][1]
    assert [number for number, _ in found.values()] == [1, 2, 3]
    strange = [
        dataclasses.replace(
            arm, record=dataclasses.replace(arm.record, seeds={"config": 7 + arm.record.seeds["config"]})
        )
        for arm in arms
    ]
    assert '"seed":1' in page_links.protocols(strange)["valid clips, common_8"][1]


def test_the_healthy_runs_numbers_lead_to_no_run_of_this_page():
    made = examples.a_report(num_clips=4)
    cards = PLACES.findall(page.render(made).split("Do the arms differ?")[1].split("</section>")[0])
    (healthy,) = (card for card in cards if "the healthy run" in card)
    assert not links_of(healthy) and all(links_of(card) for card in cards if card != healthy)
