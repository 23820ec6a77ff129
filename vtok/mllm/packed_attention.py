"""Causal attention over rows that lie one behind another in one sequence; no row sees another, but one may be shared.

A shared row is the beginning that all rows behind it have in common. It is in the sequence once, so that all else that
a layer does is done to it once; here it stands before each of them.

Each row is a call of torch's fused causal kernel. One call with a block-diagonal mask would score every token against
those of all rows, and a mask keeps the flash kernels away.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# The name it has among transformers' attention implementations.
PACKED_SDPA = "vtok_packed_sdpa"


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    row_lengths: list[int] | None = None,
    shared_row: int | None = None,
    **options,
) -> tuple[Tensor, None]:
    """Transformers' own SDPA, row by row where there are rows.

    Args:
        query, key, value: (B, heads, L, head_dim).
        attention_mask: for what is not packed.
        row_lengths: of the rows packed into the L of a batch of one.
        shared_row: number of the row that all rows behind it go on from.

    Returns:
        (B, L, heads, head_dim), and no attention weights.
    """
    if row_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows = zip(*(whole_rows(x, row_lengths, shared_row) for x in (query, key, value)))
    attended = [sdpa_attention_forward(module, *row, None, **options)[0] for row in rows]
    own = [row[:, row.shape[1] - length :] for row, length in zip(attended, row_lengths)]
    return torch.cat(own, dim=1), None


def whole_rows(x: Tensor, row_lengths: list[int], shared_row: int | None, dim: int = 2) -> list[Tensor]:
    """The rows of ``x``, packed along ``dim``, each with the shared one before it where it goes on from that."""
    rows = list(x.split(row_lengths, dim))
    if shared_row is None:
        return rows
    first = shared_row + 1
    return rows[:first] + [torch.cat([rows[shared_row], row], dim) for row in rows[first:]]


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
