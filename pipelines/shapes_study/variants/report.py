"""Results and report of the study of variants.

``results.jsonl`` holds all that the report needs, a JSON object a line:

{"kind": "study", "origin": ...}                            once, the first line
{"kind": "questions", "categories": [...], "chance": [...]}        of each question, in order
{"kind": "arm", "arm": "vtok", "g_phi": 156000, "tokens": [...]}      visual tokens of each question's clip
{"kind": "answers", "arm": "vtok", "seed": 0, "right": "0110...", "last_loss": 0.5}
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.shapes.cuts import SIDES
from data_tools.shards import atomic_write
from pipelines.shapes_study.markdown import bold_if_clear, head, words
from pipelines.shapes_study.origin import RESULTS
from pipelines.shapes_study.paired import paired_difference
from pipelines.shapes_study.seeds import mean, percent
from pipelines.shapes_study.variants.config import VariantsConfig
from vtok.config import require

REPORT = "report.md"


@dataclass
class Answers:
    """An arm's answers with one seed.

    Attributes:
        right: 1 or 0 for each question.
        last_loss: Mean loss of the last tenth of the training, in nats per answer token.
    """

    right: list[int]
    last_loss: float


@dataclass
class Results:
    """The measurements of a study of variants.

    Attributes:
        origin: The command and the commit that produced them.
        categories: The category of each question.
        chance: The share of right answers that guessing gives, of each question.
        tokens: By arm, the visual tokens of each question's clip.
        g_phi: By arm, the parameters of ``g_phi``.
        answers: By arm and seed.
    """

    origin: str
    categories: list[str]
    chance: list[float]
    tokens: dict[str, list[int]] = field(default_factory=dict)
    g_phi: dict[str, int] = field(default_factory=dict)
    answers: dict[str, dict[int, Answers]] = field(default_factory=dict)


def write_results(results: Results, path: Path) -> None:
    """Writes the file."""
    lines: list[dict] = [
        {"kind": "study", "origin": results.origin},
        {"kind": "questions", "categories": results.categories, "chance": results.chance},
    ]
    for arm, tokens in results.tokens.items():
        lines.append({"kind": "arm", "arm": arm, "g_phi": results.g_phi[arm], "tokens": tokens})
    for arm, seeds in results.answers.items():
        for seed, own in seeds.items():
            right = "".join(map(str, own.right))
            lines.append({"kind": "answers", "arm": arm, "seed": seed, "right": right, "last_loss": own.last_loss})
    with atomic_write(path) as file:
        file.write("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode())


def read_results(folder: Path) -> Results:
    """Reads the file in a folder.

    Raises:
        ConfigError: The file does not exist.
    """
    path = folder / RESULTS
    require(path.is_file(), f"{path}: no such file: give a folder with the {RESULTS} of a study of variants")
    study, questions, *lines = map(json.loads, path.read_text().splitlines())
    results = Results(study["origin"], questions["categories"], questions["chance"])
    for line in lines:
        if line["kind"] == "arm":
            results.tokens[line["arm"]], results.g_phi[line["arm"]] = line["tokens"], line["g_phi"]
        else:
            own = Answers([int(each) for each in line["right"]], line["last_loss"])
            results.answers.setdefault(line["arm"], {})[line["seed"]] = own
    return results


def write(folder: Path, config: VariantsConfig, results: Results) -> Path:
    """Writes ``folder/report.md`` and returns its path."""
    names = list(dict.fromkeys(results.categories))
    parts = [heading(config, results)]
    if results.answers:
        parts += filter(None, [accuracies(results, names), differences(results, names), losses(results)])
    path = folder / REPORT
    path.write_text("\n\n".join(parts) + "\n")
    return path


def heading(config: VariantsConfig, results: Results) -> str:
    """Returns the title, and what was run."""
    world, fit = config.world, config.fit
    text = f"# Variants of the motion token\n\nMade by {results.origin}; no number here was typed by hand."
    done, wanted = sum(map(len, results.answers.values())), len(config.arms) * len(config.seeds)
    if done < wanted:
        text += f"\n\n**Not finished**: {done} runs are done, {wanted - done} are still to come."
    seeds, sides = ", ".join(map(str, config.seeds)), " and ".join(map(words, SIDES))
    return (
        f"{text}\n\nQuestions that no single frame answers, about clips of {world.frames} frames: {world.train} clips "
        f"to train on, {fit.steps} steps of {fit.batch_size} questions, seeds {seeds}. Then come {world.asked} "
        "questions a category about new scenes of the same distribution. Encoder and language model are the small ones "
        "that the package ships; the language model, the projection and g_phi train on answers alone. "
        f"In {sides} a clip shows two scenes with a cut between them; the question is about the first or the second."
    )


def accuracies(results: Results, names: list[str]) -> str:
    """Returns the table of accuracies: means over seeds."""
    lines = ["## Accuracy in %", "", head(["arm", "g_phi", "tokens", "tokens with a cut", "seeds"], names)]
    for arm, seeds in results.answers.items():
        cells = [percent(mean([share(results, own.right, name) for own in seeds.values()])) for name in (*names, None)]
        usual, cut = (mean_tokens(results, arm, after) for after in (False, True))
        lines.append(
            f"| {arm} | {results.g_phi[arm]:,} | {usual:.1f} | {cut:.1f} | {len(seeds)} | {' | '.join(cells)} |"
        )
    chance = [percent(share(results, results.chance, name)) for name in (*names, None)]
    return "\n".join([*lines, f"| *chance* | | | | | {' | '.join(chance)} |"])


def differences(results: Results, names: list[str]) -> str:
    """Returns the table of differences to the first arm, over the seeds that both have; nothing without two seeds."""
    first, *others = results.answers
    shared = {arm: [seed for seed in results.answers[arm] if seed in results.answers[first]] for arm in others}
    rows = {arm: seeds for arm, seeds in shared.items() if len(seeds) > 1}
    if not rows:
        return ""
    lines = [
        f"## Difference to {first}, in points",
        "",
        "Paired by seed and question. The 95 % interval is for other seeds and other questions (`paired.py`). Bold: "
        "the interval does not hold 0. The table makes no correction for its many comparisons.",
        "",
        head(["arm", "seeds"], names),
    ]
    for arm, both in rows.items():
        cells = [cell(results, arm, first, both, name) for name in (*names, None)]
        lines.append(f"| {arm} | {len(both)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(results: Results, arm: str, first: str, seeds: list[int], name: str | None) -> str:
    """Returns the difference of two arms in a category (``None``: in all), as text."""
    ours, theirs = (
        [of_category(results, results.answers[each][seed].right, name) for seed in seeds] for each in (arm, first)
    )
    return bold_if_clear(paired_difference(ours, theirs))


def losses(results: Results) -> str:
    """Returns the table of the training's last losses."""
    lines = ["## Training: mean loss of the last tenth, nats per answer token", "", "| arm | loss |", "|---|---|"]
    for arm, seeds in results.answers.items():
        lines.append(f"| {arm} | {mean([own.last_loss for own in seeds.values()]):.3f} |")
    return "\n".join(lines)


def of_category(results: Results, values: list, name: str | None) -> list:
    """Returns the values of a category's questions; all with ``None``."""
    return [value for value, category in zip(values, results.categories) if name in (None, category)]


def share(results: Results, values: list, name: str | None) -> float:
    """Returns the mean of the values of a category's questions."""
    return mean(of_category(results, values, name))


def mean_tokens(results: Results, arm: str, cut: bool) -> float:
    """Returns the mean number of visual tokens of clips with or without a cut."""
    pairs = zip(results.tokens[arm], results.categories)
    return mean([count for count, category in pairs if (category in SIDES) == cut])
