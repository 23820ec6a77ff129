"""Trains the base models of the small models, stage by stage: everything before joint training."""

from functools import partial
from pathlib import Path

from pipelines.engine import distributed
from pipelines.shapes_study import arms, clip, dit, latents, llava, llm, render
from pipelines.shapes_study.config import ArmConfig, StudyConfig
from pipelines.shapes_study.stages import Done, stage
from vtok.assembly.build import build_framework
from vtok.config import ModelConfig
from vtok.framework import VTokFramework

TEXT_ONLY = ArmConfig({"strategy": "none"})


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
