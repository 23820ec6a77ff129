"""The language model of a published multimodal model. It takes embeddings.

The published vision tower is not kept: the tokeniser has its own ``F``. Nothing else unused is kept either, since under
ZeRO-3 every trainable parameter must get a gradient in every step.
"""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache, LlamaModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from vtok.config import MLLMConfig
from vtok.devices import to_device
from vtok.mllm.language_head import LanguageHead
from vtok.mllm.packed_attention import PACKED_SDPA

# The layer that diffusers' Hunyuan pipeline reads of its text encoder: two before the end
# (its ``num_hidden_layers_to_skip``).
CONDITIONING_LAYER = -3

# Keyword of the key-value cache in transformers' models: renamed in 5.24.
CACHE = "cache" if "cache" in signature(LlamaModel.forward).parameters else "past_key_values"


class Hidden(NamedTuple):
    """Hidden states at the (B, L, d) inputs of the language model.

    Attributes:
        last: (B, L, d), after the final norm. ``lm_head`` and the visual heads read them.
        conditioning: (B, L, d), two layers earlier, without the norm. The decoder reads them.
        cache: Keys and values, if they were asked for.
    """

    last: Tensor
    conditioning: Tensor
    cache: Cache | None


class MLLM(nn.Module):
    """A causal language model that takes embeddings.

    Args:
        causal_lm: The language model with its head, one of transformers' ``...ForCausalLM``.
        positions_per_second: For a language model with mRoPE (:mod:`vtok.mllm.mrope`): the positions that a second of
            video spans. ``None`` for others, which count positions themselves.
    """

    def __init__(self, causal_lm: PreTrainedModel, positions_per_second: float | None = None):
        super().__init__()
        self.causal_lm = causal_lm
        self.positions_per_second = positions_per_second

    @property
    def dim(self) -> int:
        """d, the width of the language model."""
        return self.causal_lm.config.hidden_size

    @property
    def embed(self) -> nn.Embedding:
        """Maps token ids (...) to embeddings (..., d)."""
        embed = self.causal_lm.get_input_embeddings()
        assert isinstance(embed, nn.Embedding)
        return embed

    @property
    def lm_head(self) -> LanguageHead:
        """Maps last hidden states (..., d) to logits (..., vocabulary), or to the losses of given tokens."""
        head = self.causal_lm.get_output_embeddings()
        assert isinstance(head, LanguageHead)
        return head

    @property
    def device(self) -> torch.device:
        """The device of the embeddings."""
        return self.embed.weight.device

    def forward(
        self,
        embeddings: Tensor,
        row_lengths: list[int] | None = None,
        shared_row: int | None = None,
        cache: Cache | None = None,
        use_cache: bool = False,
        positions: Tensor | None = None,
    ) -> Hidden:
        """Runs the language model over embeddings (B, L, d).

        Args:
            embeddings: The inputs.
            row_lengths: Lengths of the rows that are packed into L; B is then 1. Each row has positions from zero on
                and attends to no other row.
            shared_row: Index of the row that later rows continue: their positions go on from it, and they attend to it.
            cache: Keys and values of earlier inputs.
            use_cache: Whether to return keys and values.
            positions: (3, B, L), for a language model with mRoPE if there are visual tokens.
        """
        packed = {} if row_lengths is None else packing(row_lengths, shared_row, embeddings.device)
        placed = {} if positions is None else dict(position_ids=positions)
        output = self.causal_lm.model(
            inputs_embeds=embeddings, use_cache=use_cache, output_hidden_states=True, **{CACHE: cache} | packed | placed
        )  # fmt: skip
        return Hidden(output.last_hidden_state, output.hidden_states[CONDITIONING_LAYER], output.past_key_values)


def packing(row_lengths: list[int], shared_row: int | None, device: torch.device) -> dict[str, Any]:
    """Returns the arguments that describe packed rows to a model of transformers.

    Our attention ignores the mask. It is 4-dimensional because transformers passes such a mask on as it is. Without a
    mask transformers would build one of L x L. A 2-dimensional mask it would read, and wait for the device.
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
    """The parts of a published model that are kept.

    Attributes:
        mllm: The language model.
        projector: Maps features of its vision tower into the language model's space. It becomes phi_vis.
        projector_dim: Width of these features. 0 if the published model has no projector: phi_vis is then new.
    """

    mllm: MLLM
    projector: nn.Module
    projector_dim: int


class Placeholder(NamedTuple):
    """Marks the place of the visual tokens: a chat template's typed part, and the token that it becomes."""

    part: str
    token: str


def no_system(tokenizer: PreTrainedTokenizerBase) -> None:
    """Says that a model was published without a message of the system."""


class Published(NamedTuple):
    """A kind of multimodal language model as transformers publishes it.

    Attributes:
        name: Its name in error messages.
        config, model: transformers' classes. Its language model and ``lm_head`` are trained.
        keys: Maps the prefix of a framework's parameters to the prefixes that a checkpoint may use for them.
        split: Takes the parts out of the model.
        placeholder: Marks the visual tokens in its chat template.
        system: Returns the message of the system that the model was published with, if it has one and its chat template
            does not write it. Only untrained models get it.
        template_lengths: Tokens of that template before a video, and behind it with an instruction; for plans, which
            have no tokenizer.
    """

    name: str
    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    keys: Mapping[str, tuple[str, ...]]
    split: Callable[[PreTrainedModel, MLLMConfig], Split]
    placeholder: Placeholder
    template_lengths: tuple[int, int]
    system: Callable[[PreTrainedTokenizerBase], str | None] = no_system


def causal_lm_of(shell: PreTrainedModel, published: PreTrainedModel, config: MLLMConfig) -> PreTrainedModel:
    """Puts the published model's language model and head into ``shell``, an ``...ForCausalLM`` on the meta device."""
    shell.model, shell.lm_head = published.model.language_model, published.lm_head
    return prepared(shell, config)


def prepared(causal_lm: PreTrainedModel, config: MLLMConfig) -> PreTrainedModel:
    """Gives a language model our head, our attention and, if wanted, gradient checkpointing."""
    causal_lm.lm_head = LanguageHead.of(causal_lm.lm_head)
    causal_lm.set_attn_implementation(PACKED_SDPA)
    if config.gradient_checkpointing:
        # Renamed within transformers 5. Both methods take torch's own arguments first.
        newer = getattr(causal_lm, "activation_checkpointing_enable", None)
        (newer or causal_lm.gradient_checkpointing_enable)({"use_reentrant": False})
    return causal_lm
