"""Measures what a strategy's features contain: a small network sees all of them and a question, and picks the answer.

The probe learns nothing but answers, and sees each clip more often than joint training does. If the probe answers a
question and the trained arm does not, the tokens contain the answer and the arm did not learn it. If the probe fails
too, the answer is hard to find in the tokens.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from data_tools.items import Item, read_items
from data_tools.shards import ShardReader
from pipelines.engine.loading.precomputed import FEATURES, unpack_features
from pipelines.shapes_study.config import Fitting
from pipelines.shapes_study.evaluation import plain
from pipelines.shapes_study.fitting import fit
from pipelines.shapes_study.questions import lines_of

HELD_OUT = 5  # the last fifth of the clips is asked about, the others are trained on
WIDTH = 512
DROPOUT = 0.2


class Probe(nn.Module):
    """Two layers. The question is added between them.

    Args:
        places: Features of a clip: tokens times their width.
        words: Size of the tokenizer's vocabulary.
        answers: Number of different answers.
    """

    def __init__(self, places: int, words: int, answers: int):
        super().__init__()
        self.inward = nn.Linear(places, WIDTH)
        self.question = nn.EmbeddingBag(words, WIDTH, mode="sum")
        self.answer = nn.Linear(WIDTH, answers)

    def forward(self, features: Tensor, questions: list[Tensor]) -> Tensor:
        """Maps features (n, places) and the token ids of n questions to logits (n, answers)."""
        starts = torch.tensor([0, *map(len, questions[:-1])]).cumsum(0)
        asked = self.question(torch.cat(questions), starts)
        return self.answer(F.gelu(self.inward(F.dropout(features, DROPOUT, self.training)) + asked))


def ask(folder: Path, shards: Path, items: Path, tokenizer: Path, cells: int, fitting: Fitting, seed: int) -> dict:
    """Trains a probe and asks it about the held-out clips.

    The control is a second probe that only sees the spatial tokens of the key frame.

    Args:
        folder: Folder of the stage.
        shards: Shards with an arm's features.
        items: Folder of the clips, with their items.
        tokenizer: Tokenizer of the questions.
        cells: Spatial tokens of the key frame.
        fitting: Training of each probe.
        seed: Seed of each probe's weights.

    Returns:
        ``lines``, as :func:`pipelines.shapes_study.evaluation.understanding` returns them.
    """
    clips, tokens = clips_with_features(shards, items)
    said = picked(folder / "all", tokens, clips, tokenizer, fitting, seed)
    frozen = picked(folder / "first frame", tokens[:, :cells], clips, tokenizer, fitting, seed)
    held_out = clips[-len(said) :]
    return {"lines": plain(lines_of(held_out, [dict(said=a, frozen=b) for a, b in zip(said, frozen)]))}


def clips_with_features(shards: Path, folder: Path) -> tuple[list[Item], Tensor]:
    """Returns the items of the shards' clips and their features (clips, tokens, d).

    Features are standardised over clips, separately for each token and dimension.
    """
    named = {f"{item.id}.mp4": item for item in read_items(folder / "items.jsonl")}
    reader = ShardReader(shards)
    samples = [reader.read(row) for row in range(len(reader))]
    features = unpack_features([sample.extras[FEATURES] for sample in samples])
    width = features.spatial.shape[-1]
    later = features.motion.flatten(1).unflatten(1, (-1, width)) if features.motion.numel() else features.spatial[:, :0]
    tokens = torch.cat([features.spatial, later], dim=1)
    return [named[sample.meta["path"]] for sample in samples], (tokens - tokens.mean(0)) / (tokens.std(0) + 1e-6)


def picked(folder: Path, tokens: Tensor, clips: list[Item], vocabulary: Path, fitting: Fitting, seed: int) -> list[str]:
    """Trains a probe and returns its likeliest option for each held-out clip.

    Args:
        folder: Keeps the probe's state.
        tokens: Features (clips, tokens, d).
        clips: Their items.
        vocabulary: Tokenizer of the questions.
        fitting: The training.
        seed: Seed of the weights.
    """
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer.from_file(str(vocabulary))
    features = tokens.flatten(1)
    questions = [torch.tensor(tokenizer.encode(clip.question).ids) for clip in clips]
    answers = sorted({option for clip in clips for option in clip.options})
    right = torch.tensor([answers.index(clip.answer) for clip in clips])
    known = len(clips) - len(clips) // HELD_OUT
    torch.manual_seed(seed)
    probe = Probe(features.shape[1], tokenizer.get_vocab_size(), len(answers))

    def loss(step: int) -> Tensor:
        chosen = torch.randint(known, (fitting.batch_size,), generator=torch.Generator().manual_seed(step))
        return F.cross_entropy(probe(features[chosen], [questions[k] for k in chosen]), right[chosen])

    fit(probe, loss, fitting, folder)
    with torch.no_grad():
        logits = probe.eval()(features[known:], questions[known:])
    return [
        max(clip.options, key=lambda option: float(row[answers.index(option)]))
        for clip, row in zip(clips[known:], logits)
    ]
