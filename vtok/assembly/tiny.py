"""Writes tiny models with random weights to disk, in the published models' folder layout.

With them the whole system runs on a laptop, through the code that loads the published models: the classes are those of
transformers and diffusers. Nothing in them is trained.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.models import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLWan,
    HunyuanVideoTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from vtok.mllm.llava_next import IMAGE_TOKEN
from vtok.mllm.qwen25_vl import VIDEO_TOKEN
from vtok.motion_codec import MotionCodec, codec_config
from vtok.motion_codec.folder import save_folder
from vtok.omnitokenizer import OmniTokenizer, checkpoint, omni_config
from vtok.rows.prompts import CAPTION_INSTRUCTIONS, DECODER_TEMPLATE
from vtok.video_decoder.hunyuan import CLIP_TEXT_LENGTH

# Keyword arguments of a configuration or model.
Settings = dict[str, Any]

LLM_DIM = 128
CLIP_TEXT_DIM = 32
BOS, EOS, HEADER_START, HEADER_END = "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"

# LLaMA-3's chat format, which the published LLaVA-Next uses.
CHAT_TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# Qwen2.5-VL's format, whose messages have typed parts, with LLaMA-3's special tokens.
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'video' %}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

VISION: Settings = dict(
    hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=64, patch_size=8
)
LANGUAGE: Settings = dict(
    model_type="llama", hidden_size=LLM_DIM, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=False,
)  # fmt: skip
TRANSFORMER: Settings = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=24, num_layers=1, num_single_layers=1,
    num_refiner_layers=1, text_embed_dim=LLM_DIM, pooled_projection_dim=CLIP_TEXT_DIM, rope_axes_dim=(4, 10, 10),
)  # fmt: skip
WAN_TRANSFORMER: Settings = dict(
    num_attention_heads=2, attention_head_dim=12, text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2,
    rope_max_seq_len=32,
)  # fmt: skip
WAN_AUTOENCODER: Settings = dict(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
# Like TI2V-5B's autoencoder, which takes pixels in blocks of 2 x 2.
WAN_PATCHED: Settings = dict(is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16)
WAN_TEXT: Settings = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
QWEN_LANGUAGE: Settings = dict(
    hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
)  # fmt: skip
QWEN_VISION: Settings = dict(
    depth=2, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=64, fullatt_block_indexes=[1],
    patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=56, tokens_per_second=2,
)  # fmt: skip
OMNITOKENIZER: Settings = dict(
    resolution=64, twod_window_size=4, embedding_dim=32, heads=2, dim_head=16, n_codes=64, temporal_depth=2,
    enc_block="tw", dec_block="t",
)  # fmt: skip
MOTION_CODEC: Settings = dict(form="budget", channels=16, heads=2, codes=64, code_dim=8)
AUTOENCODER: Settings = dict(
    block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4
)


def write_tiny_models(folder: Path, texts: Iterable[str], seed: int = 0, mllm: str = "llava-next") -> None:
    """Writes the models for one kind of language model.

    Args:
        folder: Gets the subfolders ``llava`` (for ``llama``: a bare LLaMA), ``clip``, ``hunyuan``, ``wan``,
            ``wan_experts``, ``motion_codec`` and ``omnitokenizer``, or ``qwen``.
        texts: Captions (and questions, answers) that train the tokenizer.
        seed: Seed of the random weights.
        mllm: The kind.
    """
    folder = Path(folder)
    tokenizer = train_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        for write in WRITERS[mllm]:
            # Each model starts from the seed, so the vocabulary's size does not change the frozen models.
            torch.manual_seed(seed)
            write(folder, tokenizer)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Trains a byte-level BPE of at most 1024 tokens, which encodes any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[BOS, EOS, HEADER_START, HEADER_END, IMAGE_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *CAPTION_INSTRUCTIONS, DECODER_TEMPLATE], trainer)
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Returns the id of a token of the vocabulary."""
    found = tokenizer.token_to_id(token)
    assert found is not None
    return found


def wrapped(tokenizer: Tokenizer, template: str, **options: Any) -> PreTrainedTokenizerFast:
    """Makes a tokenizer of transformers. ``template`` places the special tokens."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, token_id(tokenizer, token)) for token in (BOS, EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS, padding_side="right", **options
    )


def write_clip(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``clip``: CLIP's vision tower."""
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(folder / "clip")


def write_llava(folder: Path, tokenizer: Tokenizer, language: Settings = LANGUAGE, vision: Settings = VISION) -> None:
    """Writes ``llava``: LLaVA-Next with its tokenizer."""
    config = LlavaNextConfig(**llava_parts(tokenizer, language, vision))
    save_language_model(folder, LlavaNextForConditionalGeneration(config), tokenizer)


def write_first_llava(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``llava``: the LLaVA before LLaVA-Next, as which HunyuanVideo's text encoder was published."""
    save_language_model(
        folder, LlavaForConditionalGeneration(LlavaConfig(**llava_parts(tokenizer, LANGUAGE, VISION))), tokenizer
    )


def write_llama(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``llava``: a bare LLaMA with LLaVA's tokenizer."""
    config = LlamaConfig(**LANGUAGE, vocab_size=tokenizer.get_vocab_size())
    save_language_model(folder, LlamaForCausalLM(config), tokenizer)


def llava_parts(tokenizer: Tokenizer, language: Settings, vision: Settings) -> Settings:
    """Returns the settings that both kinds of LLaVA have."""
    return dict(
        text_config=LlamaConfig(**language, vocab_size=tokenizer.get_vocab_size()),
        vision_config=CLIPVisionConfig(**vision),
        image_token_index=token_id(tokenizer, IMAGE_TOKEN),
    )


def save_language_model(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Writes ``llava``: a language model with its tokenizer."""
    model.save_pretrained(folder / "llava")
    language_tokenizer = wrapped(tokenizer, f"{BOS} $A")
    language_tokenizer.chat_template = CHAT_TEMPLATE
    language_tokenizer.save_pretrained(folder / "llava")


class Saved(Protocol):
    """A part of transformers or diffusers."""

    def save_pretrained(self, save_directory: Path, /) -> object: ...


def write_hunyuan(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``hunyuan``: HunyuanVideo's parts."""
    ids: Settings = dict(
        bos_token_id=token_id(tokenizer, BOS),
        eos_token_id=token_id(tokenizer, EOS),
        pad_token_id=token_id(tokenizer, EOS),
    )
    text_config = CLIPTextConfig(
        hidden_size=CLIP_TEXT_DIM, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=CLIP_TEXT_DIM, vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=CLIP_TEXT_LENGTH, **ids,
    )  # fmt: skip
    parts: dict[str, Saved] = dict(
        transformer=HunyuanVideoTransformer3DModel(**TRANSFORMER),
        vae=AutoencoderKLHunyuanVideo(**AUTOENCODER),
        text_encoder_2=CLIPTextModel(text_config),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        tokenizer_2=wrapped(tokenizer, f"{BOS} $A {EOS}", model_max_length=CLIP_TEXT_LENGTH),
    )
    for name, part in parts.items():
        part.save_pretrained(folder / "hunyuan" / name)


def write_motion_codec(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``motion_codec``: the codec of the strategy ``video-lavit``, in its form with VTok's number of tokens."""
    save_folder(MotionCodec(codec_config(MOTION_CODEC)), folder / "motion_codec")


def write_omnitokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``omnitokenizer``: the codec of the strategy of that name."""
    checkpoint.save_folder(OmniTokenizer(omni_config(OMNITOKENIZER)), folder / "omnitokenizer")


def write_wan(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``wan``, like Wan2.2-TI2V-5B: one transformer, which takes a noise level for each token."""
    parts = wan_parts(tokenizer, WAN_PATCHED, shift=5.0)
    WanPipeline(**parts, expand_timesteps=True).save_pretrained(folder / "wan")


def write_wan_experts(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``wan_experts``, like Wan2.2-T2V-A14B: two transformers."""
    parts, second = wan_parts(tokenizer, {}, shift=3.0), WanTransformer3DModel(**WAN_TRANSFORMER)
    WanPipeline(**parts, transformer_2=second, boundary_ratio=0.875).save_pretrained(folder / "wan_experts")


def wan_parts(tokenizer: Tokenizer, autoencoder: Settings, shift: float) -> dict[str, Any]:
    """Builds the parts that both kinds of Wan have."""
    text_config = UMT5Config(
        **WAN_TEXT, vocab_size=tokenizer.get_vocab_size(), pad_token_id=token_id(tokenizer, EOS),
        eos_token_id=token_id(tokenizer, EOS),
    )  # fmt: skip
    return dict(
        transformer=WanTransformer3DModel(**WAN_TRANSFORMER),
        vae=AutoencoderKLWan(**WAN_AUTOENCODER | autoencoder),
        text_encoder=UMT5EncoderModel(text_config),
        tokenizer=wrapped(tokenizer, f"$A {EOS}"),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
    )


def write_qwen(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes ``qwen``: Qwen2.5-VL with its tokenizer."""
    tower = Qwen2_5_VisionTransformerPretrainedModel(Qwen2_5_VLVisionConfig(**QWEN_VISION))
    vision_tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", VIDEO_TOKEN]
    language_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS, additional_special_tokens=vision_tokens
    )
    language_tokenizer.chat_template = QWEN_TEMPLATE
    language_tokenizer.save_pretrained(folder / "qwen")
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ends = dict(bos_token_id=None, eos_token_id=language_tokenizer.eos_token_id)
    ids: Settings = dict(zip(names, map(language_tokenizer.convert_tokens_to_ids, vision_tokens)))
    config = Qwen2_5_VLConfig(
        text_config=QWEN_LANGUAGE | ends | dict(vocab_size=len(language_tokenizer)),
        vision_config=QWEN_VISION,
        **ids,
    )
    qwen = Qwen2_5_VLForConditionalGeneration(config)
    qwen.model.visual = tower
    qwen.save_pretrained(folder / "qwen")


OTHER_PARTS = (write_clip, write_hunyuan, write_wan, write_wan_experts, write_motion_codec, write_omnitokenizer)
WRITERS: dict[str, tuple[Callable[[Path, Tokenizer], None], ...]] = {
    "llava-next": (write_llava, *OTHER_PARTS),
    "llava": (write_first_llava, *OTHER_PARTS),
    "llama": (write_llama, *OTHER_PARTS),
    "qwen2.5-vl": (write_qwen,),
}
