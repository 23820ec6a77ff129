"""Trains the small models, one stage after another.

DIR/study holds the study's stages; the other folders of DIR are the stages of this package. DIR/family holds the models
as they are shipped.
"""

from functools import partial
from pathlib import Path

from pipelines.engine import distributed
from pipelines.engine.models import quiet_libraries
from pipelines.shapes_models import clips, decoder, family, joint, judged, reader, tower
from pipelines.shapes_models.config import ModelsConfig
from pipelines.shapes_study import llm
from pipelines.shapes_study.arms import PROMPT_TOKENS
from pipelines.shapes_study.clip import CLIP
from pipelines.shapes_study.command import encoders, language_and_decoder
from pipelines.shapes_study.config import STUDY, StudyConfig, load_study
from pipelines.shapes_study.dit import HUNYUAN
from pipelines.shapes_study.stages import Done, stage
from vtok.assembly.build import build_framework
from vtok.config import DecoderConfig, MLLMConfig, ModelConfig, VTokConfig
from vtok.framework import VTokFramework


def run(config: ModelsConfig, output: Path) -> Path:
    """Makes all stages and returns the folder of the models.

    Raises:
        ConfigError: A stage was made with other settings.
    """
    quiet_libraries()
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
    grid = study.tokeniser["spatial_grid_size"]
    read = stage(
        output / "reader", [config.reader, config.descriptions, study.render.size, grid, seed], [first["llava"]],
        partial(
            reader.make, config=config.reader, clip=first["clip"].folder, llava=first["llava"].folder,
            size=study.render.size, grid=grid, max_prompt_tokens=PROMPT_TOKENS, asked=config.descriptions, seed=seed,
        ),
    )  # fmt: skip
    rendered = stage(
        output / "rendered", [config.joint.clips, config.joint.descriptions, study.render, seed], [],
        partial(joint.render, config=config.joint, study=study, seed=seed),
    )  # fmt: skip
    joined = stage(
        output / "joint", [config.joint, config.guidance, config.denoising_steps, study.train, study.loss, seed],
        [trained, read, rendered],
        partial(
            joint.train, config=config, study=study, clip=first["clip"].folder, llava=read.folder,
            hunyuan=trained.folder / HUNYUAN, rendered=rendered.folder,
        ),
    )  # fmt: skip
    made = {"reader": read, "tower": made_tower, "clips": made_clips, "decoder": trained, "judged": scored}
    stages = first | made | {"rendered": rendered, "joint": joined}
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
