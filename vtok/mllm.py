"""The multimodal language model: LLaVA-Next's language model and head, its projector handed over to phi_vis.

LLaVA's vision tower is not kept (the tokeniser has its own ``F``), and neither is ``image_newline``, which nothing here
uses: under ZeRO-3 every trainable parameter must get a gradient in every step.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Cache,
    GenerationConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
)

from vtok.config import MLLMConfig
from vtok.language_head import LanguageHead
from vtok.packed_attention import PACKED_SDPA
from vtok.weights import TRANSFORMERS_FILES, Location, Part, ReadConfig

# Diffusers' Hunyuan pipeline reads its text encoder two layers before the end (its ``num_hidden_layers_to_skip``).
CONDITIONING_LAYER = -3


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
    """

    def __init__(self, causal_lm: PreTrainedModel):
        super().__init__()
        self.causal_lm = causal_lm

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
        cache: Cache | None = None,
        use_cache: bool = False,
    ) -> Hidden:
        """Run the language model over embeddings (B, L, d).

        Args:
            row_lengths: of the rows packed into L, one behind another, with B = 1: each has positions of its own from
                zero on and sees no other.
        """
        packed = {} if row_lengths is None else packing(row_lengths, embeddings.device)
        output = self.causal_lm.model(
            inputs_embeds=embeddings, past_key_values=cache, use_cache=use_cache, output_hidden_states=True, **packed
        )
        return Hidden(output.last_hidden_state, output.hidden_states[CONDITIONING_LAYER], output.past_key_values)


def packing(row_lengths: list[int], device: torch.device) -> dict[str, Any]:
    """What transformers' models must be told of packed rows.

    Positions that begin anew are also how its flash attention finds them. Without a mask of ones it would build one of
    L x L.
    """
    positions = torch.cat([torch.arange(length) for length in row_lengths])[None].to(device)
    return dict(position_ids=positions, attention_mask=torch.ones_like(positions), row_lengths=row_lengths)


def llava_location(config: MLLMConfig) -> Location:
    return Location("LLaVA-Next", "mllm.weights", config.weights, config.revision)


def llava_part(config: MLLMConfig) -> Part:
    """The language model and the projector in a framework, as transformers 5 names them and as 4 did."""
    keys = {
        "mllm.causal_lm.model.": ("model.language_model.", "language_model.model."),
        "mllm.causal_lm.lm_head.": ("lm_head.", "language_model.lm_head."),
        "projection.projector.linear_": ("model.multi_modal_projector.linear_", "multi_modal_projector.linear_"),
    }
    return Part(llava_location(config), TRANSFORMERS_FILES, keys)


def empty_llava(
    config: MLLMConfig, read_config: ReadConfig = Location.read_json
) -> tuple[MLLM, nn.Module, LlavaNextConfig]:
    """The language model and LLaVA's projector on the meta device, and LLaVA's configuration.

    Raises:
        ConfigError: no such hub id or folder, or another architecture.
    """
    location = llava_location(config)
    stored = read_config(location, "config.json")
    if (kind := stored.get("model_type")) != LlavaNextConfig.model_type:
        raise location.error(f"its config.json is of a {kind!r}, not a {LlavaNextConfig.model_type!r}")
    with torch.device("meta"):
        llava = LlavaNextForConditionalGeneration(LlavaNextConfig.from_dict(stored))
    return split_llava(llava, config)


def generation_config(config: MLLMConfig) -> GenerationConfig | None:
    """The generation settings that were published with the model, if any were."""
    location, name = llava_location(config), "generation_config.json"
    return GenerationConfig.from_dict(location.read_json(name)) if location.find(name) else None


def split_llava(
    llava: LlavaNextForConditionalGeneration, config: MLLMConfig
) -> tuple[MLLM, nn.Module, LlavaNextConfig]:
    """Take LLaVA-Next apart into the language model and the projector; its vision tower is left behind."""
    with torch.device("meta"):  # only a shell with the right class; its modules are replaced
        causal_lm = AutoModelForCausalLM.from_config(llava.config.text_config)
    causal_lm.model = llava.model.language_model
    causal_lm.lm_head = LanguageHead.of(llava.lm_head)
    causal_lm.set_attn_implementation(PACKED_SDPA)
    if config.gradient_checkpointing:
        # Renamed in the course of transformers 5; both take torch's own arguments first.
        newer = getattr(causal_lm, "activation_checkpointing_enable", None)
        (newer or causal_lm.gradient_checkpointing_enable)({"use_reentrant": False})
    return MLLM(causal_lm), llava.model.multi_modal_projector, llava.config
