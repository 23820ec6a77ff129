"""What a published multimodal language model becomes: its language model, fed with embeddings, and its projector.

Its vision tower is not kept here (the tokeniser has its own ``F``), and neither is what nothing uses: under ZeRO-3
every trainable parameter must get a gradient in every step.
"""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache, LlamaModel, PreTrainedConfig, PreTrainedModel

from vtok.config import MLLMConfig
from vtok.devices import to_device
from vtok.mllm.language_head import LanguageHead
from vtok.mllm.packed_attention import PACKED_SDPA

# Diffusers' Hunyuan pipeline reads its text encoder two layers before the end (its ``num_hidden_layers_to_skip``).
CONDITIONING_LAYER = -3

# Keyword of the key-value cache in transformers' models: renamed in 5.24.
CACHE = "cache" if "cache" in signature(LlamaModel.forward).parameters else "past_key_values"


class Hidden(NamedTuple):
    """Hidden states of the (B, L, d) that the language model was fed with.

    Attributes:
        last: (B, L, d), after the final norm: what ``lm_head`` and the visual head read.
        conditioning: (B, L, d), two layers earlier and without the norm: what the decoder reads.
        cache: keys and values, where they were asked for.
    """

    last: Tensor
    conditioning: Tensor
    cache: Cache | None


class MLLM(nn.Module):
    """A causal language model fed with embeddings.

    Args:
        causal_lm: the language model with its head, as transformers' ``...ForCausalLM``.
        positions_per_second: of a video's time, where positions are mRoPE's (:mod:`vtok.mllm.mrope`); ``None`` where
            they are one number, which the language model counts for itself.
    """

    def __init__(self, causal_lm: PreTrainedModel, positions_per_second: float | None = None):
        super().__init__()
        self.causal_lm = causal_lm
        self.positions_per_second = positions_per_second

    @property
    def dim(self) -> int:
        return self.causal_lm.config.hidden_size

    @property
    def embed(self) -> nn.Module:
        """Token ids (...) -> (..., d)."""
        return self.causal_lm.get_input_embeddings()

    @property
    def lm_head(self) -> LanguageHead:
        """Last hidden states (..., d) -> logits (..., vocabulary), or the losses of given tokens."""
        return self.causal_lm.get_output_embeddings()

    def forward(
        self,
        embeddings: Tensor,
        row_lengths: list[int] | None = None,
        shared_row: int | None = None,
        cache: Cache | None = None,
        use_cache: bool = False,
        positions: Tensor | None = None,
    ) -> Hidden:
        """Run the language model over embeddings (B, L, d).

        Args:
            row_lengths: of the rows packed into L, one behind another, with B = 1: each has positions of its own from
                zero on and sees no other.
            shared_row: number of one among them that all rows behind it go on from, in positions and in what they see.
            positions: (3, B, L), mRoPE's, where the language model has it and there are visual tokens.
        """
        packed = {} if row_lengths is None else packing(row_lengths, shared_row, embeddings.device)
        placed = {} if positions is None else dict(position_ids=positions)
        output = self.causal_lm.model(
            inputs_embeds=embeddings, use_cache=use_cache, output_hidden_states=True, **{CACHE: cache} | packed | placed
        )  # fmt: skip
        return Hidden(output.last_hidden_state, output.hidden_states[CONDITIONING_LAYER], output.past_key_values)


def packing(row_lengths: list[int], shared_row: int | None, device: torch.device) -> dict[str, Any]:
    """What transformers' models must be told of packed rows.

    They hand a mask of four dimensions on as it is, and our attention does not look at it. Without one they would make
    one of L x L; one of two dimensions they would read, and wait for it.
    """
    rows = [torch.arange(length) for length in row_lengths]
    if shared_row is not None:
        rows[shared_row + 1 :] = [row + row_lengths[shared_row] for row in rows[shared_row + 1 :]]
    return dict(
        position_ids=to_device(torch.cat(rows)[None], device),
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        row_lengths=row_lengths,
        shared_row=shared_row,
    )


class Split(NamedTuple):
    """A published model taken apart.

    Attributes:
        mllm: the language model.
        projector: what leads from its vision tower's features to the language model, for phi_vis.
        projector_dim: width of these features.
    """

    mllm: MLLM
    projector: nn.Module
    projector_dim: int


class Published(NamedTuple):
    """A kind of multimodal language model as transformers publishes it.

    Attributes:
        name: as errors call it.
        config, model: transformers' classes. ``model.model.language_model`` and ``model.lm_head`` are what trains.
        keys: prefix of a framework's parameter -> the prefixes it may have in a checkpoint.
        split: takes the model apart.
    """

    name: str
    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    keys: Mapping[str, tuple[str, ...]]
    split: Callable[[PreTrainedModel, MLLMConfig], Split]


def causal_lm_of(shell: PreTrainedModel, published: PreTrainedModel, config: MLLMConfig) -> PreTrainedModel:
    """The published model's language model and head in ``shell``, an ``...ForCausalLM`` without storage."""
    shell.model = published.model.language_model
    shell.lm_head = LanguageHead.of(published.lm_head)
    shell.set_attn_implementation(PACKED_SDPA)
    if config.gradient_checkpointing:
        # Renamed in the course of transformers 5; both take torch's own arguments first.
        newer = getattr(shell, "activation_checkpointing_enable", None)
        (newer or shell.gradient_checkpointing_enable)({"use_reentrant": False})
    return shell
