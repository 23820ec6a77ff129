"""Writes the report: tables over seeds, and plots. All of it comes from a study's results."""

import subprocess
from argparse import Namespace
from pathlib import Path

from pipelines.shapes_study.claims import FIRST_FRAME, MISSED, claims_table
from pipelines.shapes_study.conditioning import ANOTHERS, OWN, TOLD
from pipelines.shapes_study.config import StudyConfig
from pipelines.shapes_study.curves import loss_table, mean_curve
from pipelines.shapes_study.plots import plot_curves
from pipelines.shapes_study.results import ByArm, Results
from pipelines.shapes_study.seeds import Figures, accuracy, mean, over_seeds, percent, share

TABLES = {
    "main": "Strategies",
    "spatial": "Spatial tokens",
    "temporal": "Motion tokens per second",
    "residual": "Cells of the residual in one motion token",
}
PROTOCOLS = {
    "understanding": "questions about clips, accuracy in %",
    "generation": "generated videos, accuracy in %",
    "real": "videos generated from true tokens, an upper bound, accuracy in %",
    "probe": "a probe's answers from the tokens' features, about training clips held out from it, accuracy in %",
}
MEASURED = (*PROTOCOLS, "training_free", "conditioning")
REPORT, CURVES, VIDEOS = "report.md", "curves.png", "videos.png"
UNTRAINED = ("none, untuned",)  # the model before joint training, from text alone


def write(folder: Path, study: StudyConfig, results: Results) -> Path:
    """Writes ``folder/report.md`` and the plot of the curves; returns the report's path.

    Args:
        folder: Folder of the report.
        study: The study.
        results: Its measurements.
    """
    answers = {protocol: results.answers.get(protocol, {}) for protocol in MEASURED}
    parts = [heading(study, results.origin, results.missing), gates(results.frozen)]
    if claims := claims_table(study.claims, answers):
        parts.append("\n\n".join(["## Claims", claims, *tried(study, claims)]))
    parts += [ceilings(results.frozen), *accuracy_sections(study, answers, results.tokens)]
    if worth := answers["conditioning"]:
        parts.append(f"## What its conditioning is worth to the frozen decoder\n\n{worth_table(worth)}")
    if results.trained:
        curves = {arm: mean_curve(seeds) for arm, seeds in results.trained.items()}
        plot_curves(curves, folder / CURVES)
        parts.append(f"## Learning curves\n\n{loss_table(curves)}\n\n![losses of every arm]({CURVES})")
    if results.videos:
        rows = f"Each row is one video, frame after frame; rows: {results.videos}."
        parts.append(f"## Videos\n\n{rows}\n\n![videos]({VIDEOS})")
    path = folder / REPORT
    path.write_text("\n\n".join(parts) + "\n")
    return path


def accuracy_sections(study: StudyConfig, answers: dict[str, ByArm], tokens: dict[str, int]) -> list[str]:
    """Returns the report's sections with accuracies: one for each group of arms and protocol with two arms or more."""
    sections = []
    for table, title in TABLES.items():
        arms = [name for name in (*study.arms, *UNTRAINED) if table in tables_of(study, name)]
        for protocol, caption in PROTOCOLS.items():
            rows = {arm: answers[protocol][arm] for arm in arms if arm in answers[protocol]}
            if len(rows) > 1:
                sections.append(f"## {title}: {caption}\n\n{accuracy_table(rows, tokens)}")
    if untrained := answers["training_free"]:
        trained = [arm for arm in answers["understanding"] if "training_free" in tables_of(study, arm)]
        table = accuracy_table({arm: answers["understanding"][arm] for arm in trained} | untrained, tokens)
        sections.append(f"## Tokens that were not trained on: {PROTOCOLS['understanding']}\n\n{table}")
    return sections


def tables_of(study: StudyConfig, name: str) -> list[str]:
    """Returns the tables that show an arm."""
    return ["main"] if name in UNTRAINED else study.arms[name].table


def heading(study: StudyConfig, origin: str, missing: int) -> str:
    """Returns the title and what was run.

    Args:
        study: The study.
        origin: The command and the commit.
        missing: Runs that are not done yet.
    """
    text = f"# Study in small\n\nMade by {origin}; no number here was typed by hand."
    count = len(study.seeds)
    if missing:
        text += f"\n\n**Not finished: {missing} runs are still to come**; some arms may have fewer seeds."
    return (
        f"{text}\n\n{study.render.train} training clips, {study.train['max_steps']} steps of "
        f"{study.train['global_batch_size']} clips for each arm, {count} seed{'s' * (count > 1)}; for each seed "
        f"{study.evaluation.questions} questions and {study.evaluation.videos} videos a category. Intervals are of "
        "95 %: over seeds (Student's t of the seeds' accuracies), or, with one seed, over questions (Wilson's)."
    )


def origin_of(command: str, a: Namespace, default: Path) -> str:
    """Returns the command and the commit that a study is made by.

    Args:
        command: File name of the command.
        a: Its arguments.
        default: The YAML that it reads if none is given.
    """
    config = "" if a.config == default else f"--config {a.config.name} "
    return f"`python pipelines/{command} {config}--profile {a.profile} --output DIR` at commit {commit()}"


def commit() -> str:
    """Returns the short hash of the checked-out commit, marked if tracked files differ from it.

    The published report itself does not count.
    """
    here, published = Path(__file__).parent, ":(exclude,top)pipelines/study_report"
    said = [
        subprocess.run(["git", *words], cwd=here, text=True, capture_output=True).stdout.strip()
        for words in (
            ("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", ":/", published),
        )
    ]  # fmt: skip
    return (said[0] or "unknown") + " with changes" * bool(said[1])


def tried(study: StudyConfig, claims: str) -> list[str]:
    """Returns what was tried about missed claims, as paragraphs; none if no claim is missed."""
    if not study.tried or MISSED not in claims:
        return []
    return ["What was tried where a claim is missed:", "\n".join(f"- {what}" for what in study.tried)]


def gates(frozen: dict[str, Figures]) -> str:
    """Returns the section about the gates."""
    rows = [
        f"| {g['name']} | {g['right']} of {g['asked']} | {percent(g['low'])}–{percent(g['high'])} "
        f"| > {percent(g['above'])} | {'passed' if g['passed'] else '**failed**'} |"
        for g in (figures["gate"] for figures in frozen.values() if "gate" in figures)
    ]
    head = "| gate | right | 95 % interval | wanted | |\n|---|---|---|---|---|"
    return "\n".join(["## Gates\n", head, *rows])


def ceilings(frozen: dict[str, Figures]) -> str:
    """Returns the section about the frozen models: the autoencoder's ceiling, the guidance and the losses."""
    figures, guidance = frozen["latents"], frozen["guidance"]
    scales = ", ".join(f"{percent(share)} % at {float(scale):g}" for scale, share in guidance["accuracy"].items())
    losses = [
        f"| {name} | {fitted['first_loss']:.3f} | {fitted['last_loss']:.3f} |"
        for name, fitted in frozen.items()
        if "first_loss" in fitted
    ]
    return "\n".join([
        "## Frozen models\n",
        f"The autoencoder reconstructs dev clips at {figures['psnr']:.1f} dB; of {figures['items']} questions about "
        f"them the judge answers {percent(figures['ceiling'])} % right, the most to expect of generated videos. "
        f"Classifier-free guidance is {guidance['guidance']:g}, chosen on the dev split from text alone ({scales}).\n",
        "| training | loss, first tenth | loss, last tenth |\n|---|---|---|", *losses,
    ])  # fmt: skip


def accuracy_table(rows: ByArm, tokens: dict[str, int]) -> str:
    """Returns a Markdown table with a row for each arm and a column for each category.

    Below the arms stand their answers from the first frame alone, and chance and majority of the first arm's items.

    Args:
        rows: By arm, the figures of each seed.
        tokens: By arm, the visual tokens of a clip.
    """
    first = next(iter(rows.values()))[0]["lines"]
    names = [line["name"] for line in first]
    lines = [
        f"| arm | tokens | {' | '.join(name.replace('_', ' ') for name in names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for arm, figures in rows.items():
        cells = [cell([one["lines"][column] for one in figures]) for column in range(len(names))]
        lines.append(f"| {arm} | {tokens.get(arm, 0)} | {' | '.join(cells)} |")
    for arm, figures in rows.items():
        shares = [mean([one["lines"][k]["controls"]["frozen"] for one in figures]) for k in range(len(names))]
        lines.append(f"| *{arm}, {FIRST_FRAME}* | | {' | '.join(map(percent, shares))} |")
    for control in ("chance", "majority"):
        lines.append(f"| *{control}* | | {' | '.join(percent(line['controls'][control]) for line in first)} |")
    return "\n".join(lines)


def cell(lines: list[Figures]) -> str:
    """Returns the accuracy over seeds with its interval, as text."""
    return accuracy(list(map(share, lines)), lines[0]["asked"]).text


def worth_table(rows: ByArm) -> str:
    """Returns a Markdown table of ``L_dec`` of dev clips by arm and conditioning: means over seeds."""
    lines = [
        "`L_dec` of dev clips, with the same noise each time, by what the decoder is told. A caption's rows are those "
        "of the arm's own language model.\n",
        f"| arm | {' | '.join(TOLD)} | own less another's |",
        "|---|---|" + "---|" * len(TOLD),
    ]
    for arm, figures in rows.items():
        losses = {what: [one["losses"][what] for one in figures if what in one["losses"]] for what in TOLD}
        cells = [f"{mean(values):.4f}" if values else "" for values in losses.values()]
        differences = [own - other for own, other in zip(losses[OWN], losses[ANOTHERS])]
        lines.append(f"| {arm} | {' | '.join(cells)} | {difference(differences)} |")
    return "\n".join(lines)


def difference(values: list[float]) -> str:
    """Returns the mean of differences over seeds with its interval, as text; an empty text without any."""
    if len(values) < 2:
        return f"{values[0]:+.4f}" if values else ""
    estimate = over_seeds(values)
    return f"{estimate.mean:+.4f} ± {estimate.high - estimate.mean:.4f}"
