"""Causal attention over rows that lie one behind another in one sequence; no row sees another.

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
    **options,
) -> tuple[Tensor, None]:
    """Transformers' own SDPA, row by row where there are rows.

    Args:
        query, key, value: (B, heads, L, head_dim).
        attention_mask: for what is not packed.
        row_lengths: of the rows packed into the L of a batch of one.

    Returns:
        (B, L, heads, head_dim), and no attention weights.
    """
    if row_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows = zip(*(x.split(row_lengths, dim=2) for x in (query, key, value)))
    return torch.cat([sdpa_attention_forward(module, *row, None, **options)[0] for row in rows], dim=1), None


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
