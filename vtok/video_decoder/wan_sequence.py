"""Wan's transformer, its rows shared among ranks (see :mod:`vtok.sequence`).

Self-attention exchanges rows for heads. Cross-attention needs no exchange: a rank's own video rows attend to all text
rows, which every rank has, in all heads.
"""

from typing import Any

import torch
from diffusers.models import WanTransformer3DModel
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor, nn

from vtok.sequence import SequenceGroup
from vtok.video_decoder.shared_rows import change_output, gather_output, own_tokens


def share_wan(transformer: WanTransformer3DModel, sequence: SequenceGroup) -> None:
    """Makes a transformer compute only this rank's rows, and return all of them."""
    change_output(transformer.patch_embedding, lambda tokens: own_tokens(sequence, tokens.flatten(2), 2))
    for block in transformer.blocks:
        attention = block.attn1
        assert isinstance(attention, WanAttention)
        attention.set_processor(SharedSelfAttention(sequence))  # type: ignore[arg-type]  # annotated as known ones only
    gather_output(transformer, transformer.proj_out, sequence)

    def own_levels(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Cuts noise levels (B, tokens), if there is one for each token."""
        levels = kwargs["timestep"]
        return args, kwargs | {"timestep": levels if levels.ndim == 1 else own_tokens(sequence, levels, 1)}

    transformer.register_forward_pre_hook(own_levels, with_kwargs=True)


class SharedSelfAttention(WanAttnProcessor):
    """Self-attention of a rank's own rows to all rows."""

    def __init__(self, sequence: SequenceGroup):
        super().__init__()
        self.sequence = sequence

    def __deepcopy__(self, memo: dict) -> "SharedSelfAttention":
        """Returns itself: a process group cannot be copied."""
        return self

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attends over the video (B, own rows, d).

        Args:
            attn: The module whose processor this is.
            hidden_states: The rank's own rows.
            encoder_hidden_states, attention_mask: ``None``. The arguments have diffusers' names.
            rotary_emb: Cosines and sines (1, V, 1, d) of all V rows of the video, and so their number.
        """
        assert rotary_emb is not None
        total = rotary_emb[0].shape[1]
        if total < self.sequence.size:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        cosine, sine = (self.sequence.own(table, 1).flatten(0, 2) for table in rotary_emb)

        def heads(rows: Tensor) -> Tensor:
            return rows.unflatten(2, (attn.heads, -1))

        def placed(rows: Tensor) -> Tensor:
            # Annotated as taking and returning other tuples.
            return apply_rotary_emb(rows, (cosine, sine), sequence_dim=1)  # type: ignore[arg-type, return-value]

        query = placed(heads(attn.norm_q(attn.to_q(hidden_states))))
        key = placed(heads(attn.norm_k(attn.to_k(hidden_states))))
        value = heads(attn.to_v(hidden_states))
        query, key, value = self.sequence.to_heads(torch.stack([query, key, value]), [total])
        out = dispatch_attention_fn(query, key, value, backend=self._attention_backend)
        own = self.sequence.to_rows(out, [total]).flatten(2).type_as(hidden_states)
        return attn.to_out[1](attn.to_out[0](own))
