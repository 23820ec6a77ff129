"""The tables of the report."""

from collections.abc import Iterable

import numpy as np

from data_tools.shapes import CATEGORIES
from data_tools.shapes.words import OPTIONS
from pipelines.shapes_study.markdown import bold_if_clear, head
from pipelines.shapes_study.paired import Variances
from pipelines.shapes_study.power import Pilot, Plan, cheapest, plan_of, pooled
from pipelines.shapes_study.seeds import mean, percent
from pipelines.shapes_study.strategies.config import MAIN, StrategiesConfig
from pipelines.shapes_study.strategies.likeness import AWAY, LEVELS, OCTAVES
from pipelines.shapes_study.strategies.making import CEILINGS, GENERATION, KINDS
from pipelines.shapes_study.strategies.results import Results
from pipelines.shapes_study.strategies.series import UNDERSTANDING, compared, of_category, parts_of, series, values_of
from pipelines.shapes_study.strategies.world import NEW

Rows = dict[str, tuple[str, str]]  # by the row's title, the arm and the series


def accuracy_table(results: Results, rows: Rows, split: str = NEW) -> str:
    """Returns a Markdown table of accuracies in percent, means over seeds, with a row of chance.

    Args:
        results: The study's measurements.
        rows: The rows; those that were not measured are left out. A row that has its arm's name shows its tokens.
        split: The split.
    """
    found = {
        title: (arm, values) for title, (arm, name) in rows.items() if (values := _columns(results, arm, name, split))
    }
    if not found:
        return ""
    names = _categories(results, next(iter(rows.values()))[1], split)
    lines = [head(["arm", "tokens", "seeds"], names)]
    for title, (arm, (seeds, cells)) in found.items():
        tokens = f"{results.arms[arm]['tokens']:.0f}" if title == arm else ""
        lines.append(f"| {title} | {tokens} | {seeds} | {' | '.join(map(percent, cells))} |")
    chance = {name: 1 / min(OPTIONS, len(CATEGORIES[name].answers)) for name in names}
    cells = [*chance.values(), sum(chance.values()) / len(chance)]
    return "\n".join([*lines, f"| *chance* | | | {' | '.join(map(percent, cells))} |"])


def ceiling_rows(results: Results, split: str = NEW) -> str:
    """Returns the rows of the ceilings for a table of videos' accuracies."""
    names = results.categories[GENERATION, split]
    lines = []
    for kind in CEILINGS:
        right = values_of(results.ceilings[kind, split], "")
        shares = [of_category(right, names, name).mean() for name in (*dict.fromkeys(names), None)]
        lines.append(f"| *{kind}* | | | {' | '.join(map(percent, shares))} |")
    return "\n".join(lines)


def difference_table(results: Results, first: str, arms: Iterable[str], name: str, split: str = NEW) -> str:
    """Returns a Markdown table of the arms' differences to the first one, paired; nothing without two seeds."""
    names = _categories(results, name, split)
    lines = []
    for arm in arms:
        pairs = [compared(results, arm, first, name, split, category) for category in (*names, None)]
        if arm != first and pairs[0].comparable:
            cells = [bold_if_clear(pair.difference) for pair in pairs]
            lines.append(f"| {arm} | {len(pairs[0].seeds)} | {' | '.join(cells)} |")
    return "\n".join([head(["arm", "seeds"], names), *lines]) if lines else ""


def likeness_table(results: Results, arms: Iterable[str], split: str = NEW) -> str:
    """Returns a Markdown table of accuracies and distances by arm and kind of video, with the ceilings."""
    lines = ["| videos | right in % | place, % of the width | size, octaves |\n|---|---|---|---|"]
    for arm in arms:
        for kind in KINDS:
            if right := series(results, arm, kind, split):
                place, size = (_mean(series(results, arm, f"{kind} {what}", split)) for what in ("place", "size"))
                lines.append(f"| {arm}, {kind} | {percent(_mean(right))} | {-100 * place:.1f} | {-size:.2f} |")
    for kind in CEILINGS:
        own = results.ceilings[kind, split]
        place, size = (most / LEVELS * np.mean(own[what]) for what, most in (("place", AWAY), ("size", OCTAVES)))
        lines.append(f"| *{kind}* | {percent(float(np.mean(own['right'])))} | {100 * place:.1f} | {size:.2f} |")
    return "\n".join(lines)


def power_table(config: StrategiesConfig, results: Results) -> str:
    """Returns a Markdown table: by protocol, the half-widths that were planned, those of this run, and what it takes.

    Those of this run are root mean squares over the main arms' differences to the first arm, from their variances.
    """
    lines = [
        "| protocol | variances from | of seed, item, rest | in a category | seeds | items a category | half-width "
        "| in a category |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for protocol, items in ((UNDERSTANDING, config.asked.questions), (GENERATION, config.asked.videos)):
        names, arms = _categories(results, protocol, NEW), len(config.arms)
        pilot = config.power.pilot_of(protocol)
        lines.append(_plan_row(protocol, "the pilot", pilot, plan_of(pilot, len(names), config.seeds, items, arms)))
        if own := measured_pilot(config, results, protocol):
            lines.append(_plan_row(protocol, "this run", own, plan_of(own, len(names), config.seeds, items, arms)))
            wanted = cheapest(
                own, len(names), config.power.over_all, config.power.category, *work(results, protocol), arms
            )
            lines.append(_plan_row(protocol, "this run: the least work that is enough", own, wanted))
    return "\n".join(lines)


def measured_pilot(config: StrategiesConfig, results: Results, protocol: str) -> Pilot | None:
    """Returns the variances, in squared points, of the main arms' differences to the first; ``None`` without any."""
    first, *others = [arm for arm in config.arms if MAIN in config.arms[arm].table]
    names = _categories(results, protocol, NEW)
    pairs = {arm: [compared(results, arm, first, protocol, category=name) for name in (None, *names)] for arm in others}
    found = [[pair.variances for pair in own] for own in pairs.values() if own[0].comparable]
    if not found:
        return None
    over_all, category = pooled(own[0] for own in found), pooled(parts for own in found for parts in own[1:])
    return Pilot(*(Variances(*(1e4 * part for part in parts)) for parts in (over_all, category)))


def seed_deviations(results: Results, protocol: str) -> dict[str, float]:
    """Returns the standard deviation of each arm's mean over seeds, less their common part, in points.

    It is over the seeds that all arms have; empty if these are fewer than two.
    """
    arms = {arm: own for arm in results.answers if (own := series(results, arm, protocol))}
    seeds = [seed for seed in next(iter(arms.values()), {}) if all(seed in own for own in arms.values())]
    if len(seeds) < 2 or len(arms) < 2:
        return {}
    means = 100 * np.array([[own[seed].mean() for seed in seeds] for own in arms.values()])
    rest = means - means.mean(1, keepdims=True) - means.mean(0) + means.mean()
    freedom = (len(seeds) - 1) * (len(arms) - 1) / len(arms)
    return dict(zip(arms, np.sqrt((rest**2).sum(1) / freedom).tolist()))


def work(results: Results, protocol: str) -> tuple[float, float]:
    """Returns the mean seconds of a training, and of an item."""
    item = "seconds_of_a_question" if protocol == UNDERSTANDING else "seconds_of_a_video"
    training, items = ([run[what] for run in results.runs.values()] for what in ("seconds", item))
    return mean(training), mean(items)


def _plan_row(protocol: str, source: str, pilot: Pilot, plan: Plan | None) -> str:
    told = " | ".join(", ".join(f"{part:.4g}" for part in parts) for parts in pilot)
    numbers = "too many | | | "
    if plan:
        numbers = f"{plan.seeds} | {plan.items} | {plan.over_all:.1f} | {plan.category:.1f}"
    return f"| {protocol} | {source} | {told} | {numbers} |"


def _columns(results: Results, arm: str, name: str, split: str) -> tuple[int, list[float]] | None:
    """Returns the number of seeds, and the mean of each category and of all; ``None`` if nothing was measured."""
    names = _categories(results, name, split)
    columns = [series(results, arm, name, split, category) for category in (*names, None)]
    return (len(columns[0]), [_mean(own) for own in columns]) if columns[0] else None


def _categories(results: Results, name: str, split: str) -> list[str]:
    """Returns the categories of a series."""
    return list(dict.fromkeys(results.categories[parts_of(name)[0], split]))


def _mean(values: dict[int, np.ndarray]) -> float:
    """Returns the mean over seeds and items."""
    return float(np.mean([own.mean() for own in values.values()]))
