"""Rows of P that training never moved are not used silently."""

import warnings

import pytest
import torch

from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework
from vtok.generation import generate
from vtok.pipeline import VTokPipeline
from vtok.trained_length import trained_steps


@pytest.fixture(scope="module")
def framework(tiny_models):
    """After one training step on clips of at most 9 frames at 4 per second: 8 steps in time, 2 seconds."""
    torch.manual_seed(0)
    framework = build_framework(model_config(tiny_models)).train()
    optimiser = torch.optim.AdamW(framework.projection.parameters(), weight_decay=0)
    assert trained_steps(framework) == 0
    framework(make_batch(framework))["loss"].backward()
    optimiser.step()
    return framework.eval()


def test_a_longer_video_is_named_with_the_trained_length(framework):
    frames = torch.randint(0, 256, (13, 3, 64, 64), dtype=torch.uint8)
    assert trained_steps(framework) == 8
    pipeline = VTokPipeline(framework)
    with pytest.warns(UserWarning, match="12 steps in time, but .* trained with 8, 2 s: pass key_frame_every=2"):
        pipeline.understand(frames, "What?", max_new_tokens=2)
    with pytest.warns(UserWarning, match="make videos of at most 2 s"):
        generate(framework, "A circle", 3.0, steps=1)


def test_videos_of_the_trained_length_and_untrained_models_say_nothing(framework, tiny_models):
    frames = torch.randint(0, 256, (13, 3, 64, 64), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VTokPipeline(framework).understand(frames[:9], "What?", max_new_tokens=2)
        VTokPipeline(framework).understand(frames, "What?", max_new_tokens=2, key_frame_every=2)
        generate(framework, "A circle", 2.0, steps=1)
        VTokPipeline(build_framework(model_config(tiny_models))).understand(frames, "What?", max_new_tokens=2)
