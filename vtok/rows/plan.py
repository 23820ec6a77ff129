"""Rows of a micro-batch: where each text and visual token stands, and which position predicts what.

Pure arithmetic on lengths. Both branches of B clips become up to 2B rows, one behind another in one sequence without
padding, so that the language model runs once a micro-step and on nothing but their tokens:

    row i      (understanding)  before | V | after | answer        position before an answer token predicts it
    row B + i  (generation)     prompt | V                         position before V_j predicts V_j

Prompts begin alike, with the template's system part. Where there are several it is a row of its own, which stands
before the generation rows once and which they go on from.
"""

from dataclasses import dataclass, replace
from itertools import accumulate, islice, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from vtok.devices import to_device
from vtok.rows.text import RowText


class RowParts(NamedTuple):
    """A row of a clip: tokens of text, visual tokens, tokens of text."""

    clip: int
    before: int
    visual: int
    after: int


@dataclass
class RowPlan:
    """Index tensors of a micro-batch whose rows are packed into one sequence of L positions.

    Attributes:
        token_ids: (n,) all text tokens.
        source: (L,) where each position's embedding comes from: text tokens, then visual tokens.
        row_parts: what each row is made of.
        shared_row: number of the row that all rows behind it go on from, if there is one.
        answer_from: (a,) positions that predict an answer token; ``answer_ids`` (a,) the tokens; ``answer_clip`` (a,)
            whose they are.
        visual_from: (v,) positions that predict a visual token; ``visual_clip`` (v,) whose, ``visual_index`` (v,)
            which. Those of spatial tokens come first: ``num_spatial`` of all clips.
        answer_counts, visual_counts: (B,) answer tokens and predicted visual tokens of each clip.
        captioned: (B,) 1 for a clip with a caption, 0 for one without.
        conditioning_start, conditioning_rows: first position and number of the rows the decoder is given, a clip each.
        conditioning_visual: how many of them, the last ones, are those of visual tokens.
    """

    token_ids: Tensor
    source: Tensor
    row_parts: list[RowParts]
    shared_row: int | None
    answer_from: Tensor
    answer_ids: Tensor
    answer_clip: Tensor
    visual_from: Tensor
    visual_clip: Tensor
    visual_index: Tensor
    num_spatial: int
    answer_counts: Tensor
    visual_counts: Tensor
    captioned: Tensor
    conditioning_start: list[int]
    conditioning_rows: list[int]
    conditioning_visual: list[int]

    @property
    def row_lengths(self) -> list[int]:
        """Positions of each row."""
        return [row.before + row.visual + row.after for row in self.row_parts]

    def to(self, device: torch.device) -> "RowPlan":
        """The same plan with its tensors on ``device``, in one copy that nobody waits for."""
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
) -> RowPlan:
    """Lay out the rows of B clips.

    Args:
        texts: token ids of each clip's rows.
        visual_counts: visual tokens of each clip; in the visual tensor every clip takes ``max(visual_counts)`` places.
        crop_start: rows of the prompt that the decoder never sees.
        understanding, generation: which branches there are.
        spatial: how many of a clip's visual tokens, the first ones, are spatial.
    """
    batch, stride = len(texts), max(visual_counts)
    shared = shared_beginning([t.prompt for t in texts], crop_start) if generation and batch > 1 else []
    prompts = [t.prompt[len(shared) :] for t in texts]
    answered = sum(len(t.before) + len(t.after) + len(t.answer) for t in texts) * understanding
    num_text = answered + (len(shared) + sum(map(len, prompts))) * generation
    token_ids: list[int] = []
    rows: list[list[int]] = []
    parts: list[RowParts] = []

    def text(ids: list[int]) -> list[int]:
        token_ids.extend(ids)
        return list(range(len(token_ids) - len(ids), len(token_ids)))

    def visual(clip: int, count: int) -> list[int]:
        return list(range(num_text + clip * stride, num_text + clip * stride + count))

    for clip in range(batch * understanding):
        t = texts[clip]
        rows.append(text(t.before) + visual(clip, visual_counts[clip]) + text(t.after) + text(t.answer))
        parts.append(RowParts(clip, len(t.before), visual_counts[clip], len(t.after) + len(t.answer)))
    shared_row = len(rows) if shared else None
    if shared:
        rows.append(text(shared))
        parts.append(RowParts(0, len(shared), 0, 0))
    first_generation = len(rows)
    for clip in range(batch * generation):
        rows.append(text(prompts[clip]) + visual(clip, visual_counts[clip]))
        parts.append(RowParts(clip, len(prompts[clip]), visual_counts[clip], 0))

    row_lengths = [len(row) for row in rows]
    ends = list(accumulate(row_lengths))
    answers: list[tuple[int, int, int]] = []
    visuals: list[tuple[int, int, int]] = []
    conditioning_start = []
    for clip, end in enumerate(ends[: batch * understanding]):
        ids = texts[clip].answer
        answers += [(end - len(ids) + i - 1, token, clip) for i, token in enumerate(ids)]
    cropped = crop_start - len(shared)
    for clip, end in enumerate(ends[first_generation:]):
        count = visual_counts[clip]
        visuals += [(end - count + j - 1, clip, j) for j in range(count)]
        conditioning_start.append(end - row_lengths[first_generation + clip] + cropped)
    visuals.sort(key=lambda visual: visual[2] >= spatial)  # stable: clip after clip among each kind
    columns = torch.tensor(answers, dtype=torch.long).view(-1, 3).unbind(1)
    visual_columns = torch.tensor(visuals, dtype=torch.long).view(-1, 3).unbind(1)
    return RowPlan(
        token_ids=torch.tensor(token_ids, dtype=torch.long),
        source=torch.tensor(sum(rows, []), dtype=torch.long),
        row_parts=parts, shared_row=shared_row,
        answer_from=columns[0], answer_ids=columns[1], answer_clip=columns[2],
        visual_from=visual_columns[0], visual_clip=visual_columns[1], visual_index=visual_columns[2],
        num_spatial=sum(index < spatial for _, _, index in visuals),
        answer_counts=torch.tensor([len(t.answer) * understanding for t in texts]),
        visual_counts=torch.tensor([count * generation for count in visual_counts]),
        captioned=torch.tensor([int(t.captioned) for t in texts]),
        conditioning_start=conditioning_start,
        conditioning_rows=[length - cropped for length in row_lengths[first_generation:]],
        conditioning_visual=visual_counts if generation else [],
    )  # fmt: skip


def shared_beginning(prompts: list[list[int]], crop_start: int) -> list[int]:
    """What all prompts begin with: at most the part that the decoder never sees, and not all of any."""
    most = min(crop_start, *(len(prompt) - 1 for prompt in prompts))
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*prompts))
    return [column[0] for column in islice(alike, max(most, 0))]


def assemble(plan: RowPlan, text: Tensor, visual: Tensor) -> Tensor:
    """Embeddings (1, L, d) of the packed rows, from those of text (n, d) and of visual tokens (C, stride, d)."""
    return torch.cat([text, visual.flatten(0, 1)])[plan.source][None]


def mean_per_clip(values: Tensor, clip: Tensor, counts: Tensor) -> Tensor:
    """Average of ``values`` (n,), ``counts`` (B,) of each clip: (B,), zero for a clip that has none.

    Args:
        clip: (n,) whose each value is.
    """
    totals = values.new_zeros(len(counts)).index_add(0, clip, values)
    return totals / counts.clamp_min(1)
