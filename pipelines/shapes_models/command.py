"""Trains the small models, one stage after another.

The folders of DIR are the stages. DIR/family holds the models as they are shipped.
"""

from functools import partial
from pathlib import Path

from transformers import LlavaNextForConditionalGeneration

from pipelines.engine import distributed
from pipelines.engine.models import quiet_libraries
from pipelines.shapes_models import clips, decoder, family, joint, judged, pictures, tower
from pipelines.shapes_models.config import ModelsConfig
from pipelines.shapes_study import clip, llava, llm
from pipelines.shapes_study.arms import PROMPT_TOKENS
from pipelines.shapes_study.clip import CLIP, TOKENIZER
from pipelines.shapes_study.config import STUDY, StudyConfig, load_study
from pipelines.shapes_study.dit import HUNYUAN
from pipelines.shapes_study.stages import stage
from vtok.assembly.build import build_framework
from vtok.config import DecoderConfig, MLLMConfig, ModelConfig, VTokConfig
from vtok.framework import VTokFramework
from vtok.mllm.llava_next import split_llava


def run(config: ModelsConfig, output: Path) -> Path:
    """Makes all stages and returns the folder of the models.

    Raises:
        ConfigError: A stage was made with other settings.
    """
    quiet_libraries()
    study, seed = load_study(STUDY, config.study), config.seed
    size, grid = study.render.size, study.tokeniser["spatial_grid_size"]
    made_clip = stage(
        output / "clip", [study.clip, size, study.seed], [],
        partial(clip.make, config=study.clip, size=size, seed=study.seed),
    )  # fmt: skip
    language = stage(
        output / "llm", [study.llm, study.seed], [made_clip],
        partial(llm.make, config=study.llm, clip=made_clip.folder, max_prompt_tokens=PROMPT_TOKENS, seed=study.seed),
    )  # fmt: skip
    sees = {"clip": made_clip.folder, "size": size, "grid": grid, "max_prompt_tokens": PROMPT_TOKENS}
    image = stage(
        output / "llava", [study.llava, size, grid, study.seed], [language],
        partial(llava.make, config=study.llava, llm=language.folder, seed=study.seed, **sees),
    )  # fmt: skip
    described = stage(
        output / "pictures", [config.descriptions, size, grid, seed], [image],
        lambda _: pictures.make(llava=image.folder, asked=config.descriptions, seed=seed, **sees),
    )  # fmt: skip
    made_tower = stage(
        output / "tower", [config.tower, seed], [made_clip],
        partial(tower.make, config=config.tower, clip=made_clip.folder, seed=seed),
    )  # fmt: skip
    made_clips = stage(
        output / "clips", [config.clips, config.channels, study.latents, study.seconds, grid, seed], [made_clip],
        partial(
            clips.make, clips=config.clips, channels=config.channels, study=study, clip=made_clip.folder, seed=seed
        ),
    )  # fmt: skip

    def text_only_with(decoder_folder: Path) -> VTokFramework:
        return text_only(config, study, made_clip.folder, image.folder, decoder_folder)

    def train_decoder(folder: Path) -> dict:
        if not (folder / decoder.TOLD).exists():
            tokenizer, width = made_clip.folder / TOKENIZER, study.llm.language["hidden_size"]
            decoder.write(folder, study.dit, made_tower.folder, tokenizer, made_clips.folder, width, seed)
        projector = split_llava(
            LlavaNextForConditionalGeneration.from_pretrained(image.folder / llm.LLAVA), MLLMConfig()
        ).projector
        return decoder.train(folder, config.decoder, text_only_with(folder), projector, made_clips.folder, seed)

    trained = stage(
        output / "decoder", [config.decoder, study.dit.transformer, study.dit.shift, seed],
        [made_tower, made_clips, image], train_decoder,
    )  # fmt: skip
    scored = stage(
        output / "judged", [config.videos, config.denoising_steps, config.guidance, seed], [trained],
        lambda folder: judged.make(folder, config, study, text_only_with(trained.folder)),
    )  # fmt: skip
    rendered = stage(
        output / "rendered", [config.joint.clips, config.joint.descriptions, study.render, seed], [],
        partial(joint.render, config=config.joint, study=study, seed=seed),
    )  # fmt: skip
    joined = stage(
        output / "joint", [config.joint, config.guidance, config.denoising_steps, study.train, study.loss, seed],
        [trained, image, rendered],
        partial(
            joint.train, config=config, study=study, clip=made_clip.folder, llava=image.folder,
            hunyuan=trained.folder / HUNYUAN, rendered=rendered.folder,
        ),
    )  # fmt: skip
    stages = {
        "clip": made_clip, "llm": language, "llava": image, "pictures": described, "tower": made_tower,
        "clips": made_clips, "decoder": trained, "judged": scored, "rendered": rendered, "joint": joined,
    }  # fmt: skip
    return stage(output / "family", [], list(stages.values()), partial(family.make, stages=stages)).folder


def text_only(
    config: ModelsConfig, study: StudyConfig, clip_folder: Path, llava_folder: Path, decoder_folder: Path
) -> VTokFramework:
    """Builds a framework without visual tokens and without joint training.

    Args:
        config: The settings.
        study: The study, whose decoder has this frame rate and size.
        clip_folder: Folder of the stage ``clip``.
        llava_folder: Folder of the stage ``llava``.
        decoder_folder: Folder of the stage ``decoder``.
    """
    latents = study.latents
    model = ModelConfig(
        tokeniser=VTokConfig(strategy="none", weights=str(clip_folder / CLIP)),
        mllm=MLLMConfig(weights=str(llava_folder / llm.LLAVA)),
        decoder=DecoderConfig(
            weights=str(decoder_folder / HUNYUAN), fps=latents.fps, height=latents.size, width=latents.size,
            max_prompt_tokens=PROMPT_TOKENS, guidance=1.0, true_guidance=config.guidance,
        ),
    )  # fmt: skip
    return build_framework(model).eval().to(distributed.device())
