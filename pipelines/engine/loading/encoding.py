"""A sample as the model takes it: the caption that trains, the instruction, token ids of both rows, motion vectors."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from data_tools.dataset import Sample
from data_tools.errors import DataError
from pipelines.config import CaptionShares, MixtureConfig
from pipelines.engine.loading import precomputed
from vtok.rows.text import Place, RowText, TextEncoder

VectorsOf = Callable[[torch.Tensor], torch.Tensor]


class Encoded(NamedTuple):
    """A sample with tokenised text.

    Attributes:
        sample: The sample.
        text: Its rows.
        caption: Its stored caption, if it has one (see ``Batch.captions``).
        vectors: Motion vectors of the frames of each medium, if the strategy reads them.
    """

    sample: Sample
    text: RowText
    caption: torch.Tensor | None = None
    vectors: tuple[torch.Tensor, ...] = ()


class SampleToModel:
    """Tokenises a sample's text, and computes the motion vectors of its frames if the strategy reads them.

    The sample's own draws pick the instruction, the caption, and whether it is dropped.

    Raises:
        DataError: The stored caption is not that of this tokenizer.

    Args:
        text: The tokenizers.
        dropout: Share of samples whose generation row has no text (``data.text_dropout``).
        sources: The datasets that samples are from, by number. Omitted: one without settings.
        training: Whether captions are dropped.
        vectors_of: Computes motion vectors (``Tokeniser.vectors_of``).
    """

    def __init__(
        self,
        text: TextEncoder,
        dropout: float = 0.0,
        sources: Sequence[MixtureConfig] = (),
        training: bool = True,
        vectors_of: VectorsOf | None = None,
    ):
        self.text, self.dropout, self.training, self.vectors_of = text, dropout, training, vectors_of
        self.sources = sources or [MixtureConfig("")]

    def __call__(self, sample: Sample) -> Encoded:
        source = self.sources[sample.source]
        caption, dropped = chosen_caption(sample, source.captions, self.dropout)
        instruction = sample.draws.seed("instruction")
        text = self.text.sample(
            caption, sample.question, sample.answer, instruction, sample.turns, sample.kind,
            [Place(*place) for place in sample.places], source.prompts,
        )  # fmt: skip
        text = self.text.counted(text, source.losses)
        if dropped and self.training:
            text = self.text.without_caption(text)
        stored, encoded = sample.extras.get(precomputed.CAPTIONS), None
        if stored and self.text.caption_ids:
            encoded = precomputed.unpack_caption(stored, text.decoder_ids)
            if encoded is None:
                raise DataError(
                    f"{sample.key}: its stored caption has other token ids than decoder.weights' tokenizer gives: "
                    "run pipelines/precompute.py again"
                )
        vectors = ()
        if self.vectors_of and sample.frames is not None:
            vectors = tuple(map(self.vectors_of, [sample.frames[: sample.frames_valid], *sample.others]))
        return Encoded(sample, text, encoded, vectors)


def chosen_caption(sample: Sample, shares: CaptionShares | None, dropout: float) -> tuple[str, bool]:
    """Returns a sample's caption, and whether its generation row is to have no text. The sample's draws decide.

    Args:
        sample: The sample, with one of its captions drawn.
        shares: Shares of the kinds of captions. ``None`` takes the drawn caption.
        dropout: Share of samples without text, where there are no such shares.
    """
    if shares is None:
        return sample.caption, sample.draws.uniform("text dropout") < dropout
    bounds = list(accumulate(vars(shares).values()))
    drawn = bisect_right(bounds, sample.draws.uniform("caption kind") * bounds[-1])
    kind = list(vars(shares))[min(drawn, len(bounds) - 1)]
    found = {"short": min, "long": max}.get(kind)
    caption = found(sample.captions, key=lambda text: len(text.split())) if found else sample.caption
    return caption, kind == "empty"
