"""Tiny models with random weights, written to disk in the published models' folder layout.

They let the whole system run on a laptop through the very code that loads the published models: the classes are
transformers' and diffusers' own, only small. Nothing in them was trained.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from vtok.rows.prompts import CAPTION_INSTRUCTIONS, DECODER_TEMPLATE
from vtok.rows.text import IMAGE_TOKEN, VIDEO_TOKEN
from vtok.video_decoder.hunyuan import CLIP_TEXT_LENGTH

LLM_DIM = 128
CLIP_TEXT_DIM = 32
BOS, EOS, HEADER_START, HEADER_END = "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"

# The chat format of LLaMA-3, which the published LLaVA-Next speaks.
CHAT_TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# That of Qwen2.5-VL, whose messages have typed parts, with LLaMA-3's marks.
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'video' %}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

VISION = dict(
    hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=64, patch_size=8
)
LANGUAGE = dict(
    model_type="llama", hidden_size=LLM_DIM, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=False,
)  # fmt: skip
TRANSFORMER = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=24, num_layers=1, num_single_layers=1,
    num_refiner_layers=1, text_embed_dim=LLM_DIM, pooled_projection_dim=CLIP_TEXT_DIM, rope_axes_dim=(4, 10, 10),
)  # fmt: skip
WAN_TRANSFORMER = dict(
    num_attention_heads=2, attention_head_dim=12, text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2,
    rope_max_seq_len=32,
)  # fmt: skip
WAN_AUTOENCODER = dict(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
# As TI2V-5B's: pixels come in blocks of 2 x 2.
WAN_PATCHED = dict(is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16)
WAN_TEXT = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
QWEN_LANGUAGE = dict(
    hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
)  # fmt: skip
QWEN_VISION = dict(
    depth=2, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=64, fullatt_block_indexes=[1],
    patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=56, tokens_per_second=2,
)  # fmt: skip
AUTOENCODER = dict(block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4)


def write_tiny_models(folder: Path, texts: Iterable[str], seed: int = 0, mllm: str = "llava-next") -> None:
    """Write what a language model of a kind needs below ``folder``: ``llava``, ``clip``, ``hunyuan``, ``wan`` and
    ``wan_experts``, or ``qwen``.

    Args:
        texts: captions (and questions, answers) that the tokenizer is trained on.
        seed: of the random weights.
        mllm: the kind.
    """
    folder = Path(folder)
    tokenizer = train_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        for write in WRITERS[mllm]:
            # Each from the seed alone: the vocabulary's size must not change the frozen models.
            torch.manual_seed(seed)
            write(folder, tokenizer)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE of at most 1024 tokens; any text can be encoded."""
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


def wrapped(tokenizer: Tokenizer, template: str, **options) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers' own; ``template`` says where the special tokens go."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS, padding_side="right", **options
    )


def write_clip(folder: Path, tokenizer: Tokenizer) -> None:
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(folder / "clip")


def write_llava(folder: Path, tokenizer: Tokenizer, language: dict = LANGUAGE, vision: dict = VISION) -> None:
    vocabulary = tokenizer.get_vocab_size()
    config = LlavaNextConfig(
        text_config=LlamaConfig(**language, vocab_size=vocabulary),
        vision_config=CLIPVisionConfig(**vision),
        image_token_index=tokenizer.token_to_id(IMAGE_TOKEN),
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(folder / "llava")
    language_tokenizer = wrapped(tokenizer, f"{BOS} $A")
    language_tokenizer.chat_template = CHAT_TEMPLATE
    language_tokenizer.save_pretrained(folder / "llava")


def write_hunyuan(folder: Path, tokenizer: Tokenizer) -> None:
    ids = dict(
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(EOS),
    )
    text_config = CLIPTextConfig(
        hidden_size=CLIP_TEXT_DIM, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=CLIP_TEXT_DIM, vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=CLIP_TEXT_LENGTH, **ids,
    )  # fmt: skip
    parts = dict(
        transformer=HunyuanVideoTransformer3DModel(**TRANSFORMER),
        vae=AutoencoderKLHunyuanVideo(**AUTOENCODER),
        text_encoder_2=CLIPTextModel(text_config),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        tokenizer_2=wrapped(tokenizer, f"{BOS} $A {EOS}", model_max_length=CLIP_TEXT_LENGTH),
    )
    for name, part in parts.items():
        part.save_pretrained(folder / "hunyuan" / name)


def write_wan(folder: Path, tokenizer: Tokenizer) -> None:
    """As Wan2.2-TI2V-5B: one transformer, which is told each token's noise level."""
    parts = wan_parts(tokenizer, WAN_PATCHED, shift=5.0)
    WanPipeline(**parts, expand_timesteps=True).save_pretrained(folder / "wan")


def write_wan_experts(folder: Path, tokenizer: Tokenizer) -> None:
    """As Wan2.2-T2V-A14B: two transformers."""
    parts, second = wan_parts(tokenizer, {}, shift=3.0), WanTransformer3DModel(**WAN_TRANSFORMER)
    WanPipeline(**parts, transformer_2=second, boundary_ratio=0.875).save_pretrained(folder / "wan_experts")


def wan_parts(tokenizer: Tokenizer, autoencoder: dict, shift: float) -> dict:
    text_config = UMT5Config(
        **WAN_TEXT, vocab_size=tokenizer.get_vocab_size(), pad_token_id=tokenizer.token_to_id(EOS),
        eos_token_id=tokenizer.token_to_id(EOS),
    )  # fmt: skip
    return dict(
        transformer=WanTransformer3DModel(**WAN_TRANSFORMER),
        vae=AutoencoderKLWan(**WAN_AUTOENCODER | autoencoder),
        text_encoder=UMT5EncoderModel(text_config),
        tokenizer=wrapped(tokenizer, f"$A {EOS}"),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
    )


def write_qwen(folder: Path, tokenizer: Tokenizer) -> None:
    tower = Qwen2_5_VisionTransformerPretrainedModel(Qwen2_5_VLVisionConfig(**QWEN_VISION))
    vision_tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", VIDEO_TOKEN]
    language_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS, additional_special_tokens=vision_tokens
    )
    language_tokenizer.chat_template = QWEN_TEMPLATE
    language_tokenizer.save_pretrained(folder / "qwen")
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ends = dict(bos_token_id=None, eos_token_id=language_tokenizer.eos_token_id)
    config = Qwen2_5_VLConfig(
        text_config=QWEN_LANGUAGE | ends | dict(vocab_size=len(language_tokenizer)),
        vision_config=QWEN_VISION,
        **dict(zip(names, language_tokenizer.convert_tokens_to_ids(vision_tokens))),
    )
    qwen = Qwen2_5_VLForConditionalGeneration(config)
    qwen.model.visual = tower
    qwen.save_pretrained(folder / "qwen")


WRITERS: dict[str, tuple[Callable[[Path, Tokenizer], None], ...]] = {
    "llava-next": (write_llava, write_clip, write_hunyuan, write_wan, write_wan_experts),
    "qwen2.5-vl": (write_qwen,),
}
