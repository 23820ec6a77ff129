"""The report: tables over seeds and plots, all from what the stages measured."""

import subprocess
from pathlib import Path

from pipelines.study.claims import FIRST_FRAME, MISSED, claims_table
from pipelines.study.conditioning import ANOTHERS, OWN, TOLD
from pipelines.study.config import StudyConfig
from pipelines.study.curves import loss_table, mean_curve
from pipelines.study.plots import contact_sheet, plot_curves
from pipelines.study.seeds import Figures, accuracy, mean, over_seeds, percent, share
from pipelines.study.stages import Done

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
UNTRAINED = ("none, untuned",)  # what joint training begins with


def write(
    output: Path,
    study: StudyConfig,
    origin: str,
    frozen: dict[str, Done],
    tokens: dict[str, int],
    trained: dict[str, list[Done]],
    answers: dict[str, dict[str, list[Figures]]],
    missing: int,
) -> Path:
    """``output/report.md`` with its pictures; returns its path.

    Args:
        origin: by what it is made.
        frozen: the stages before joint training.
        tokens: of a clip, by arm.
        trained: the runs of each arm.
        answers: protocol (of ``MEASURED``) -> arm -> figures, one a seed.
        missing: runs that are still to come.
    """
    parts = [heading(study, origin, missing), gates(frozen)]
    if claims := claims_table(study.claims, answers):
        parts.append("\n\n".join(["## Claims", claims, *tried(study, claims)]))
    parts += [ceilings(frozen), *accuracy_sections(study, answers, tokens)]
    if worth := answers["conditioning"]:
        parts.append(f"## What its conditioning is worth to the frozen decoder\n\n{worth_table(worth)}")
    if trained:
        curves = {arm: mean_curve([run.figures["curve"] for run in runs]) for arm, runs in trained.items()}
        plot_curves(curves, output / CURVES)
        parts.append(f"## Learning curves\n\n{loss_table(curves)}\n\n![losses of every arm]({CURVES})")
    if sheet := contact_sheet(shown(study, output), output / VIDEOS):
        parts.append(f"## Videos\n\nEach row is one video, frame after frame; rows: {sheet}.\n\n![videos]({VIDEOS})")
    path = output / REPORT
    path.write_text("\n\n".join(parts) + "\n")
    return path


def shown(study: StudyConfig, output: Path) -> list[Path]:
    """Folders with videos, if they are there: of the main table's arms, with the first seed."""
    arms = [name for name, arm in study.arms.items() if "main" in arm.table]
    runs = [f"{name}-{study.seeds[0]} {protocol}" for name in arms for protocol in ("generation", "real")]
    return [output / "evaluation" / name / "videos" for name in (*UNTRAINED, *runs)]


def accuracy_sections(
    study: StudyConfig, answers: dict[str, dict[str, list[Figures]]], tokens: dict[str, int]
) -> list[str]:
    """A table for each protocol of each group of arms."""
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
    return ["main"] if name in UNTRAINED else study.arms[name].table


def heading(study: StudyConfig, origin: str, missing: int) -> str:
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


def commit() -> str:
    """Of the code that runs, as long as nothing is changed after its start; marked where files differ from it."""
    here, published = Path(__file__).parent, ":(exclude,top)pipelines/study_report"
    said = [
        subprocess.run(["git", *words], cwd=here, text=True, capture_output=True).stdout.strip()
        for words in (
            ("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", ":/", published),
        )
    ]  # fmt: skip
    return (said[0] or "unknown") + " with changes" * bool(said[1])


def tried(study: StudyConfig, claims: str) -> list[str]:
    """What was done about claims that do not hold, if there are any."""
    if not study.tried or MISSED not in claims:
        return []
    return ["What was tried where a claim is missed:", "\n".join(f"- {what}" for what in study.tried)]


def gates(frozen: dict[str, Done]) -> str:
    rows = [
        f"| {g['name']} | {g['right']} of {g['asked']} | {percent(g['low'])}–{percent(g['high'])} "
        f"| > {percent(g['above'])} | {'passed' if g['passed'] else '**failed**'} |"
        for g in (done.figures["gate"] for done in frozen.values() if "gate" in done.figures)
    ]
    head = "| gate | right | 95 % interval | wanted | |\n|---|---|---|---|---|"
    return "\n".join(["## Gates\n", head, *rows])


def ceilings(frozen: dict[str, Done]) -> str:
    figures, guidance = frozen["latents"].figures, frozen["guidance"].figures
    scales = ", ".join(f"{percent(share)} % at {float(scale):g}" for scale, share in guidance["accuracy"].items())
    losses = [
        f"| {name} | {done.figures['first_loss']:.3f} | {done.figures['last_loss']:.3f} |"
        for name, done in frozen.items()
        if "first_loss" in done.figures
    ]
    return "\n".join([
        "## Frozen models\n",
        f"The autoencoder reconstructs dev clips at {figures['psnr']:.1f} dB; of {figures['items']} questions about "
        f"them the judge answers {percent(figures['ceiling'])} % right, the most to expect of generated videos. "
        f"Classifier-free guidance is {guidance['guidance']:g}, chosen on the dev split from text alone ({scales}).\n",
        "| training | loss, first tenth | loss, last tenth |\n|---|---|---|", *losses,
    ])  # fmt: skip


def accuracy_table(rows: dict[str, list[Figures]], tokens: dict[str, int]) -> str:
    """A line an arm, a column a category; controls of the first arm's items below."""
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
    """Accuracy over seeds, with its interval."""
    return accuracy(list(map(share, lines)), lines[0]["asked"]).text


def worth_table(rows: dict[str, list[Figures]]) -> str:
    """``L_dec`` of dev clips by arm and by what the decoder is told, over seeds."""
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
    if len(values) < 2:
        return f"{values[0]:+.4f}" if values else ""
    estimate = over_seeds(values)
    return f"{estimate.mean:+.4f} ± {estimate.high - estimate.mean:.4f}"
