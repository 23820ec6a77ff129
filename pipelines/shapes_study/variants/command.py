"""Runs the study of variants, stage by stage."""

import argparse
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.engine.models import quiet_libraries
from pipelines.shapes_study.origin import RESULTS, origin_of
from pipelines.shapes_study.sharing import make_all
from pipelines.shapes_study.stages import Done, slug, stage
from pipelines.shapes_study.variants import arm, report, world
from pipelines.shapes_study.variants.config import VARIANTS, VariantsConfig
from pipelines.shapes_study.variants.report import Answers, Results, read_results, write_results


def run_variants(a: argparse.Namespace, config: VariantsConfig) -> None:
    """Runs the command ``study_variants.py``.

    Args:
        a: The arguments that ``study_variants.py`` parsed.
        config: The settings of the profile.

    Raises:
        ConfigError: A stage was made with other settings, or the folder of a report has no results.
    """
    if a.report:
        print(report.write(a.report, config, read_results(a.report)))
        return
    quiet_libraries()
    print(run(config, a.output, origin_of("study_variants.py", a, VARIANTS), a.publish))


def run(config: VariantsConfig, output: Path, origin: str, publish_to: Path | None = None) -> Path:
    """Runs all stages and returns the report's path. It is written again as runs of arms end.

    All arms take a seed before any takes the next. So a study that is cut short has comparable arms.

    Args:
        config: The study.
        output: Folder of the stages and the report.
        origin: Command and commit, for the report's first line.
        publish_to: Folder to copy results and report to.

    Raises:
        ConfigError: A stage was made with other settings.
    """
    (output / "locks").mkdir(parents=True, exist_ok=True)
    train, asked = encoded(config, output)
    grids = world.stored_grids(asked.folder)
    tokens = {name: arm.tokens(config, settings, grids) for name, settings in config.arms.items()}
    order = [(name, seed) for seed in config.seeds for name in config.arms]
    done: dict[tuple[str, int], dict[str, Any]] = {}

    def written() -> Path:
        in_order = {key: done[key] for key in order if key in done}
        write_results(gathered(config, origin, tokens, in_order), output / RESULTS)
        path = report.write(output, config, read_results(output))
        if publish_to:
            publish_to.mkdir(parents=True, exist_ok=True)
            for name in (RESULTS, report.REPORT):
                shutil.copyfile(output / name, publish_to / name)
        return path

    def made(name: str, seed: int) -> dict[str, Any]:
        return run_of(config, output, train, asked, name, seed)

    return make_all(order, output, done, made, written)


def encoded(config: VariantsConfig, output: Path) -> tuple[Done, Done]:
    """Makes the stages with the features of the clips to train on, and of those to ask about."""
    own, seed = config.world, config.seed
    shown = [own.frames, own.fps, own.size, own.categories, seed]
    return (
        stage(
            output / "train", [shown, own.train], [],
            lambda folder: world.encode(folder, world.train_clips(own, seed)),
        ),
        stage(
            output / "asked", [shown, own.asked], [],
            lambda folder: world.encode(folder, world.asked_clips(own, seed)),
        ),
    )  # fmt: skip


def run_of(config: VariantsConfig, output: Path, train: Done, asked: Done, name: str, seed: int) -> dict[str, Any]:
    """Makes the two stages of one arm with one seed, its training and its answers; returns their figures.

    More questions later need no new training.
    """
    settings, folder = config.arms[name], slug(f"{name}-{seed}")
    run = cache(
        lambda folder: arm.train(folder, config, settings, world.stored_grids(train.folder), seed)
    )  # both stages use it, unless they are done
    trained = stage(
        output / "runs" / folder,
        [config.fit, config.tokeniser, settings.tokeniser, settings.g_phi_of_grid, seed],
        [train],
        lambda own: run(own).figures,
    )
    answered = stage(
        output / "answers" / folder, [], [trained, asked],
        lambda _: arm.ask(run(trained.folder).framework, config, world.stored_grids(asked.folder)),
    )  # fmt: skip
    return trained.figures | answered.figures


def gathered(
    config: VariantsConfig, origin: str, tokens: dict[str, list[int]], done: dict[tuple[str, int], dict[str, Any]]
) -> Results:
    """Returns what the stages measured so far."""
    items = [clip.item for clip in world.asked_clips(config.world, config.seed)]
    found = Results(origin, [item.category for item in items], [1 / len(item.options) for item in items])
    for (name, seed), figures in done.items():
        found.tokens[name], found.g_phi[name] = tokens[name], figures["g_phi"]
        found.answers.setdefault(name, {})[seed] = Answers(figures["right"], figures["last_loss"])
    return found
