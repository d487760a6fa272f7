"""The tables of the two READMEs, made from the records alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.objectives import grid
from vdm.records import comparison, statistics
from vdm.records.comparison import OverSeeds
from vdm.records.readme import replace_block, table
from vdm.records.statistics import Interval

HERE = Path(__file__).parent
PAGE, FRONT_PAGE = HERE / "README.md", HERE.parents[1] / "README.md"
VALID, BITS = grid.SCORES
OUTCOMES = {VALID: "%", BITS: ""}  # -> unit
ROUTES = dict(zip(grid.OUTCOMES["floor"], ("discrete bound", "continuous bound", "flow"), strict=True))
ROUTES_BEFORE = (
    "Bits/dim of a chain of 1,000 steps by three routes, against what the world itself needs for the same clips:"
)
MISSING = "Not computed yet."

Record = Mapping[str, Any]


def pages(records: Mapping[str, Record]) -> dict[Path, str]:
    """What the READMEs should be: the text of each with its tables between their markers."""
    makers = {"factorial": factorial, "density": density, "presets": presets, "floor": floor}
    made = {study: makers[study](records[study]) if study in records else MISSING for study in grid.STUDIES}
    page = PAGE.read_text()
    for study, text in made.items():
        page = replace_block(page, study, text)
    front = replace_block(FRONT_PAGE.read_text(), "objectives", made["presets"])
    routes = f"{ROUTES_BEFORE}\n\n{made['floor']}" if "floor" in records else ""
    return {PAGE: page, FRONT_PAGE: replace_block(front, "floor", routes)}


def presets(record: Record) -> str:
    """An arm a row: what was chosen, scores by its own sampler and by the common ones, bits/dim, and what the primary
    outcomes do not tell it from.
    """
    common = [f"valid clips, common_{count}" for count in grid.EVALUATIONS]
    heads = ["objective", "rate, average", "valid %: own sampler", *(f"shared, {count}" for count in grid.EVALUATIONS)]
    heads += ["bits/dim: bound", "flow", "ties in valid (shared, 64)", "ties in bits/dim (bound)"]
    rows = []
    pairs = over_seeds(record)
    for arm in arms(record):
        scores = [shown(record, arm, name) for name in ("valid clips", *common, BITS, "bits/dim (flow)")]
        rows.append([arm, rate(record, arm), *scores, *(not_separated(pairs, arm, name) for name in (VALID, BITS))])
    return "\n".join([table(heads, rows), "", *worth_of_pairing(pairs), *notes(record)])


def worth_of_pairing(pairs: Sequence[OverSeeds]) -> Iterator[str]:
    """How the arms' values go together over seeds; nothing for fewer than three seeds."""
    found = {outcome: [one.correlation for one in pairs if one.metric == outcome] for outcome in OUTCOMES}
    known = {outcome: [value for value in values if value is not None] for outcome, values in found.items()}
    if all(known.values()):
        told = " and ".join(f"{np.median(values):.2f} in {outcome}" for outcome, values in known.items())
        yield f"- Over seeds, two arms' values correlate by {told} (medians over pairs): what pairing by seed is worth."


def factorial(record: Record) -> str:
    """Two tables of target by weight, and the main effects."""
    weights = [title for title, _ in grid.WEIGHTS.values()]
    parts = []
    for outcome, title in ((VALID, "Valid clips by the common sampler"), (BITS, "Bits/dim by the bound")):
        rows = [[target, *(shown(record, f"{target}, {one}", outcome) for one in weights)] for target in grid.TARGETS]
        parts += [f"{title}:", "", table(["target \\ weight", *weights], rows), ""]
    return "\n".join([*parts, *differences("Main effects", main_effects(record)), *notes(record)])


def density(record: Record) -> str:
    """A way of drawing a row: the gradient's variance against even levels, and what came of it."""
    found = of_densities(record)
    rows = []
    for arm in arms(record):
        shows = ("{:.2f}" if outcome == grid.VARIANCE else "{:.4f}" for outcome in found)
        cells = (
            spell(interval(of_arms[arm]), show.format) for show, of_arms in zip(shows, found.values(), strict=True)
        )
        rows.append([arm, *cells])
    pairs = compared(record, [(outcome, of_arms, "") for outcome, of_arms in found.items()])
    told = differences("Differences, seed by seed", pairs)
    return "\n".join([table(["levels", *found], rows), "", *told, *notes(record)])


def of_densities(record: Record) -> dict[str, dict[str, list[float]]]:
    """Outcome of `grid.OUTCOMES` -> arm -> its values over seeds."""
    even, _ = grid.DENSITIES[grid.EVEN]
    variances = [record["gradient_variance"][str(seed)] for seed in seeds(record)]
    found = {grid.VARIANCE: {arm: [one[arm] / one[even] for one in variances] for arm in arms(record)}}
    for place, (step, _) in enumerate(record["runs"][0]["noise_error"]):
        of_arms = {arm: [run["noise_error"][place][1] for run in runs(record, arm)] for arm in arms(record)}
        found[f"noise error, step {step}"] = of_arms
    return found


def floor(record: Record) -> str:
    """A route a row: bits/dim and how far they are above what the world itself needs for the same clips."""
    rows = []
    for arm, (name, route) in itertools.product(arms(record), ROUTES.items()):
        values = of_seeds(record, arm, name)
        beyond = interval([value - record["floor"] for value in values])
        within = np.mean([(high - low) / 2 for _, low, high in limits(record, arm, name)])
        rows.append([arm, route, shown(record, arm, name), f"± {within:.3f}", spell(beyond, "{:+.3f}".format)])
    rows.append(["the world itself", "known", f"{record['floor']:.3f}", "", ""])
    heads = ["objective", "route", "bits/dim", "95 % over clips", "above the floor"]
    told = differences("Between routes, and between objectives by one route", between_routes(record))
    return "\n".join([table(heads, rows), "", *told, *notes(record)])


def between_routes(record: Record) -> tuple[OverSeeds, ...]:
    """Every two routes of an objective, and every two objectives by a route, paired by seed and corrected together."""
    values = {arm: {route: of_seeds(record, arm, name) for name, route in ROUTES.items()} for arm in arms(record)}
    by_route = {route: {arm: of_arm[route] for arm, of_arm in values.items()} for route in ROUTES.values()}
    return compared(record, [(of, sides, "") for of, sides in (*values.items(), *by_route.items())])


def main_effects(record: Record) -> tuple[OverSeeds, ...]:
    """Of target and weight, each averaged over the other and paired by seed; all corrected together (Holm)."""
    weights = [title for title, _ in grid.WEIGHTS.values()]

    def means(outcome: str, titles: Sequence[str]) -> np.ndarray:
        return np.mean([of_seeds(record, title, outcome) for title in titles], axis=0)

    effects = []
    for outcome, unit in OUTCOMES.items():
        of_target = {one: means(outcome, [f"{one}, {weight}" for weight in weights]) for one in grid.TARGETS}
        of_weight = {f"w = {one}": means(outcome, [f"{target}, {one}" for target in grid.TARGETS]) for one in weights}
        effects += [(outcome, levels, unit) for levels in (of_target, of_weight)]
    return compared(record, effects)


def over_seeds(record: Record) -> tuple[OverSeeds, ...]:
    """Every two arms by both outcomes, paired by seed and corrected together."""
    values = {outcome: {arm: of_seeds(record, arm, outcome) for arm in arms(record)} for outcome in OUTCOMES}
    return compared(record, [(outcome, values[outcome], unit) for outcome, unit in OUTCOMES.items()])


def compared(
    record: Record, outcomes: Sequence[tuple[str, Mapping[str, Sequence[float] | np.ndarray], str]]
) -> tuple[OverSeeds, ...]:
    """Every two sides of each (outcome, side -> its values over seeds, unit); nothing for a single seed."""
    if len(seeds(record)) < 2:
        return ()
    return comparison.corrected([pair for outcome in outcomes for pair in comparison.paired(*outcome)])


def differences(title: str, entries: Sequence[OverSeeds]) -> list[str]:
    """The parts of a page with a table of pairs; none without pairs."""
    if not entries:
        return []
    heads = ["outcome", "first", "second", "difference", "p (Holm)", ""]
    count = (
        f"An interval is of its pair alone; p, by which a pair is separated or not, is corrected for all {len(entries)}"
    )
    return [f"{title}:", "", table(heads, map(verdict, entries)), "", f"{count}.", ""]


def verdict(entry: OverSeeds) -> list[str]:
    difference = spell(entry.difference, signed(entry.unit))
    return [entry.metric, entry.first, entry.second, difference, f"{entry.p_value:.2g}", entry.verdict]


def signed(unit: str) -> Callable[[float], str]:
    return (lambda value: f"{100 * value:+.1f} %") if unit == "%" else "{:+.4f}".format


def not_separated(pairs: Sequence[OverSeeds], arm: str, outcome: str) -> str:
    """The arms that an outcome does not tell from this one."""
    own = [one for one in pairs if one.metric == outcome and arm in (one.first, one.second)]
    alike = [one.first if one.second == arm else one.second for one in own if one.verdict != "separated"]
    if not own:
        return "one seed"
    return "all" if len(alike) == len(own) else ", ".join(alike) or "none"


def rate(record: Record, arm: str) -> str:
    """The learning rate that was chosen, and with which average."""
    (chosen,) = (one for one in record["selections"] if one["arm"] == arm)
    at_the_end = "" if chosen["is_interior"] else ", the last one tried"
    return f"{chosen['rate']:.2g}, {chosen['average']}{at_the_end}"


def shown(record: Record, arm: str, name: str) -> str:
    """The mean over seeds with Student's interval."""
    unit = next(metric["unit"] for metric in runs(record, arm)[0]["metrics"] if metric["name"] == name)
    show = (lambda value: f"{100 * value:.1f}") if unit == "%" else "{:.3f}".format
    return spell(interval(of_seeds(record, arm, name)), show)


def spell(over: Interval | float, show: Callable[[float], str]) -> str:
    if isinstance(over, float):
        return show(over)
    return f"{show(over.estimate)} ({over.limits(show)})"


def interval(values: Sequence[float]) -> Interval | float:
    """A single seed has none."""
    return statistics.mean_of_few(np.array(values)) if len(values) > 1 else float(values[0])


def limits(record: Record, arm: str, name: str) -> Iterator[tuple[float, float, float]]:
    """(value, low, high) of every seed, in their order."""
    for run in runs(record, arm):
        (metric,) = (metric for metric in run["metrics"] if metric["name"] == name)
        yield metric["value"], metric["low"], metric["high"]


def of_seeds(record: Record, arm: str, name: str) -> list[float]:
    return [value for value, _, _ in limits(record, arm, name)]


def runs(record: Record, arm: str) -> list[Mapping[str, Any]]:
    return sorted((run for run in record["runs"] if run["arm"] == arm), key=lambda run: run["seed"])


def arms(record: Record) -> list[str]:
    return list(dict.fromkeys(run["arm"] for run in record["runs"]))


def seeds(record: Record) -> list[int]:
    return sorted({run["seed"] for run in record["runs"]})


def affinities(record: Record, seed: int) -> list[list[int]]:
    """The cores that each run of a seed had."""
    ran = (record["environments"][run["environment"]] for run in record["runs"] if run["seed"] == seed)
    return [one["affinity"] for one in ran]


def notes(record: Record) -> Iterator[str]:
    """How much of the study this is, and what it took."""
    done, asked = seeds(record), record["seeds_asked_for"]
    environment, *_ = record["environments"]
    commits = dict.fromkeys((one["code"]["commit"] or "unknown")[:12] for one in record["environments"])
    cores = {seed: {tuple(affinity) for affinity in affinities(record, seed)} for seed in done}
    is_shared = all(len(of_seed) == 1 for of_seed in cores.values())
    each = "the runs of a seed on the same one of them" if is_shared else "one for each of two runs at a time"
    seconds = np.array([[sum(run["timings"].values()), run["timings"].get("evaluate", 0.0)] for run in record["runs"]])
    training, evaluation = (seconds[:, 0] - seconds[:, 1]) / 60, seconds[:, 1] / 60
    run = record["runs"][0]
    yield (
        f"- {len(done)} of {len(asked)} seeds of {run['num_parameters']:,} parameters; {run['num_steps']} steps and "
        f"{run['flops']:.2g} FLOPs a run, {training.mean():.1f} minutes of training (the longest "
        f"{training.max():.1f}) and {evaluation.mean():.1f} of evaluation; the runs that chose the rates come on top. "
        "Intervals are Student's over seeds (95 %)."
    )
    yield (
        f"- {environment['num_cpus']} CPU cores, {each}; jax "
        f"{environment['versions']['jax']}, commit {', '.join(commits)}."
    )
