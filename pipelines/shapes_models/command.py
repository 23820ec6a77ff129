"""Trains the small models, one stage after another.

    nice -n 19 python pipelines/train_shapes_models.py --profile smoke|cpu --output DIR

DIR/study holds the study's stages; the other folders of DIR are the stages of this package. DIR/family holds the models
as they are shipped.
"""

import argparse
from functools import partial
from pathlib import Path

from data_tools.errors import DataError
from pipelines.cli.errors import die
from pipelines.engine import distributed
from pipelines.engine.models import quiet_libraries
from pipelines.shapes_models import clips, decoder, family, judged, tower
from pipelines.shapes_models.config import PROFILES, ModelsConfig, load_models
from pipelines.shapes_study import llm
from pipelines.shapes_study.arms import PROMPT_TOKENS
from pipelines.shapes_study.clip import CLIP
from pipelines.shapes_study.command import encoders, language_and_decoder
from pipelines.shapes_study.config import STUDY, StudyConfig, load_study
from pipelines.shapes_study.dit import HUNYUAN
from pipelines.shapes_study.stages import Done, stage
from vtok.assembly.build import build_framework
from vtok.config import ConfigError, DecoderConfig, MLLMConfig, ModelConfig, VTokConfig
from vtok.framework import VTokFramework


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="Train the small models that vtok ships.")
    parser.add_argument("--config", type=Path, default=PROFILES, help="YAML of the profiles")
    parser.add_argument("--profile", required=True, help="profile in the YAML: smoke, cpu")
    parser.add_argument("--output", type=Path, required=True, help="folder for the stages and the models")
    a = parser.parse_args(argv)
    try:
        quiet_libraries()
        print(run(load_models(a.config, a.profile), a.output))
    except (ConfigError, DataError) as error:
        die("shapes_models", error)


def run(config: ModelsConfig, output: Path) -> Path:
    """Makes all stages and returns the folder of the models.

    Raises:
        ConfigError: A stage was made with other settings.
    """
    study, seed = load_study(STUDY, config.study), config.seed
    first = encoders(study, output / "study")
    first = language_and_decoder(study, output / "study", first)
    made_tower = stage(
        output / "tower", [config.tower, seed], [first["clip"]],
        partial(tower.make, config=config.tower, clip=first["clip"].folder, seed=seed),
    )  # fmt: skip
    made_clips = stage(
        output / "clips", [config.clips, config.channels, seed], [first["latents"]],
        partial(
            clips.make, clips=config.clips, channels=config.channels, study=study, latents=first["latents"].folder,
            seed=seed,
        ),
    )  # fmt: skip

    def train_decoder(folder: Path) -> dict:
        if not (folder / decoder.TOLD).exists():
            decoder.write(folder, first, made_tower.folder, made_clips.folder, seed)
        return decoder.train(folder, config.decoder, text_only(config, study, first, folder), made_clips.folder)

    trained = stage(
        output / "decoder", [config.decoder, seed], [made_tower, made_clips, first["llava"], first["dit"]],
        train_decoder,
    )  # fmt: skip
    scored = stage(
        output / "judged", [config.videos, config.denoising_steps, config.guidance, seed], [trained],
        lambda folder: judged.make(folder, config, study, text_only(config, study, first, trained.folder)),
    )  # fmt: skip
    stages = first | {"tower": made_tower, "clips": made_clips, "decoder": trained, "judged": scored}
    return stage(output / "family", [], list(stages.values()), partial(family.make, stages=stages)).folder


def text_only(config: ModelsConfig, study: StudyConfig, first: dict[str, Done], decoder_folder: Path) -> VTokFramework:
    """Builds a framework without visual tokens and without joint training.

    Args:
        config: The settings.
        study: Settings of the study that the models start from.
        first: The study's stages.
        decoder_folder: Folder of the stage ``decoder``.
    """
    latents = study.latents
    model = ModelConfig(
        tokeniser=VTokConfig(strategy="none", weights=str(first["clip"].folder / CLIP)),
        mllm=MLLMConfig(weights=str(first["llava"].folder / llm.LLAVA)),
        decoder=DecoderConfig(
            weights=str(decoder_folder / HUNYUAN), fps=latents.fps, height=latents.size, width=latents.size,
            max_prompt_tokens=PROMPT_TOKENS, guidance=1.0, true_guidance=config.guidance,
        ),
    )  # fmt: skip
    return build_framework(model).eval().to(distributed.device())
