"""HunyuanVideo's joint attention without a mask: each clip attends to its video and to its own text rows.

diffusers masks the padding after a clip's text rows, but flash kernels take no mask. Here the attention itself runs
clip by clip, without the padding. Projections, norms and the rest of a block stay one batch. So the modules run in
the same order whatever the lengths are, as ZeRO-3 needs.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from diffusers.models import HunyuanVideoTransformer3DModel
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from torch import Tensor, nn
from torch.nn.functional import pad

from vtok.devices import to_device
from vtok.sequence import SequenceGroup


class UnmaskedAttention(HunyuanVideoAttnProcessor2_0):
    """The processor of all joint attentions of a transformer. The text refiner keeps its own, with its mask.

    The transformer's argument ``encoder_attention_mask`` (B, R), a prefix of ones per clip, gives the number of each
    clip's own text rows. Keep it on the CPU: reading it from another device waits for that device.

    Attributes:
        sequence: The ranks that share the rows of video and text. Then each rank has its own rows of both, except of a
            video with fewer tokens than ranks.
    """

    def __init__(self, transformer: HunyuanVideoTransformer3DModel):
        super().__init__()
        self.sequence: SequenceGroup | None = None
        self._counts: list[int] = []
        transformer.register_forward_pre_hook(self._read_mask, with_kwargs=True)
        for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
            attention = block.attn
            assert isinstance(attention, Attention)
            attention.set_processor(self)  # type: ignore[arg-type]  # annotated as one of many processors only

    def __deepcopy__(self, memo: dict) -> "UnmaskedAttention":
        """Returns itself: copies of blocks and of transformers share the counts of the forward that runs."""
        return self

    def _read_mask(self, transformer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask, device = kwargs["encoder_attention_mask"], kwargs["hidden_states"].device
        self._counts = mask.count_nonzero(dim=1).tolist()
        moved = mask if mask.device == device else to_device(mask, device)
        return args, kwargs | {"encoder_attention_mask": moved}

    def __call__(  # type: ignore[override]  # diffusers' processor returns a pair too, but is annotated as one tensor
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attends over video (B, V, d) and text (B, R, d). Returns an output for each. The mask is not used.

        The arguments have diffusers' names, since diffusers passes only arguments that a processor names. The rotary
        embedding is that of the whole video, also on ranks that share its rows.
        """
        sizes = [hidden_states.shape[1], encoder_hidden_states.shape[1]]
        if self.sequence is None or image_rotary_emb is None or len(image_rotary_emb[0]) < self.sequence.size:
            query, key, value = project(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
            joint = self.attend(query, key, value, sizes[1])
        else:
            cosine, sine = (self.sequence.own(table, 0) for table in image_rotary_emb)
            own = torch.stack(project(attn, hidden_states, encoder_hidden_states, (cosine, sine)))
            totals = [len(image_rotary_emb[0]), sizes[1] * self.sequence.size]
            query, key, value = self.sequence.to_heads(own, totals)
            joint = self.sequence.to_rows(self.attend(query, key, value, totals[1]), totals)
        video, text = joint.flatten(2).split(sizes, dim=1)
        if attn.to_out is not None:
            video = attn.to_out[1](attn.to_out[0](video))
        if attn.to_add_out is not None:
            text = attn.to_add_out(text)
        return video, text

    def attend(self, query: Tensor, key: Tensor, value: Tensor, text_rows: int) -> Tensor:
        """Attends over (B, V + R, heads, d). Padding rows become zero."""
        run = partial(dispatch_attention_fn, backend=self._attention_backend, parallel_config=self._parallel_config)
        if min(self._counts) == text_rows:
            return run(query, key, value)
        clips = []
        for count, *clip in zip(self._counts, query.unbind(), key.unbind(), value.unbind(), strict=True):
            missing = text_rows - count
            q, k, v = (rows[None, : len(rows) - missing] for rows in clip)
            own = run(q, k, v)
            clips.append(pad(own, (0, 0, 0, 0, 0, missing)))
        return torch.cat(clips)

    def checkpoint(self, block: nn.Module, *args: Any) -> tuple[Tensor, ...]:
        """Runs a block under gradient checkpointing. The recomputation uses the counts of the first run."""
        contexts = partial(_first_and_again, partial(self._with_counts, self._counts))
        return torch.utils.checkpoint.checkpoint(block, *args, use_reentrant=False, context_fn=contexts)

    @contextmanager
    def _with_counts(self, counts: list[int]) -> Iterator[None]:
        before, self._counts = self._counts, counts
        try:
            yield
        finally:
            self._counts = before


def project(
    attn: Attention, video: Tensor, text: Tensor, rotary: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes queries, keys and values of [video ; text], (B, V + R, heads, d) each. Only video has positions."""

    def heads(projection: nn.Module, rows: Tensor, norm: nn.Module | None = None) -> Tensor:
        out = projection(rows).unflatten(2, (attn.heads, -1))
        return out if norm is None else norm(out)

    def placed(rows: Tensor) -> Tensor:
        if rotary is None:
            return rows
        # Annotated as taking and returning other tuples.
        return apply_rotary_emb(rows, rotary, sequence_dim=1)  # type: ignore[arg-type, return-value]

    if attn.add_q_proj is None:  # a single-stream block uses the same weights for both
        joint = torch.cat([video, text], dim=1)
        query, key = heads(attn.to_q, joint, attn.norm_q), heads(attn.to_k, joint, attn.norm_k)
        sizes = [video.shape[1], text.shape[1]]
        (query, text_query), (key, text_key) = query.split(sizes, dim=1), key.split(sizes, dim=1)
        value = heads(attn.to_v, joint)
    else:
        query, key = heads(attn.to_q, video, attn.norm_q), heads(attn.to_k, video, attn.norm_k)
        text_query = heads(attn.add_q_proj, text, attn.norm_added_q)
        text_key = heads(attn.add_k_proj, text, attn.norm_added_k)
        value = torch.cat([heads(attn.to_v, video), heads(attn.add_v_proj, text)], dim=1)
    return torch.cat([placed(query), text_query], dim=1), torch.cat([placed(key), text_key], dim=1), value


def _first_and_again(
    again: Callable[[], AbstractContextManager[None]],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Returns the contexts of the first run and of the recomputation, for torch's checkpointing."""
    return nullcontext(), again()
