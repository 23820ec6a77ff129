"""Tunes the decoder's text encoder, CLIP's text tower, until its pooled vector holds all facts of a caption.

All blocks of the decoder read that vector. CLIP trained the tower on captions of single frames only. A linear
probe of it finds the direction of a motion in 61 % of the captions, and a position in 82 %.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTextModel

from data_tools.shapes import Scene, caption_of
from pipelines.shapes_models import scenes
from pipelines.shapes_models.clip import TEXT, TOKENIZER, text_ids
from pipelines.shapes_models.facts import LOGITS, all_right, facts_loss, facts_of
from pipelines.shapes_study.config import Fitting

ASKED = 1000  # captions of the final test
HEAD = 4.0  # learning rate of the head, as a multiple of the tower's
COOLDOWN = 0.5  # share of the steps, at the end, in which the learning rate falls to zero


def make(folder: Path, config: Fitting, clip: Path, seed: int) -> dict[str, Any]:
    """Trains the tower and writes ``folder/text_encoder``. It takes two minutes on one core and is not resumable.

    Args:
        folder: Folder of the stage.
        config: Settings of the training.
        clip: Folder of the study's stage ``clip``.
        seed: Seed of the head and of the scenes.

    Returns:
        The first and the last loss, and the share of new captions of which the head gets all facts right.
    """
    tokenizer = Tokenizer.from_file(str(clip / TOKENIZER))
    tower = CLIPTextModel.from_pretrained(clip / TEXT)
    torch.manual_seed(seed)
    head = nn.Linear(tower.config.hidden_size, LOGITS)
    parameters = [*tower.parameters(), *head.parameters()]
    factors = {1.0: tower.parameters(), HEAD: head.parameters()}
    optimiser = torch.optim.AdamW(
        [{"params": list(group), "lr": factor * config.lr} for factor, group in factors.items()], weight_decay=0.01
    )
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule(step, config))
    losses = []
    for step in range(config.steps):
        texts, facts = captions(tokenizer, seed, range(step * config.batch_size, (step + 1) * config.batch_size))
        loss = facts_loss(head(tower(input_ids=texts).pooler_output), facts)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        rate.step()
        losses.append(float(loss.detach()))
    first = config.steps * config.batch_size
    with torch.no_grad():
        texts, facts = captions(tokenizer, seed, range(first, first + ASKED))
        right = all_right(head(tower(input_ids=texts).pooler_output), facts).float().mean()
    tower.save_pretrained(folder / TEXT)
    return {"first_loss": losses[0], "last_loss": losses[-1], "all_facts": float(right)}


def schedule(step: int, config: Fitting) -> float:
    """Returns the factor on the learning rate: a linear warm-up, then 1, then a linear fall to zero."""
    return min(1.0, (step + 1) / config.warmup, (config.steps - step) / (COOLDOWN * config.steps))


def captions(tokenizer: Tokenizer, seed: int, numbers: range) -> tuple[Tensor, Tensor]:
    """Returns token ids of captions, (n, L), and the facts of their scenes, (n, len(CLASSES))."""
    told: list[tuple[Scene, str]] = []
    for number in numbers:
        scene, draws = scenes.scene_at(seed, number)
        told.append((scene, caption_of(scene, draws, detailed=number % 2 == 0)))
    facts = torch.tensor([facts_of(scene) for scene, _ in told])
    return text_ids(tokenizer, [caption for _, caption in told]), facts
