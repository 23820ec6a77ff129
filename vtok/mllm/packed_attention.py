"""Causal attention over rows that are packed into one sequence. A row attends only to itself and to a shared prefix.

The shared prefix is stored once, as a row; later rows attend to it. So the rest of a layer processes it once. For the
attention itself it is copied in front of each later row.

All rows are one call where there is a kernel for rows of unequal length (:mod:`vtok.mllm.varlen`). Elsewhere each row
is one call of torch's fused causal kernel. A single call with a block-diagonal mask would score every token against all
rows, and flash kernels take no mask.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vtok.mllm.varlen import Kernel, kernel_for, row_bounds

# Its name among transformers' attention implementations.
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
    """Runs transformers' own SDPA, or attends within rows if the sequence is packed.

    Args:
        module: The attention module, which transformers passes.
        query, key, value: (B, heads, L, head_dim).
        attention_mask: Used only if the sequence is not packed.
        row_lengths: Lengths of the rows that are packed into L; B is then 1.
        shared_row: Index of the shared prefix among the rows.
        **options: transformers' other arguments, passed on.

    Returns:
        (B, L, heads, head_dim), and no attention weights.
    """
    if row_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows = [whole_rows(x, row_lengths, shared_row) for x in (query, key, value)]
    kernel = None if options.get("dropout") else kernel_for(query)
    if kernel is not None:
        attended = all_at_once(kernel, rows, options.get("scaling"))
    else:
        attended = [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in zip(*rows)]
    own = [row[:, row.shape[1] - length :] for row, length in zip(attended, row_lengths)]
    return torch.cat(own, dim=1), None


def all_at_once(kernel: Kernel, rows: list[list[Tensor]], scale: float | None) -> list[Tensor]:
    """Attends within rows in one call. Returns each row's output (1, length, heads, d).

    The shared prefix is in front of the queries too. So no kernel's rule for queries that are fewer than keys matters.

    Args:
        kernel: The kernel.
        rows: Queries, keys and values, each row's (1, heads, length, d).
        scale: Scale of the scores; by default that of the width.
    """
    lengths = [row.shape[2] for row in rows[0]]
    q, k, v = (torch.cat(own, dim=2)[0].transpose(0, 1) for own in rows)
    out = kernel(q, k, v, row_bounds(lengths, q.device), max(lengths), scale)
    return list(out[None].split(lengths, dim=1))


def whole_rows(x: Tensor, row_lengths: list[int], shared_row: int | None, dim: int = 2) -> list[Tensor]:
    """Splits ``x`` into the rows that are packed along ``dim``, and puts the shared row in front of each later one."""
    rows = list(x.split(row_lengths, dim))
    if shared_row is None:
        return rows
    first = shared_row + 1
    return rows[:first] + [torch.cat([rows[shared_row], row], dim) for row in rows[first:]]


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
