"""Does noise on teacher-forced visual inputs help against exposure bias? Measured on tiny models.

python pipelines/benchmarks/exposure.py

For each standard deviation of ``visual_head.input_noise`` the same tiny model learns L_visLM on clips of moving shapes.
Then, for captions it has not seen,

    forced     L_visLM with the true tokens before each
    drift      how far sampled videos are from true ones: Frechet distance of the standardised features with diagonal
               covariance, per dimension, averaged over the last half of the motion tokens (64 true videos lie about
               0.06 from 64 others)
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from data_tools.draws import Draws
from data_tools.shapes import caption_of, draw_scene, render
from pipelines.engine.models import quiet_libraries
from vtok.assembly.build import build_framework
from vtok.assembly.tiny import write_tiny_models
from vtok.config import DecoderConfig, LossConfig, MLLMConfig, ModelConfig, VisualHeadConfig, VTokConfig
from vtok.framework import VTokFramework
from vtok.generation import sample_row
from vtok.rows.batch import Batch
from vtok.tokeniser import VisualFeatures

FPS, FRAMES, SIZE, BATCH = 4, 9, 64, 8
NOISES = (0.0, 0.25, 0.5, 1.0)


def clips(count: int, seed: int) -> tuple[Tensor, list[str]]:
    """(count, FRAMES, 3, SIZE, SIZE) ``uint8`` and their captions."""
    draws = [Draws(seed, number) for number in range(count)]
    scenes = [draw_scene(each) for each in draws]
    frames = torch.stack([torch.from_numpy(render(scene, FRAMES, SIZE)) for scene in scenes])
    return frames.permute(0, 1, 4, 2, 3).contiguous(), [caption_of(s, d) for s, d in zip(scenes, draws)]


def model(folder: Path, input_noise: float) -> ModelConfig:
    return ModelConfig(
        tokeniser=VTokConfig(weights=f"{folder}/clip", token_dim=64, fps=FPS, motion_tokens_per_second=FPS),
        mllm=MLLMConfig(weights=f"{folder}/llava", max_motion_tokens=FRAMES),
        visual_head=VisualHeadConfig(input_noise=input_noise),
        decoder=DecoderConfig(weights=f"{folder}/hunyuan", height=64, width=64),
        loss=LossConfig(under=0, dec=0),
    )


def make_batch(
    framework: VTokFramework, features: VisualFeatures, captions: list[str], clip: Tensor, step: int
) -> Batch:
    texts = [framework.text.sample(captions[c], None, None, 0) for c in clip]
    own = VisualFeatures(features.spatial[clip], features.motion[clip], [FRAMES - 1] * len(clip))
    seeds = [step * BATCH + i for i in range(len(clip))]
    return Batch(own, [FRAMES] * len(clip), torch.empty(0), [], texts, seeds, seeds, [])


def train(framework: VTokFramework, features: VisualFeatures, captions: list[str], steps: int) -> None:
    optimiser = torch.optim.AdamW([p for p in framework.parameters() if p.requires_grad], lr=2e-3)
    order = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        clip = torch.randint(len(captions), (BATCH,), generator=order)
        optimiser.zero_grad()
        framework(make_batch(framework, features, captions, clip, step))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(framework.parameters(), 1.0)
        optimiser.step()


@torch.no_grad()
def sampled_motion(framework: VTokFramework, captions: list[str]) -> Tensor:
    """(captions, M, d) standardised motion features, sampled token after token."""
    drawn, head = [], framework.visual_head["motion"]
    sample = head.sample
    head.sample = lambda *arguments: drawn.append(sample(*arguments)) or drawn[-1]
    for number, caption in enumerate(captions):
        sample_row(
            framework, caption, sum(framework.tokeniser.counts(FRAMES)), 1.0, torch.Generator().manual_seed(number)
        )
    del head.sample
    return torch.cat(drawn).unflatten(0, (len(captions), FRAMES - 1))


def frechet(a: Tensor, b: Tensor) -> float:
    """Between samples (n, M, d) and (m, M, d), each position by itself."""
    return float(((a.mean(0) - b.mean(0)).square() + (a.std(0) - b.std(0)).square()).mean())


def measure(noise: float, folder: Path, trained: tuple, held_out: tuple, steps: int) -> tuple[float, float]:
    """``forced`` and ``drift`` of a model trained with this noise."""
    torch.manual_seed(0)
    framework = build_framework(model(folder, noise)).train()
    features, truth = (framework.tokeniser.features(frames) for frames, _ in (trained, held_out))
    for kind, scale in framework.tokeniser.feature_scale.items():
        flat = features.of(kind)[0].flatten(0, 1)
        scale.set(flat.mean(0), flat.std(0))
    train(framework, features, trained[1], steps)
    framework.eval()
    framework.config.visual_head.input_noise = 0.0
    everything = make_batch(framework, truth, held_out[1], torch.arange(len(held_out[1])), 0)
    with torch.no_grad():
        forced = framework(everything)["loss_vis_lm"].item()
    late = (FRAMES - 1) // 2
    true = framework.tokeniser.feature_scale["motion"].standardise(truth.motion)
    return forced, frechet(sampled_motion(framework, held_out[1])[:, late:], true[:, late:])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--clips", type=int, default=384)
    parser.add_argument("--held_out", type=int, default=64)
    a = parser.parse_args(argv)
    quiet_libraries()
    trained, held_out = clips(a.clips, seed=0), clips(a.held_out, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_models(Path(folder), trained[1])
        print(f"{'input noise':>12}{'forced':>10}{'drift':>10}")
        for noise in NOISES:
            forced, drift = measure(noise, Path(folder), trained, held_out, a.steps)
            print(f"{noise:12.2f}{forced:10.3f}{drift:10.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
