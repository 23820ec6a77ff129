"""Best of N: the model keeps the video that it would describe by the prompt."""

import pytest
import torch

from data_tools.draws import Draws
from data_tools.shapes import caption_of, draw_scene
from data_tools.shapes.drawing import render
from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import from_pretrained
from vtok.best_of import description_loss
from vtok.config import ConfigError, VTokConfig
from vtok.generation import generate_batch, seeds_of
from vtok.sampling import Sampling

PROMPTS = ["A small red circle moves up.", "There are four green squares."]
SECONDS, STEPS, COUNT = 3.0, 3, 3


@pytest.fixture(scope="module")
def shipped():
    return from_pretrained("shapes/vtok")


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def videos(framework, draws, **sampling):
    return generate_batch(framework, PROMPTS, SECONDS, None, STEPS, Sampling(**sampling), draws)


def test_the_kept_video_is_that_with_the_likeliest_description(shipped):
    """Each candidate is made by itself, from its seed; their losses are computed from the files' frames."""
    seeds = [seeds_of(own, COUNT) for own in generators(0, 1)]
    made = [videos(shipped, generators(*of_round)) for of_round in zip(*seeds)]
    kept = videos(shipped, generators(0, 1), best_of=COUNT)
    shown = [min(8, int(frame * 3 / 8 + 1e-6)) for frame in range(25)]  # 9 frames at 3 a second, seen at 8 a second
    for row, prompt in enumerate(PROMPTS):
        losses = [description_loss(shipped, each[row][shown], prompt) for each in made]
        assert len(set(losses)) == COUNT
        best, worst = made[losses.index(min(losses))][row], made[losses.index(max(losses))][row]
        assert (kept[row].int() - best.int()).abs().max() <= 1 < (kept[row].int() - worst.int()).abs().max()


@pytest.mark.slow
def test_a_clip_is_described_by_its_own_caption(shipped):
    """Of 18 clips of new scenes, each with the captions of all; chance is 1."""
    scenes = [draw_scene(Draws(77, number), "train") for number in range(18)]
    captions = [caption_of(scene, Draws(77, number)) for number, scene in enumerate(scenes)]
    right = 0
    for number, scene in enumerate(scenes):
        frames = torch.from_numpy(render(scene, 25, 64)).permute(0, 3, 1, 2)
        losses = [description_loss(shipped, frames, caption) / len(caption) for caption in captions]
        right += losses.index(min(losses)) == number
    assert right >= 14


def test_a_model_without_visual_tokens_refuses(tiny_models):
    framework = build_framework(model_config(tiny_models, tokeniser=VTokConfig(strategy="none"))).eval()
    with pytest.raises(ConfigError, match="best_of needs a model that sees videos"):
        generate_batch(framework, PROMPTS, 1.0, None, 1, Sampling(best_of=2))
