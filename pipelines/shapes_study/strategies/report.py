"""Writes the report: findings first, tables behind. All of it comes from a study's results and its settings."""

from pathlib import Path

from data_tools.shapes import TV_ALIGN
from pipelines.shapes_study.strategies.claims import HELD, REFUTED, UNDECIDED, Finding, findings, findings_table
from pipelines.shapes_study.strategies.config import MAIN, StrategiesConfig
from pipelines.shapes_study.strategies.making import AUTOENCODER, GENERATION, KINDS, TRUE
from pipelines.shapes_study.strategies.pictures import COST, GIFS, gif_name, plot_cost
from pipelines.shapes_study.strategies.results import Results
from pipelines.shapes_study.strategies.series import TRAINING_FREE, UNDERSTANDING, series
from pipelines.shapes_study.strategies.tables import (
    Rows,
    accuracy_table,
    ceiling_rows,
    difference_table,
    likeness_table,
    power_table,
    seed_deviations,
)
from pipelines.shapes_study.strategies.world import NEW, UNSEEN

REPORT = "report.md"
GROUPS = {
    MAIN: "Strategies",
    "spatial": "Spatial tokens",
    "temporal": "Motion tokens per second",
    "residual": "Cells of the residual in one motion token",
    "codecs": "Video codecs",
}


def write(folder: Path, config: StrategiesConfig, results: Results) -> Path:
    """Writes ``folder/report.md`` and the picture of costs; returns the report's path."""
    parts = [heading(config, results)]
    if results.answers:
        plot_cost(config, results, folder / COST)
        parts += [
            claims_section(findings(config.claims, results)),
            cost_section(folder),
            power_section(config, results),
            *tables(config, results),
            gifs_section(config, results),
        ]
    path = folder / REPORT
    path.write_text("\n\n".join(filter(None, parts)) + "\n")
    return path


def heading(config: StrategiesConfig, results: Results) -> str:
    """Returns the title, and what was run."""
    world, fit, own, asked = config.world, config.fit, config.own, config.asked
    parts = [
        "# Strategies in small",
        f"Made by {results.origin}, with the shipped models {results.models}; no number here was typed by hand.",
    ]
    if missing := sum(run not in results.runs for run in config.runs):
        done = len(config.runs) - missing
        parts.append(f"**Not finished**: {done} runs are done, {missing} are still to come.")
    parts.append(
        f"Every arm starts from the small models that the package ships. It trains on {world.train} clips of "
        f"{world.seconds:g} s, {config.seeds} seeds: {fit.steps} steps of {fit.batch_size}, in which half of the "
        f"samples train all losses and the others L_under alone; then {own.fit.steps} steps of {own.fit.batch_size}, "
        "in which half of the samples have visual tokens that the arm samples itself, and train L_dec alone. Clips, "
        "their order, prompts, noise and initial weights are the same in all arms. The main tables are about new "
        f"scenes of the training distribution: {asked.questions} questions and {asked.videos} videos a category. "
        "A video whose pixels decide nothing is wrong, so an arm can be below chance. Differences are paired by seed "
        "and item. Their 95 % interval is for other seeds and other items; the variance of seeds is estimated from all "
        "arms together (`paired.py`). Nothing is corrected for the number of comparisons."
    )
    return "\n\n".join(parts)


def claims_section(found: list[Finding]) -> str:
    """Returns the findings: how many claims held, and each of them."""
    counts = {word: sum(one.verdict == word for one in found) for word in (HELD, REFUTED, UNDECIDED)}
    told = ", ".join(f"{count} {word.strip('*')}" for word, count in counts.items())
    return (
        f"## Findings\n\nOf {len(found)} claims: {told}, {len(found) - sum(counts.values())} not measured. A claim is "
        "held if the whole interval of the difference lies where the claim says, refuted if it lies wholly elsewhere. "
        "Differences are in points. Those of places are in percent of a picture's width, those of sizes in percent of "
        f"an octave; more is nearer to the true clip.\n\n{findings_table(found)}"
    )


def cost_section(folder: Path) -> str:
    """Returns the section with the picture of costs, if there is one."""
    return f"## Accuracy and cost\n\n![over visual tokens and training FLOPs]({COST})" * (folder / COST).exists()


def power_section(config: StrategiesConfig, results: Results) -> str:
    """Returns how precise the study was to be, and how precise it is."""
    return (
        f"## Power\n\nWanted are half-widths of a difference of {config.power.over_all:g} points over all and "
        f"{config.power.category:g} in a category, at the mean variances of the main arms' differences to the first "
        "(in squared points).\n\n"
        f"{power_table(config, results)}\n\n{deviations(results)}"
    )


def deviations(results: Results) -> str:
    """Returns how alike arms are in the variance of seeds, which is estimated from all of them together."""
    told = []
    for protocol in (UNDERSTANDING, GENERATION):
        if found := seed_deviations(results, protocol):
            low, high = (pick(found, key=lambda arm: found[arm]) for pick in (min, max))
            told.append(f"{protocol}: {found[low]:.1f} ({low}) to {found[high]:.1f} ({high})")
    if not told:
        return ""
    return f"Standard deviation of an arm over seeds, less what seeds change in all arms, in points: {'; '.join(told)}."


def tables(config: StrategiesConfig, results: Results) -> list[str]:
    """Returns the sections with tables."""
    sections = []
    for group, title in GROUPS.items():
        arms = [arm for arm, settings in config.arms.items() if group in settings.table and arm in results.answers]
        for split in (NEW, UNSEEN):
            of = "new scenes" if split == NEW else "unseen combinations of colour, shape and label"
            for protocol, what in ((UNDERSTANDING, "questions about clips"), (GENERATION, "generated videos")):
                rows = {arm: (arm, protocol) for arm in arms if series(results, arm, protocol, split)}
                if len(rows) > 1:
                    sections.append(section(results, f"{title}: {what}, {of}", rows, split))
    return [*sections, swapped(results), kinds(config, results)]


def section(results: Results, title: str, rows: Rows, split: str) -> str:
    """Returns a section with the arms' accuracies in percent, and their differences to the first one."""
    first, protocol = next(iter(rows.values()))
    table = accuracy_table(results, rows, split)
    if protocol == GENERATION:
        table += f"\n{ceiling_rows(results, split)}"
    differences = difference_table(results, first, rows, protocol, split)
    behind = f"\n\nDifference to {first}, in points; bold: the interval does not hold 0.\n\n{differences}"
    return f"## {title}, in %\n\n{table}" + behind * bool(differences)


def swapped(results: Results) -> str:
    """Returns the section about models that read training-free tokens."""
    arms = [arm for arm in results.answers if series(results, arm, TRAINING_FREE)]
    own = {arm: (arm, UNDERSTANDING) for arm in arms}
    rows = own | {f"{arm}, read training-free": (arm, TRAINING_FREE) for arm in arms}
    if not arms:
        return ""
    note = "The same models, with the training-free tokens of a clip in place of those that they were trained on."
    return (
        f"## Tokens that were not trained on: questions about clips, in %\n\n{note}\n\n{accuracy_table(results, rows)}"
    )


def kinds(config: StrategiesConfig, results: Results) -> str:
    """Returns the section about what tokens add to a prompt."""
    arms = [arm for arm in config.arms if MAIN in config.arms[arm].table and arm in results.answers]
    return (
        "## What tokens add to a prompt\n\nA prompt leaves places and sizes open. Place and size are distances of a "
        "video's things from those of the true clip. Videos come from the prompt alone, with sampled tokens "
        "(generation), and with the true clip's own tokens. Those of prompt and own are of the first "
        f"{config.asked.other_videos} clips of a category.\n\n{likeness_table(results, arms)}"
    )


def gifs_section(config: StrategiesConfig, results: Results) -> str:
    """Returns the table of GIFs."""
    if not results.shown:
        return ""
    names = " | ".join(name.replace("_", " ") for name in TV_ALIGN)
    rows = [
        f"| {arm} | {' | '.join(shown(gif_name(arm, name)) for name in TV_ALIGN)} |"
        for arm in config.arms
        if arm in results.shown
    ]
    order = ", ".join((TRUE, AUTOENCODER, *KINDS))
    return "\n".join([
        "## Videos\n\nThe first clip of each category, with the first seed. Side by side, as far as the arm has them: "
        f"{order}.\n", f"| arm | {names} |", f"|---|{'---|' * len(TV_ALIGN)}", *rows,
    ])  # fmt: skip


def shown(name: str) -> str:
    """Returns a GIF at twice its size."""
    return f'<img src="{GIFS}/{name}" height="68">'
