"""What a strategy's features hold: a small network that is given all of them, and a question, picks the answer.

It learns answers and nothing else, and meets each clip more often than joint training does. What it finds and a trained
arm does not is in the tokens and was not learned; what it does not find either is hard to find in them.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from data_tools.items import Item, read_items
from data_tools.shards import ShardReader
from pipelines.engine.loading.precomputed import FEATURES, unpack_features
from pipelines.questions import lines_of
from pipelines.study.config import Fitting
from pipelines.study.evaluation import plain
from pipelines.study.fitting import fit

HELD_OUT = 5  # of so many parts of the clips the last is asked about, the others are trained on
WIDTH = 512
DROPOUT = 0.2


class Probe(nn.Module):
    """Two layers; the question is added between them.

    Args:
        places: features of a clip, all together.
        words: of the tokenizer.
        answers: that there are.
    """

    def __init__(self, places: int, words: int, answers: int):
        super().__init__()
        self.inward = nn.Linear(places, WIDTH)
        self.question = nn.EmbeddingBag(words, WIDTH, mode="sum")
        self.answer = nn.Linear(WIDTH, answers)

    def forward(self, features: Tensor, questions: list[Tensor]) -> Tensor:
        """Features (n, places) and their questions' token ids to logits (n, answers)."""
        starts = torch.tensor([0, *map(len, questions[:-1])]).cumsum(0)
        asked = self.question(torch.cat(questions), starts)
        return self.answer(F.gelu(self.inward(F.dropout(features, DROPOUT, self.training)) + asked))


def ask(folder: Path, shards: Path, items: Path, tokenizer: Path, cells: int, fitting: Fitting, seed: int) -> dict:
    """Answers about the clips held out, as ``evaluation.understanding`` has them.

    Args:
        shards: with an arm's features.
        items: folder of the clips, with their questions.
        cells: of the key frame, to which the control is confined: a probe of its own that sees nothing else.
    """
    clips, tokens = clips_with_features(shards, items)
    said = picked(folder / "all", tokens, clips, tokenizer, fitting, seed)
    frozen = picked(folder / "first frame", tokens[:, :cells], clips, tokenizer, fitting, seed)
    held_out = clips[-len(said) :]
    return {"lines": plain(lines_of(held_out, [dict(said=a, frozen=b) for a, b in zip(said, frozen)]))}


def clips_with_features(shards: Path, folder: Path) -> tuple[list[Item], Tensor]:
    """The clips of the shards, and their features (clips, tokens, d) standardised by place and dimension."""
    named = {f"{item.id}.mp4": item for item in read_items(folder / "items.jsonl")}
    reader = ShardReader(shards)
    samples = [reader.read(row) for row in range(len(reader))]
    features = unpack_features([sample.extras[FEATURES] for sample in samples])
    width = features.spatial.shape[-1]
    later = features.motion.flatten(1).unflatten(1, (-1, width)) if features.motion.numel() else features.spatial[:, :0]
    tokens = torch.cat([features.spatial, later], dim=1)
    return [named[sample.meta["path"]] for sample in samples], (tokens - tokens.mean(0)) / (tokens.std(0) + 1e-6)


def picked(folder: Path, tokens: Tensor, clips: list[Item], vocabulary: Path, fitting: Fitting, seed: int) -> list[str]:
    """The likeliest of its options for each clip held out, by a probe trained on the others."""
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
