"""Runs a study from its first clip to its report, stage by stage."""

import argparse
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from data_tools.locks import locked
from pipelines.engine import distributed
from pipelines.engine.models import quiet_libraries
from pipelines.inference.load import load_run
from pipelines.shapes_study import arms, clip, conditioning, dit, evaluation, latents, llava, llm, probe, render, report
from pipelines.shapes_study.config import STUDY, ArmConfig, StudyConfig
from pipelines.shapes_study.plots import contact_sheet
from pipelines.shapes_study.publish import publish
from pipelines.shapes_study.results import RESULTS, Results, read_results, write_results
from pipelines.shapes_study.sharing import make_all
from pipelines.shapes_study.stages import Done, slug, stage
from vtok.assembly.build import build_framework
from vtok.config import ModelConfig
from vtok.framework import VTokFramework
from vtok.tokeniser import build_tokeniser

TEXT_ONLY, TRAINING_FREE = ArmConfig({"strategy": "none"}), ArmConfig({"strategy": "training_free"})


def run_study(a: argparse.Namespace, study: StudyConfig) -> None:
    """Runs the command ``study.py``.

    Args:
        a: The arguments that ``study.py`` parsed.
        study: The settings of the profile.

    Raises:
        ConfigError: A stage was made with other settings, or an arm's training was stopped or failed.
        DataError: The folder of a report has no results.
    """
    if a.report:
        print(report.write(a.report, study, read_results(a.report / RESULTS)))
        return
    quiet_libraries()
    print(run(study, a.output, report.origin_of("study.py", a, STUDY), a.publish))


def run(study: StudyConfig, output: Path, origin: str, publish_to: Path | None = None) -> Path:
    """Runs all stages and returns the report's path.

    Args:
        study: The study.
        output: Folder of the stages and the report.
        origin: Command and commit, for the report's first line.
        publish_to: See :mod:`pipelines.shapes_study.publish`.

    Raises:
        ConfigError: A stage was made with other settings, or an arm's training was stopped or failed.
    """
    (output / "locks").mkdir(parents=True, exist_ok=True)
    frozen = encoders(study, output)
    with locked(output / "locks" / "models", wait=False) as mine:
        if mine:
            judged_decoder(study, output, language_and_decoder(study, output, frozen))
        elif frozen["clip"].passed:  # another process makes them; meanwhile make what does not depend on them
            for name in study.arms:
                stored_features(study, output, name, frozen)
    frozen = judged_decoder(study, output, language_and_decoder(study, output, frozen))
    halves = open_halves(study, frozen)
    tokens = {name: tokens_of(study, model_of(study, arm, frozen)) for name, arm in study.arms.items()}
    training_free = tokens_of(study, model_of(study, TRAINING_FREE, frozen))
    tokens |= {read_as(name): training_free for name in study.arms}
    order = order_of(study) if halves else []
    results: dict[tuple[str, int], Result] = {}

    def written() -> Path:
        found = gathered(order, results, frozen, halves)
        found.origin, found.tokens = origin, tokens
        found.videos = contact_sheet(shown(study, output), output / report.VIDEOS)
        write_results(found, output / RESULTS)
        path = report.write(output, study, read_results(output / RESULTS))
        if publish_to:
            publish(output, publish_to)
        return path

    def made(name: str, seed: int) -> Result:
        return result_of(study, output, name, seed, frozen, halves)

    return make_all(order, output, results, made, written)


class Result(NamedTuple):
    """The finished stages of one arm with one seed.

    Attributes:
        trained: Its training.
        evaluated: Its evaluations, by protocol.
    """

    trained: Done
    evaluated: dict[str, Done]


def gathered(
    order: list[tuple[str, int]], results: dict[tuple[str, int], Result], frozen: dict[str, Done], halves: set[str]
) -> Results:
    """Returns what the stages measured so far. The figures of an arm are in the order of its seeds.

    Args:
        order: Arms and seeds.
        results: The runs that are done.
        frozen: The stages before joint training.
        halves: See :func:`open_halves`.
    """
    found = Results("", len(order) - len(results), {name: done.figures for name, done in frozen.items()})
    found.answers = {protocol: {} for protocol in report.MEASURED}
    if "generation" in halves:
        found.answers["generation"][report.UNTRAINED[0]] = [frozen["text_gate"].figures]
        found.answers["conditioning"][report.UNTRAINED[0]] = [frozen["text_worth"].figures]
    for name, seed in order:
        if (name, seed) in results:
            result = results[name, seed]
            found.trained.setdefault(name, []).append(result.trained.figures["curve"])
            for protocol, done in result.evaluated.items():
                row = read_as(name) if protocol == "training_free" else name
                found.answers[protocol].setdefault(row, []).append(done.figures)
    return found


def shown(study: StudyConfig, output: Path) -> list[Path]:
    """Returns the folders of the videos to show: those of the main table's arms with the first seed.

    A folder need not exist yet.
    """
    arms = [name for name, arm in study.arms.items() if "main" in arm.table]
    runs = [f"{name}-{study.seeds[0]} {protocol}" for name in arms for protocol in ("generation", "real")]
    return [output / "evaluation" / slug(name) / "videos" for name in (*report.UNTRAINED, *runs)]


def read_as(name: str) -> str:
    """Returns the name of the row for an arm whose model reads training-free tokens instead of its own."""
    return f"{name}, read training-free"


def order_of(study: StudyConfig) -> list[tuple[str, int]]:
    """Returns arms and seeds in order of work: the arms of the main table, then the ablations.

    Within each group all arms take the first seed before any takes the second. So a study that is cut short still has
    comparable arms.
    """
    main = [name for name, arm in study.arms.items() if "main" in arm.table]
    others = [name for name in study.arms if name not in main]
    return [(name, seed) for names in (main, others) for seed in study.seeds for name in names]


def encoders(study: StudyConfig, output: Path) -> dict[str, Done]:
    """Makes the stages that the arms' features depend on: ``render``, ``clip`` and ``latents``, by name."""
    seed, size = study.seed, study.render.size
    make = partial(render.make, config=study.render, seed=seed)
    done = {"render": stage(output / "render", [study.render, seed], [], make)}
    done["clip"] = stage(
        output / "clip", [study.clip, size, seed], [], partial(clip.make, config=study.clip, size=size, seed=seed)
    )
    done["latents"] = stage(
        output / "latents", [study.latents, study.seconds], [done["render"]],
        partial(latents.make, config=study.latents, seconds=study.seconds, render=done["render"].folder, seed=seed),
    )  # fmt: skip
    return done


def language_and_decoder(study: StudyConfig, output: Path, done: dict[str, Done]) -> dict[str, Done]:
    """Makes the language model, the image model and the decoder; returns all stages so far, by name.

    Args:
        study: The study.
        output: Folder of the stages.
        done: The stages of :func:`encoders`.
    """
    done, seed, size = dict(done), study.seed, study.render.size
    done["llm"] = stage(
        output / "llm", [study.llm, seed], [done["clip"]],
        partial(llm.make, config=study.llm, clip=done["clip"].folder, max_prompt_tokens=arms.PROMPT_TOKENS, seed=seed),
    )  # fmt: skip
    done["llava"] = stage(
        output / "llava", [study.llava, size, study.tokeniser["spatial_grid_size"], seed], [done["llm"]],
        partial(
            llava.make, config=study.llava, clip=done["clip"].folder, llm=done["llm"].folder, size=size,
            grid=study.tokeniser["spatial_grid_size"], max_prompt_tokens=arms.PROMPT_TOKENS, seed=seed,
        ),
    )  # fmt: skip
    before = [done["clip"], done["latents"], done["llava"]]
    text_dim = study.llm.language["hidden_size"]
    settings = [study.dit.fit, study.dit.transformer, study.dit.shift, seed]

    def train_decoder(folder: Path) -> dict:
        dit.write(folder, study.dit, done["clip"].folder, done["latents"].folder, text_dim, seed)
        return dit.train(folder, study.dit, text_only(study, done, folder), done["latents"].folder, seed)

    done["dit"] = stage(output / "dit", settings, before, train_decoder)
    return done


def judged_decoder(study: StudyConfig, output: Path, done: dict[str, Done]) -> dict[str, Done]:
    """Chooses the decoder's guidance and judges it before joint training; returns all stages so far, by name.

    Args:
        study: The study.
        output: Folder of the stages.
        done: The stages of :func:`language_and_decoder`.
    """
    done, clips = dict(done), done["render"].folder
    done["guidance"] = stage(
        output / "guidance", [study.dit.guidance, study.dit.guidance_videos, study.evaluation, study.seconds],
        [done["dit"], done["render"]],
        lambda folder: evaluation.choose_guidance(
            folder, study, text_only(study, done, done["dit"].folder), clips / "dev"
        ),
    )  # fmt: skip
    done["text_gate"] = stage(
        output / "evaluation" / slug("none, untuned"), [study.dit.gate_videos, study.evaluation, study.seconds],
        [done["guidance"], done["render"]],
        lambda folder: evaluation.text_gate(folder, study, build(model_of(study, TEXT_ONLY, done)), clips / "test"),
    )  # fmt: skip
    done["text_worth"] = stage(
        output / "evaluation" / slug("none, untuned, conditioning"), [study.seconds], [done["dit"], done["render"]],
        lambda folder: conditioning.worth(
            folder, study, evaluation.untrained(text_only(study, done, done["dit"].folder)), clips / "dev"
        ),
    )  # fmt: skip
    return done


def text_only(study: StudyConfig, frozen: dict[str, Done], decoder: Path) -> VTokFramework:
    """Builds the framework without visual tokens, joint training or guidance.

    Args:
        study: The study.
        frozen: The stages before joint training.
        decoder: Folder of the stage ``dit``.
    """
    return build(arms.model_of(study, TEXT_ONLY, frozen["clip"].folder, frozen["llava"].folder, decoder / dit.HUNYUAN))


def build(model: ModelConfig) -> VTokFramework:
    """Builds a framework at evaluation on the current device."""
    return build_framework(model).eval().to(distributed.device())


def model_of(study: StudyConfig, arm: ArmConfig, frozen: dict[str, Done]) -> ModelConfig:
    """Returns the configuration of an arm's model, with the guidance that was chosen."""
    encoder, language, decoder = (frozen[name].folder for name in ("clip", "llava", "dit"))
    guidance = frozen["guidance"].figures["guidance"]
    return arms.model_of(study, arm, encoder, language, decoder / dit.HUNYUAN, guidance)


def tokens_of(study: StudyConfig, model: ModelConfig) -> int:
    """Returns how many visual tokens a whole clip has."""
    return sum(build_tokeniser(model.tokeniser).counts(round(study.seconds * model.tokeniser.fps) + 1))


def open_halves(study: StudyConfig, frozen: dict[str, Done]) -> set[str]:
    """Returns the halves of the study whose gates passed.

    If the encoder fails, no half runs. If the decoder fails, only ``understanding`` runs.
    """
    encoder, decoder = (frozen[name].passed or not study.enforce_gates for name in ("clip", "text_gate"))
    if not encoder:
        return set()
    return {"understanding", "generation"} if decoder else {"understanding"}


def result_of(
    study: StudyConfig, output: Path, name: str, seed: int, frozen: dict[str, Done], halves: set[str]
) -> Result:
    """Trains an arm with one seed and evaluates it."""
    arm, clips = study.arms[name], frozen["render"].folder
    model = model_of(study, arm, frozen)
    if "generation" not in halves:
        model.loss = replace(model.loss, dec=0.0)
    features = partial(stored_features, study, output, name, frozen)  # computed only if a stage needs them
    trained = stage(
        output / "arms" / slug(f"{name}-{seed}"),
        [study.train, study.loss, study.tokeniser, arm.tokeniser, arm.g_phi_of_grid, study.seconds, sorted(halves),
         seed],
        [frozen["guidance"]],
        lambda folder: arms.train(folder, study, model, features() / arms.SHARDS, seed),
    )  # fmt: skip
    evaluated = evaluate_arm(study, output, name, arm, seed, trained, clips, halves)
    if seed == study.seeds[0] and arm.tokeniser.get("strategy") != "none":
        vocabulary, cells = frozen["clip"].folder / clip.TOKENIZER, model.tokeniser.spatial_grid_size**2
        evaluated["probe"] = stage(
            output / "evaluation" / slug(f"{features_name(study, name)}, probe"),
            [study.probe, seed, study.tokeniser, arm.tokeniser, study.seconds], [frozen["clip"], frozen["render"]],
            lambda folder: probe.ask(
                folder, features() / arms.SHARDS, clips / "train", vocabulary, cells, study.probe, seed
            ),
        )  # fmt: skip
    return Result(trained, evaluated)


def stored_features(study: StudyConfig, output: Path, name: str, frozen: dict[str, Done]) -> Path:
    """Makes the stage with the clips' features and latents for an arm, and returns its folder."""
    first = features_name(study, name)
    made_from = [frozen["clip"], frozen["latents"], frozen["render"]]
    encoder, autoencoder, clips = (done.folder for done in made_from)
    model = arms.model_of(study, study.arms[first], encoder, output / "llava", autoencoder)  # llava is not read
    return stage(
        output / "features" / slug(first), [study.tokeniser, study.arms[first].tokeniser, study.seconds], made_from,
        lambda folder: arms.precompute(folder, study, model, clips / "shards"),
    ).folder  # fmt: skip


def features_name(study: StudyConfig, name: str) -> str:
    """Returns the first arm that has the same features. Arms that differ in ``g_phi`` alone share them."""
    return next(other for other, arm in study.arms.items() if arm.tokeniser == study.arms[name].tokeniser)


def evaluate_arm(
    study: StudyConfig, output: Path, name: str, arm: ArmConfig, seed: int, trained: Done, clips: Path, halves: set[str]
) -> dict[str, Done]:
    """Evaluates an arm with one seed and returns the stages, by protocol.

    Args:
        study: The study.
        output: Folder of the stages.
        name: Name of the arm.
        arm: The arm.
        seed: The seed.
        trained: Its training.
        clips: Folder of the splits.
        halves: See :func:`open_halves`.
    """
    test = clips / "test"
    load = cache(lambda: load_run(trained.folder / "run", ema=True))
    videos = study.evaluation.videos
    tasks = {"understanding": lambda folder: evaluation.understanding(folder, study, load, test)}
    if "training_free" in arm.table:
        swapped = cache(lambda: evaluation.read_training_free(load_run(trained.folder / "run", ema=True)))
        tasks["training_free"] = lambda folder: evaluation.understanding(folder, study, swapped, test)
    if "generation" in halves:
        tasks["generation"] = lambda folder: evaluation.generation(folder, study, load, test, videos)
        if arm.tokeniser.get("strategy") != "none":
            tasks["real"] = lambda folder: evaluation.generation(folder, study, load, test, videos, real=True)
        if "main" in arm.table:
            tasks["conditioning"] = lambda folder: conditioning.worth(folder, study, load, clips / "dev")
    return {
        protocol: stage(
            output / "evaluation" / slug(f"{name}-{seed} {protocol}"),
            [study.evaluation, study.seconds],
            [trained],
            task,
        )
        for protocol, task in tasks.items()
    }
