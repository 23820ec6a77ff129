"""Runs the study of strategies, stage by stage."""

import argparse
import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_tools.shapes import CATEGORIES, TV_ALIGN
from pipelines.engine.models import quiet_libraries
from pipelines.shapes_study.origin import RESULTS, origin_of
from pipelines.shapes_study.sharing import make_all
from pipelines.shapes_study.stages import DONE, Done, key_of, slug, stage
from pipelines.shapes_study.strategies import arm, asking, codecs, cost, making, report, world
from pipelines.shapes_study.strategies.config import MAIN, STRATEGIES, StrategiesConfig
from pipelines.shapes_study.strategies.making import AUTOENCODER, CEILINGS, GENERATION, KINDS, OWN, PROMPT, SHOWN, TRUE
from pipelines.shapes_study.strategies.model import shipped_digest, shipped_framework
from pipelines.shapes_study.strategies.pictures import COST, GIFS, gif_name, write_gif
from pipelines.shapes_study.strategies.results import Asked, Results, read_results, write_results
from pipelines.shapes_study.strategies.series import TRAINING_FREE, UNDERSTANDING
from pipelines.shapes_study.strategies.world import NEW, TRAIN, UNSEEN, Coded, Encoded
from vtok.framework import VTokFramework

NONE = "none"  # the strategy without visual tokens


class Run(NamedTuple):
    """The finished stages of one arm with one seed.

    Attributes:
        cost: What the arm costs.
        trained: Its training.
        answered: Its answers.
    """

    cost: Done
    trained: Done
    answered: dict[Asked, Done]


def run_study(a: argparse.Namespace, config: StrategiesConfig) -> None:
    """Runs the command ``study.py``.

    Args:
        a: The arguments that ``study.py`` parsed.
        config: The settings of the profile.

    Raises:
        ConfigError: A stage was made with other settings, or the folder of a report has no results.
    """
    if a.report:
        print(report.write(a.report, config, read_results(a.report)))
        return
    quiet_libraries()
    print(run(config, a.output, origin_of("study.py", a, STRATEGIES), a.publish))


def run(config: StrategiesConfig, output: Path, origin: str, publish_to: Path | None = None) -> Path:
    """Runs all stages and returns the report's path. It is written again as runs of arms end.

    Args:
        config: The study.
        output: Folder of the stages and the report.
        origin: Command and commit, for the report's first line.
        publish_to: Folder to copy results, report and pictures to.

    Raises:
        ConfigError: A stage was made with other settings.
    """
    (output / "locks").mkdir(parents=True, exist_ok=True)
    encoded = {split: encoded_clips(config, output, split) for split in (TRAIN, NEW, UNSEEN)}
    ceilings = ceilings_of(config, output, encoded)
    done: dict[tuple[str, int], Run] = {}
    known = recorded(config, output)
    others = [run for run in config.runs if run not in known.runs]

    def made(name: str, seed: int) -> Run:
        return run_of(config, output, encoded, name, seed)

    def written() -> Path:
        done.update({run: made(*run) for run in others if run not in done and finished(config, output, *run)})
        results = gathered(config, origin, ceilings, done, known)
        results.shown = list(dict.fromkeys([*known.shown, *shown(output, ceilings, done)]))
        write_results(results, output / RESULTS)
        path = report.write(output, config, read_results(output))
        if publish_to:
            publish(output, publish_to)
        return path

    return make_all(others, output, done, made, written)


def recorded(config: StrategiesConfig, output: Path) -> Results:
    """Reads the runs of the same settings that ``output/results.jsonl`` holds. They are not made again.

    So a study goes on where only its published files are left: copy them to ``output``.
    """
    if not (output / RESULTS).exists():
        return Results("", shipped_digest())
    results = read_results(output)
    results.runs = {
        run: figures for run, figures in results.runs.items()
        if run in config.runs and figures.get("key") == run_key(config, run[0])
    }  # fmt: skip
    results.answers = {
        name: {asked: {seed: of[seed] for seed in of if (name, seed) in results.runs} for asked, of in every.items()}
        for name, every in results.answers.items()
    }
    results.arms = {name: own for name, own in results.arms.items() if any(name == arm for arm, _ in results.runs)}
    results.shown = [name for name in results.shown if (name, 0) in results.runs]
    return results


def run_key(config: StrategiesConfig, name: str) -> str:
    """Returns a hash of all that the answers of an arm depend on, but for its seed."""
    return key_of(config.seed, config.world, config.fit, config.own, config.asked, run_settings(config, name))


class Split(NamedTuple):
    """A split whose clips are encoded.

    Attributes:
        done: The stage.
        world: Its clips.
    """

    done: Done
    world: Encoded


def encoded_clips(config: StrategiesConfig, output: Path, split: str) -> Split:
    """Makes the stage with what the frozen parts make of a split's clips."""
    if split == TRAIN:
        clips = world.train_clips(config.world, config.seed)
    else:
        clips = world.asked_clips(split, config.asked.questions, config.seed)
    shown = [config.world.seconds, config.world.fps, config.world.size, config.seed, shipped_digest()]
    done = stage(
        output / "encoded" / f"{split}-{len(clips)}", [shown, split, len(clips)], [],
        lambda folder: world.encode(folder, config.world, clips),
    )  # fmt: skip
    return Split(done, Encoded(done.folder, clips))


def videos_of(config: StrategiesConfig, split: str) -> int:
    """Returns the videos of a category that are made for a split."""
    return config.asked.videos if split == NEW else config.asked.other_videos


def ceilings_of(config: StrategiesConfig, output: Path, encoded: dict[str, Split]) -> dict[Asked, Done]:
    """Makes the stages with what the judge says of true clips and of their reconstructions."""
    framework = cache(shipped_framework)

    def make(kind: str, split: str, folder: Path) -> dict[str, Any]:
        own = framework()
        videos = making.ceiling(own, config, encoded[split].world, videos_of(config, split), kind)
        return making.judged(videos, own.config.decoder, config.world.seconds, folder)

    return {
        (kind, split): stage(
            output / "ceilings" / slug(f"{kind}-{split}-{videos_of(config, split)}"), [], [encoded[split].done],
            partial(make, kind, split),
        )
        for split in (NEW, UNSEEN)
        for kind in CEILINGS
    }  # fmt: skip


def run_settings(config: StrategiesConfig, name: str) -> list[Any]:
    """Returns the settings that an arm's model depends on."""
    own = config.arms[name]
    codec = config.codecs.get(own.tokeniser.get("strategy", ""))
    return [config.tokeniser, own.tokeniser, own.g_phi_of_grid, codec, shipped_digest()]


def clips_of(config: StrategiesConfig, output: Path, encoded: dict[str, Split], name: str) -> dict[str, Split]:
    """Returns the clips as an arm sees them. If its strategy has a codec, makes the stages of codec and features."""
    settings = config.arms[name]
    strategy = settings.tokeniser.get("strategy")
    if strategy not in config.codecs:
        return encoded
    train = encoded[TRAIN]
    codec = stage(
        output / "codecs" / strategy, [config.codecs[strategy], run_settings(config, name)], [train.done],
        lambda folder: codecs.train(folder, config, settings, train.world.clips),
    )  # fmt: skip
    place, result = codec.folder / codecs.CODEC, {}
    for split, own in encoded.items():
        done = stage(
            output / "encoded" / f"{own.done.folder.name}-{strategy}", [], [own.done, codec],
            lambda folder, own=own: codecs.encode(folder, config, settings, place, own.world.clips),
        )  # fmt: skip
        result[split] = Split(done, Coded(own.world, place, done.folder))
    return result


def run_of(config: StrategiesConfig, output: Path, encoded: dict[str, Split], name: str, seed: int) -> Run:
    """Makes the stages of one arm with one seed: its training and its answers. More answers need no new training."""
    settings, encoded = config.arms[name], clips_of(config, output, encoded, name)
    train = encoded[TRAIN]
    costs = stage(
        output / "cost" / slug(name), [config.world, config.fit, config.own, run_settings(config, name)], [],
        lambda _: cost.cost_of(config, settings, train.world.codec),
    )  # fmt: skip
    model = cache(
        lambda folder: arm.train(folder, config, settings, train.world, seed)
    )  # all stages use it, unless they are done
    trained = stage(
        output / "runs" / slug(f"{name}-{seed}"), [config.fit, config.own, run_settings(config, name), seed],
        [train.done], lambda folder: model(folder).figures,
    )  # fmt: skip

    def framework() -> VTokFramework:
        return model(trained.folder).framework.eval()

    asked = config.asked
    answered = {
        (of, split): stage(
            output / "answers" / answers_folder(name, seed, of, split, count),
            [asked.denoising_steps] * (of in KINDS), [trained, encoded[split].done],
            partial(answer, config, framework, encoded[split].world, of, count),
        )
        for of, split, count in asked_of(config, name, seed)
    }  # fmt: skip
    return Run(costs, trained, answered)


def finished(config: StrategiesConfig, output: Path, name: str, seed: int) -> bool:
    """Whether all stages of a run are done, perhaps by another process."""
    folders = [output / "answers" / answers_folder(name, seed, *asked) for asked in asked_of(config, name, seed)]
    return all((folder / DONE).exists() for folder in folders)


def answers_folder(name: str, seed: int, of: str, split: str, count: int) -> str:
    """Returns the folder's name of an arm's answers."""
    return slug(f"{name}-{seed} {of} {split} {count}")


def asked_of(config: StrategiesConfig, name: str, seed: int) -> list[tuple[str, str, int]]:
    """Returns what an arm is asked: what, of which split, and how many of a category.

    Only the arms of the main table make videos from the prompt alone, from true tokens, and of unseen combinations,
    and only with the first seeds. ``TRAINING_FREE`` changes the model, so it comes last.
    """
    settings, questions = config.arms[name], config.asked.questions
    asked = [(UNDERSTANDING, NEW, questions), (UNDERSTANDING, UNSEEN, questions)]
    asked.append((GENERATION, NEW, config.asked.videos))
    if MAIN in settings.table and seed < config.asked.other_seeds:
        asked.append((GENERATION, UNSEEN, config.asked.other_videos))
        if settings.tokeniser.get("strategy") != NONE:
            asked += [(kind, NEW, config.asked.other_videos) for kind in (PROMPT, OWN)]
    if "training_free" in settings.table:
        asked.append((TRAINING_FREE, NEW, questions))
    return asked


def answer(
    config: StrategiesConfig, load: Callable[[], VTokFramework], clips: Encoded, of: str, count: int, folder: Path
) -> dict[str, Any]:
    """Makes the answers of a trained arm: about clips, or the judge's about its videos."""
    framework = load()
    if of in KINDS:
        videos = making.made(framework, config, clips, count, of)
        return making.judged(videos, framework.config.decoder, config.world.seconds, folder)
    if of == TRAINING_FREE:
        asking.read_training_free(framework)
    return asking.ask(framework, clips, config.world.frames)


def gathered(
    config: StrategiesConfig,
    origin: str,
    ceilings: dict[Asked, Done],
    done: dict[tuple[str, int], Run],
    known: Results,
) -> Results:
    """Returns what the stages measured so far, and what was known before."""
    found = Results(origin, shipped_digest())
    found.runs, found.answers = dict(known.runs), deepcopy(known.answers)
    for of, split, count in dict.fromkeys(asked for name in config.arms for asked in asked_of(config, name, 0)):
        found.categories[of, split] = [name for name in (TV_ALIGN if of in KINDS else CATEGORIES) for _ in range(count)]
    found.arms = dict(known.arms)
    found.ceilings = {what: plain(own.figures, ("right", "place", "size")) for what, own in ceilings.items()}
    for name, seed in config.runs:
        if (name, seed) in done:
            costs, trained, answered = done[name, seed]
            found.arms[name] = plain(costs.figures, ("tokens", "flops", "g_phi"))
            measured = plain(trained.figures, ("last_loss", "seconds")) | seconds_of(answered)
            found.runs[name, seed] = measured | {"key": run_key(config, name)}
            for asked, own in answered.items():
                values = plain(own.figures, ("right", "place", "size"))
                found.answers.setdefault(name, {}).setdefault(asked, {})[seed] = values
    return found


def seconds_of(answered: dict[Asked, Done]) -> dict[str, float]:
    """Returns the seconds that a question takes, and a video as it is generated."""
    return {
        f"seconds_of_a_{what}": round(own.figures["seconds"] / len(own.figures["right"]), 4)
        for what, own in (("question", answered[UNDERSTANDING, NEW]), ("video", answered[GENERATION, NEW]))
    }


def plain(figures: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns some of the figures."""
    return {name: figures[name] for name in names if name in figures}


def shown(output: Path, ceilings: dict[Asked, Done], done: dict[tuple[str, int], Run]) -> list[str]:
    """Writes the GIFs of the arms whose first seed is done, and returns these arms."""
    folder = output / GIFS
    folder.mkdir(exist_ok=True)
    arms = [name for name, seed in done if seed == 0]
    for name in arms:
        if not (folder / gif_name(name, TV_ALIGN[-1])).exists():
            stages = ceilings | done[name, 0].answered
            order = [(of, NEW) for of in (TRUE, AUTOENCODER, *KINDS)]
            kept = [np.load(stages[asked].folder / SHOWN) for asked in order if asked in stages]
            for category in TV_ALIGN:
                write_gif(folder / gif_name(name, category), [videos[category] for videos in kept])
    return arms


def publish(output: Path, folder: Path) -> None:
    """Copies results, report and pictures. Models and features stay in the study's output."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS, report.REPORT, COST):
        if (output / name).exists():
            shutil.copyfile(output / name, folder / name)
    shutil.copytree(output / GIFS, folder / GIFS, dirs_exist_ok=True)
