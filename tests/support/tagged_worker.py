"""A process with the tagged device: what our code does on it, and on the CPU, as JSON on the last line.

tagged_worker.py MODELS QWEN_MODELS FOLDER          folders of tiny models, and an empty one

Of each thing that is done it tells ``mixtures``, the places that mixed devices, ``waits``, the functions in which the
host would wait for the device, and the thing's own figures.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines.config import CheckpointConfig, RunConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.calibration import calibrate
from pipelines.engine.internals import masters, optimiser_of, start_moments
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.ema import Ema
from pipelines.engine.saving.folders import newest
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import settle_buffers
from pipelines.engine.stepping import train_step
from pipelines.engine.watching import validation
from pipelines.engine.watching.examples import Example
from support.tagged_device import TaggedDevice, register
from support.tagged_engine import StandInEngine
from support.tensor_uses import uses
from support.tiny import make_batch, model_config, planned_config, qwen_config, wan_config, with_strategy
from vtok.assembly.build import build_framework
from vtok.config import ModelConfig, VisualHeadConfig
from vtok.framework import LOSSES, VTokFramework
from vtok.generation import generate
from vtok.rows.batch import Batch
from vtok.understanding import answer_losses, video_embeddings
from vtok.weights.materialise import whole

CPU = torch.device("cpu")


def framework_on(device: torch.device, config: ModelConfig, dtype: torch.dtype = torch.float32) -> VTokFramework:
    """A framework in training mode, its weights read straight to the device, as a run reads them."""
    torch.manual_seed(0)
    framework = build_framework(config, whole(dtype, device)).train()
    settle_buffers(framework, device)
    return framework


@contextmanager
def observed(found: TaggedDevice, stations: dict[str, dict], name: str) -> Iterator[dict]:
    """Puts what is found inside, and the figures that are put into what is given, under a name."""
    found.mixtures.clear()
    found.waits.clear()
    figures: dict = {}
    yield figures
    waits = [f"{wait.function}: {wait.why}" for wait in found.waits]
    stations[name] = figures | {"mixtures": list(map(str, found.mixtures)), "waits": waits}


# ---------------------------------------------------------------- a run


def engine_on(device: torch.device, run: RunConfig) -> StandInEngine:
    return StandInEngine(framework_on(device, run.model), run.train, device)


def one_step(engine: StandInEngine, loaded: Loaded) -> dict:
    """A step on four clips; its losses and the norm of its gradients."""
    step = train_step(engine, repeat(loaded), plan_batch(4, 4, 1))
    return {name: step.figures[name] for name in (*LOSSES, "grad_norm")}


def a_run(device: torch.device, found: TaggedDevice, run: RunConfig, folder: Path) -> dict[str, dict]:
    """What a run does, one thing after another; it saves into ``folder``."""
    distributed.device = lambda: device  # in a build without CUDA it says "cpu"
    stations: dict[str, dict] = {}
    station = partial(observed, found, stations)
    with station("build"):
        engine = engine_on(device, run)
    loaded = Loaded(make_batch(engine.module).to(device), [])  # a loader moves it ahead of the step
    with station("calibrate"):
        calibrate(engine.module, [loaded], device)
    ema = Ema(engine, 0.9)
    with station("first step") as figures:
        figures |= one_step(engine, loaded)
    with station("average") as figures:
        ema.update(1)
        figures["distance"] = ema.distance()
    with station("save"):
        state = checkpoint.fresh_state(0, "", 1, engine.module, {})
        state.step = state.updates = 1
        folder.mkdir()
        (folder / "config.yaml").write_text("seed: 0\n")
        writer = Writer(folder, CheckpointConfig(), engine, ema)
        writer.save(state)
        writer.wait()
    with station("validate") as figures, ema.applied():
        figures |= validated(engine.module, device, run)
    with station("second step") as figures:
        figures |= one_step(engine, loaded)

    resumed = engine_on(device, run)
    with station("resume"):
        resume(resumed, Ema(resumed, 0.9), folder)
    with station("second step, resumed") as figures:
        figures |= one_step(resumed, loaded)
    return stations


def resume(engine: StandInEngine, ema: Ema | None, output: Path) -> None:
    folder = newest(output)
    checkpoint.resume(engine, ema, folder, checkpoint.read_state(folder))


def validated(framework: VTokFramework, device: torch.device, run: RunConfig) -> dict:
    """A validation with a caption and a video; four random clips stand in for held-out shards."""
    batch = make_batch(framework)
    validation.micro_batches = lambda *arguments, **options: iter([Loaded(batch.to(device), [])])
    judge = object.__new__(validation.Validation)
    judge.config, judge.device = run, device
    judge.splits = [validation.Split("clips", None, 4, 1.0)]
    example = Example("clip0", batch.frames[0], 9, "A red circle.", "What moves?", "A red circle.", seed=3)
    judge.to_caption = judge.to_draw = [example]
    figures, (caption,), (video,) = judge.run(framework)
    numbers = {name: figures[name] for name in LOSSES}
    return numbers | {"caption": caption.answer, "video": video.frames.float().mean().item()}


# ---------------------------------------------------------------- what has to be found


def bugs(device: torch.device, found: TaggedDevice, run: RunConfig, folder: Path) -> dict[str, dict]:
    """Three of them: a forgotten move in a forward pass, the same backwards only, AdamW's ``step`` on the host."""
    stations: dict[str, dict] = {}
    for name, plant in {"forgotten move": forgotten_move, "forgotten move, backward": ForgottenMove.apply}.items():
        framework = framework_on(device, run.model)
        encode = framework.tokeniser.encode
        framework.tokeniser.encode = lambda features, plant=plant, encode=encode: plant(encode(features))
        with observed(found, stations, name):
            framework(make_batch(framework).to(device))["loss"].backward()

    checkpoint.start_moments = start_moments_on_the_host
    engine = engine_on(device, run)
    resume(engine, None, folder)  # what a_run saved
    loaded = Loaded(make_batch(engine.module).to(device), [])
    with observed(found, stations, "step on the host"):
        one_step(engine, loaded)
    return stations


def start_moments_on_the_host(engine: StandInEngine, updates: int) -> None:
    """As it was: AdamW's ``step`` beside no parameter."""
    start_moments(engine, updates)
    for flat in masters(engine):
        state = optimiser_of(engine).state[flat]
        state["step"] = state["step"].cpu()


def forgotten_move(tokens: Tensor) -> Tensor:
    return tokens * torch.ones(tokens.shape[-1])


class ForgottenMove(torch.autograd.Function):
    """The identity, whose gradient forgets a move."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor) -> Tensor:
        return tokens.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return forgotten_move(gradient)


# ---------------------------------------------------------------- each operator's rule


def rules(device: torch.device, found: TaggedDevice) -> dict[str, dict]:
    """Why a use is refused, or waits, by name; those that are neither are not named."""
    refused, waiting = {}, {}
    for name, use in uses(device).items():
        found.mixtures.clear()
        found.waits.clear()
        use()
        refused |= {name: mixture.why for mixture in found.mixtures}
        waiting |= {name: wait.why for wait in found.waits}
    return {"refused": refused, "waiting": waiting}


# ---------------------------------------------------------------- every strategy, head, decoder and language model


def variants(models: Path, qwen_models: Path) -> dict[str, ModelConfig]:
    base = model_config(models)

    def tokeniser(**changes: Any) -> ModelConfig:
        return replace(base, tokeniser=replace(base.tokeniser, **changes))

    def head(**settings: Any) -> ModelConfig:
        return replace(base, visual_head=VisualHeadConfig(**settings))

    return {
        "gmm": base,
        "bf16": base,
        "mse": head(kind="mse"),
        "flow": head(kind="flow", width=32, depth=1, steps=2),
        "codes": head(kind="codes", levels=8),
        "residual grid": tokeniser(residual_grid=2),
        "frames": tokeniser(strategy="frames", sampled_frames=3),
        "none": tokeniser(strategy="none"),
        "training_free": tokeniser(strategy="training_free"),
        **{name: with_strategy(base, models, strategy=name) for name in ("video-lavit", "omnitokenizer")},
        "detected key frame": tokeniser(key_frame_idx="detect"),
        "stored": base,
        "wan": wan_config(models),
        "wan_experts": wan_config(models, "wan_experts", expert="high_noise"),
        "qwen2.5-vl": qwen_config(qwen_models),
    }


def micro_steps(device: torch.device, found: TaggedDevice, configs: dict[str, ModelConfig]) -> dict[str, dict]:
    """Forward and backward of four clips by each variant: losses and the norm of the gradients."""
    stations: dict[str, dict] = {}
    for name, config in configs.items():
        framework = framework_on(device, config, torch.bfloat16 if name == "bf16" else torch.float32)
        batch = make_batch(framework, size=framework.tokeniser.feature_extractor.image_size).to(device)
        if name == "stored":
            features = framework.tokeniser.features(batch.frames, batch.frame_counts)
            batch = batch._replace(frames=features, video=framework.decoder.encode(batch.video))
        with observed(found, stations, name):
            losses = framework(batch)
            losses["loss"].backward()
        norms = [p.grad.float().norm() for p in framework.parameters() if p.grad is not None]
        stations[name] |= {key: loss.item() for key, loss in losses.items()} | {
            "norm": torch.stack(norms).norm().item()
        }
        if name in USES:
            with observed(found, stations, f"use {name}") as figures:
                figures["result"] = USES[name](framework.eval(), batch)
    return stations


def likelihood(framework: VTokFramework, batch: Batch) -> float:
    visual = video_embeddings(framework, batch.frames[0])
    losses = answer_losses(framework, visual, [batch.frames.shape[1]], "What moves?", ["A red circle.", "Blue."])
    return torch.cat(losses).sum().item()


def generated(framework: VTokFramework, batch: Batch) -> float:
    """Mean of a video that is led away from the empty prompt too."""
    framework.config.decoder.true_guidance = 2.0
    draws = torch.Generator().manual_seed(0)
    return generate(framework, "A red circle.", 1.0, steps=2, generator=draws).float().mean().item()


# What some variants are asked for, beside a micro-step.
USES = {"gmm": likelihood, "mse": generated, "flow": generated, "codes": generated, "wan": generated,
        "qwen2.5-vl": likelihood}  # fmt: skip


if __name__ == "__main__":
    models, qwen_models, folder = map(Path, sys.argv[1:])
    run = planned_config(models)
    run.validation.denoising_steps = 2
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    configs = variants(models, qwen_models)
    everything: dict[str, dict] = {}
    with sdpa_kernel(SDPBackend.MATH):  # the implementation that the device has
        nowhere = TaggedDevice()  # not entered, finds nothing
        everything["cpu"] = a_run(CPU, nowhere, run, folder / "cpu") | micro_steps(CPU, nowhere, configs)
        device = register()
        with TaggedDevice() as found:
            everything["device"] = a_run(device, found, run, folder / "device") | micro_steps(device, found, configs)
            everything["bugs"] = bugs(device, found, run, folder / "device")
            everything["rules"] = rules(device, found)
    print(json.dumps(everything))
