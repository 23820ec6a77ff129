"""Rows of a micro-batch: the place of each text and visual token, and which position predicts which token.

Pure arithmetic on lengths. Both branches of B clips become up to 2B rows. They are packed into one sequence without
padding, so the language model runs once per micro-step, on their tokens only:

    row i      (understanding)  question with V | answer | later turns    position before an answer token predicts it
    row B + i  (generation)     prompt | V                                position before V_j predicts V_j

A conversation about several media has the V of each in its questions, and a generation row only of the first.

A sample without a caption has no generation row, since it would have no loss. Where the decoder runs for it all the
same, it reads the first state of its other row; that loss has weight zero.

All prompts begin with the template's system part. With several prompts, this shared prefix is stored once, as a row of
its own; the generation rows attend to it.
"""

from dataclasses import dataclass, replace
from itertools import accumulate, groupby, islice, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from vtok.devices import to_device
from vtok.rows.text import RowText


class RowPart(NamedTuple):
    """Neighbouring tokens of a row.

    Attributes:
        medium: The medium whose visual tokens they are, counted over the micro-batch. ``None`` for text.
        length: Their number.
    """

    medium: int | None
    length: int


@dataclass
class RowPlan:
    """Index tensors of a micro-batch whose rows are packed into one sequence of L positions.

    Attributes:
        token_ids: (n,), all text tokens.
        source: (L,), the index of each position's embedding among all text embeddings, followed by all visual ones.
        row_parts: The parts of each row, in order.
        shared_row: Index of the shared prefix among the rows, or ``None``.
        answer_from: (a,), positions that predict an answer token.
        answer_ids: (a,), these tokens.
        answer_clip: (a,), their clips.
        visual_from: (v,), positions that predict a visual token. Those of spatial tokens come first.
        visual_clip: (v,), the clips of these tokens.
        visual_medium: (v,), their media.
        visual_index: (v,), their indices within the medium.
        num_spatial: The number of spatial tokens among them.
        answer_counts, visual_counts: (B,), answer tokens and predicted visual tokens of each clip.
        predicts, decodes: (B,), 1 for a clip that counts in L_visLM, and in L_dec; 0 for the others.
        first_medium: The first medium of each clip. Its visual tokens are those that are predicted.
        conditioning_start: First of each clip's positions whose states go to the decoder.
        conditioning_rows: The number of these positions in each clip.
        conditioning_visual: How many of them, at the end, are visual tokens.
    """

    token_ids: Tensor
    source: Tensor
    row_parts: list[list[RowPart]]
    shared_row: int | None
    answer_from: Tensor
    answer_ids: Tensor
    answer_clip: Tensor
    visual_from: Tensor
    visual_clip: Tensor
    visual_medium: Tensor
    visual_index: Tensor
    num_spatial: int
    answer_counts: Tensor
    visual_counts: Tensor
    predicts: Tensor
    decodes: Tensor
    first_medium: list[int]
    conditioning_start: list[int]
    conditioning_rows: list[int]
    conditioning_visual: list[int]

    @property
    def row_lengths(self) -> list[int]:
        """Positions of each row."""
        return [sum(part.length for part in row) for row in self.row_parts]

    def to(self, device: torch.device) -> "RowPlan":
        """Copies the tensors to ``device``, in one copy that does not block."""
        own = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        moved = to_device(torch.cat(list(own.values())), device).split([len(x) for x in own.values()])
        return replace(self, **dict(zip(own, moved)))


def plan_rows(
    texts: list[RowText],
    visual_counts: list[int],
    crop_start: int,
    understanding: bool = True,
    generation: bool = True,
    spatial: int = 0,
    media_counts: list[int] | None = None,
    gaps: list[int] | None = None,
) -> RowPlan:
    """Lays out the rows of B clips.

    Args:
        texts: Token ids of each clip's rows.
        visual_counts: Visual tokens of each medium.
        crop_start: Tokens at the start of the prompt whose states do not go to the decoder.
        understanding, generation: Whether there is such a branch.
        spatial: The number of places of spatial tokens. They come first.
        media_counts: The number of media of each clip. One each if omitted.
        gaps: How many of each medium's last spatial places have no token. None if omitted.

    In the visual tensor every medium has as many places as the one that needs most, gaps included.
    """
    gaps = gaps or [0] * len(visual_counts)
    ends_of_media = [count + gap for count, gap in zip(visual_counts, gaps)]
    indices = [[i for i in range(end) if not spatial - gap <= i < spatial] for end, gap in zip(ends_of_media, gaps)]
    batch, stride = len(texts), max(ends_of_media)
    generated = [clip for clip, t in enumerate(texts) if generation and (t.captioned or not understanding)]
    shared = shared_beginning([texts[clip].prompt for clip in generated], crop_start) if len(generated) > 1 else []
    prompts = {clip: texts[clip].prompt[len(shared) :] for clip in generated}
    first_medium = list(accumulate(media_counts or [1] * batch, initial=0))[:-1]
    token_ids: list[int] = []
    rows: list[list[int]] = []  # the place of each position's token: n among the texts, -1 - n among the visual ones
    parts: list[list[RowPart]] = []

    def text(ids: list[int]) -> list[int]:
        token_ids.extend(ids)
        parts[-1].append(RowPart(None, len(ids)))
        return list(range(len(token_ids) - len(ids), len(token_ids)))

    def visual(medium: int) -> list[int]:
        parts[-1].append(RowPart(medium, visual_counts[medium]))
        return [-1 - medium * stride - index for index in indices[medium]]

    def marked(ids: list[int], clip: int) -> list[int]:
        row: list[int] = []
        for is_text, own in groupby(ids, lambda token: token >= 0):
            row += text(list(own)) if is_text else sum((visual(first_medium[clip] - 1 - token) for token in own), [])
        return row

    answers: list[tuple[int, int, int]] = []
    first = 0
    for clip, t in enumerate(texts if understanding else []):
        row: list[int] = []
        parts.append([])
        for question, answer in [(t.question, t.answer), *t.turns]:
            row += marked(question, clip)
            answers += [(first + len(row) + i - 1, token, clip) for i, token in enumerate(answer)]
            row += text(answer)
        rows.append(row)
        first += len(row)
    shared_row = len(rows) if shared else None
    if shared:
        parts.append([])
        rows.append(text(shared))
    first_generation = len(rows)
    for clip in generated:
        parts.append([])
        rows.append(text(prompts[clip]) + visual(first_medium[clip]))

    row_lengths = [len(row) for row in rows]
    ends = list(accumulate(row_lengths))
    visuals: list[tuple[int, int, int, int]] = []
    cropped = crop_start - len(shared)
    # (first position, positions, visual tokens among them) of each clip's states for the decoder
    conditioning = [(ends[clip] - row_lengths[clip], 1, 0) for clip in range(batch * understanding * generation)]
    conditioning = conditioning or [(0, 0, 0)] * len(generated)
    for clip, end, length in zip(generated, ends[first_generation:], row_lengths[first_generation:]):
        count = visual_counts[first_medium[clip]]
        own = indices[first_medium[clip]]
        visuals += [(end - count + j - 1, clip, first_medium[clip], index) for j, index in enumerate(own)]
        conditioning[clip] = end - length + cropped, length - cropped, count
    source = torch.tensor(sum(rows, []), dtype=torch.long)
    visuals.sort(key=lambda visual: visual[3] >= spatial)  # stable: within a kind, clip after clip
    columns = torch.tensor(answers, dtype=torch.long).view(-1, 3).unbind(1)
    visual_columns = torch.tensor(visuals, dtype=torch.long).view(-1, 4).unbind(1)
    return RowPlan(
        token_ids=torch.tensor(token_ids, dtype=torch.long),
        source=torch.where(source < 0, len(token_ids) - 1 - source, source),
        row_parts=parts, shared_row=shared_row,
        answer_from=columns[0], answer_ids=columns[1], answer_clip=columns[2],
        visual_from=visual_columns[0], visual_clip=visual_columns[1],
        visual_medium=visual_columns[2], visual_index=visual_columns[3],
        num_spatial=sum(index < spatial for *_, index in visuals),
        answer_counts=torch.tensor([
            sum(map(len, (t.answer, *(answer for _, answer in t.turns)))) * understanding for t in texts
        ]),
        visual_counts=torch.tensor([visual_counts[first_medium[clip]] * (clip in prompts) for clip in range(batch)]),
        predicts=torch.tensor([int(t.predicts) for t in texts]),
        decodes=torch.tensor([int(t.decodes) for t in texts]),
        first_medium=first_medium,
        conditioning_start=[start for start, _, _ in conditioning],
        conditioning_rows=[count for _, count, _ in conditioning],
        conditioning_visual=[count for _, _, count in conditioning],
    )  # fmt: skip


def shared_beginning(prompts: list[list[int]], crop_start: int) -> list[int]:
    """Returns the prompts' common prefix: at most ``crop_start`` tokens, and less than any whole prompt."""
    most = min(crop_start, *(len(prompt) - 1 for prompt in prompts))
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*prompts))
    return [column[0] for column in islice(alike, max(most, 0))]


def assemble(plan: RowPlan, text: Tensor, visual: Tensor) -> Tensor:
    """Arranges embeddings of text (n, d) and visual tokens (media, stride, d) into the packed rows (1, L, d)."""
    return torch.cat([text, visual.flatten(0, 1)])[plan.source][None]


def mean_per_clip(values: Tensor, clip: Tensor, counts: Tensor) -> Tensor:
    """Averages values within each clip: (B,), zero for a clip without values.

    Args:
        values: (n,).
        clip: (n,), the clip of each value.
        counts: (B,), the number of values of each clip.
    """
    totals = values.new_zeros(len(counts)).index_add(0, clip, values)
    return totals / counts.clamp_min(1)
