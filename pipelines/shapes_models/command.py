"""Trains the small models, one stage after another.

The folders of DIR are the stages. DIR/family holds the models as they are shipped.
"""

from functools import partial
from pathlib import Path

from transformers import LlavaNextForConditionalGeneration

from pipelines.engine import distributed
from pipelines.engine.models import quiet_libraries
from pipelines.shapes_models import clip, clips, decoder, family, joint, judged, llava, llm, pictures, tower
from pipelines.shapes_models.clip import CLIP, TOKENIZER
from pipelines.shapes_models.config import ModelsConfig
from pipelines.shapes_models.decoder import HUNYUAN
from pipelines.shapes_models.joint_run import PROMPT_TOKENS, decoder_of
from pipelines.shapes_study.stages import stage
from vtok.assembly.build import build_framework
from vtok.config import MLLMConfig, ModelConfig, VTokConfig
from vtok.framework import VTokFramework
from vtok.mllm.llava_next import split_llava


def run(config: ModelsConfig, output: Path) -> Path:
    """Makes all stages and returns the folder of the models.

    Raises:
        ConfigError: A stage was made with other settings.
    """
    quiet_libraries()
    seed, later, size = config.seed, config.later_seed, config.render.size
    made_clip = stage(
        output / "clip", [config.clip, size, seed], [],
        partial(clip.make, config=config.clip, size=size, seed=seed),
    )  # fmt: skip
    language = stage(
        output / "llm", [config.llm, seed], [made_clip],
        partial(llm.make, config=config.llm, clip=made_clip.folder, max_prompt_tokens=PROMPT_TOKENS, seed=seed),
    )  # fmt: skip
    sees = {"clip": made_clip.folder, "size": size, "grid": config.grid, "max_prompt_tokens": PROMPT_TOKENS}
    image = stage(
        output / "llava", [config.llava, size, config.grid, seed], [language],
        partial(llava.make, config=config.llava, llm=language.folder, seed=seed, **sees),
    )  # fmt: skip
    described = stage(
        output / "pictures", [config.descriptions, later], [image],
        lambda _: pictures.make(llava=image.folder, asked=config.descriptions, seed=later, **sees),
    )  # fmt: skip
    made_tower = stage(
        output / "tower", [config.tower, later], [made_clip],
        partial(tower.make, config=config.tower, clip=made_clip.folder, seed=later),
    )  # fmt: skip
    made_clips = stage(
        output / "clips", [config.clips, config.latents, config.render, config.seconds, config.grid, later],
        [made_clip], partial(clips.make, config=config, clip=made_clip.folder),
    )  # fmt: skip

    def text_only_with(decoder_folder: Path) -> VTokFramework:
        return text_only(config, made_clip.folder, image.folder, decoder_folder)

    def train_decoder(folder: Path) -> dict:
        if not (folder / decoder.TOLD).exists():
            decoder.write(folder, config, made_tower.folder, made_clip.folder / TOKENIZER, made_clips.folder)
        whole = LlavaNextForConditionalGeneration.from_pretrained(image.folder / llm.LLAVA)
        projector = split_llava(whole, MLLMConfig()).projector
        return decoder.train(folder, config.decoder, text_only_with(folder), projector, made_clips.folder, later)

    trained = stage(
        output / "decoder", [config.decoder, config.transformer, config.shift, later],
        [made_tower, made_clips, image], train_decoder,
    )  # fmt: skip
    scored = stage(
        output / "judged", [config.videos, config.denoising_steps, config.guidance, later], [trained],
        lambda folder: judged.make(folder, config, text_only_with(trained.folder)),
    )  # fmt: skip
    rendered = stage(
        output / "rendered", [config.joint.clips, config.joint.descriptions, config.render, later], [],
        partial(joint.render, config=config),
    )  # fmt: skip
    joined = stage(
        output / "joint", [config.joint, config.seconds, config.guidance, config.denoising_steps, later],
        [trained, image, rendered],
        partial(
            joint.train, config=config, clip=made_clip.folder, llava=image.folder, hunyuan=trained.folder / HUNYUAN,
            rendered=rendered.folder,
        ),
    )  # fmt: skip
    stages = {
        "clip": made_clip, "llm": language, "llava": image, "pictures": described, "tower": made_tower,
        "clips": made_clips, "decoder": trained, "judged": scored, "rendered": rendered, "joint": joined,
    }  # fmt: skip
    return stage(output / "family", [], list(stages.values()), partial(family.make, stages=stages)).folder


def text_only(config: ModelsConfig, clip_folder: Path, llava_folder: Path, decoder_folder: Path) -> VTokFramework:
    """Builds a framework without visual tokens and without joint training.

    Args:
        config: The settings.
        clip_folder: Folder of the stage ``clip``.
        llava_folder: Folder of the stage ``llava``.
        decoder_folder: Folder of the stage ``decoder``.
    """
    model = ModelConfig(
        tokeniser=VTokConfig(strategy="none", weights=str(clip_folder / CLIP)),
        mllm=MLLMConfig(weights=str(llava_folder / llm.LLAVA)),
        decoder=decoder_of(config, decoder_folder / HUNYUAN),
    )
    return build_framework(model).eval().to(distributed.device())
