"""Typed configuration of the model: one dataclass for each part, which checks its values when it is made."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")

DEFAULT_MOTION_STRIDE = 6
# Frames per second that no video exceeds.
MOST_FPS = 1000

# Strategies whose codec sees several frames at once (:mod:`vtok.tokeniser.grid_steps`).
CODECS = ("video-lavit", "omnitokenizer")

# Strategies whose motion tokens are made of residuals.
OF_RESIDUALS = ("vtok", "vtok-cuts")

# See :class:`DecoderConfig`.
VaeTiling = bool | Literal["auto"]
Fp8 = Literal["weights", "dynamic"]


class ConfigError(ValueError):
    """The user can correct this: the message is one line that names the setting and says what to do."""


def require(condition: bool, message: str) -> None:
    """Raises :class:`ConfigError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def member(table: Mapping[str, T], name: str, setting: str) -> T:
    """Returns the entry of a family's table that ``setting`` names; raises ConfigError if there is none."""
    require(name in table, f"{setting} is {name!r}, which is unknown: choose one of {', '.join(table)}")
    return table[name]


def require_sizes(setting: str, given: Mapping[str, object], known: Mapping[str, object]) -> None:
    """Checks the settings of an architecture that are given by name.

    Args:
        setting: The setting that holds them, for the message.
        given: The settings.
        known: Every name, with a value of its type: a whole number, a number or a text. Others are not checked.

    Raises:
        ConfigError: A name is unknown (the message has the nearest one), or a value is of another type, a whole number
            below 1, or a negative or infinite number.
    """
    for name, value in given.items():
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
        require(name in known, f"{setting}: no setting {name}; did you mean {near[0]}?")
        example, is_bool = known[name], isinstance(value, bool)
        if isinstance(example, int):
            fits, kind = isinstance(value, int) and value >= 1, "a whole number of at least 1"
        elif isinstance(example, float):
            fits, kind = isinstance(value, (int, float)) and 0 <= value < math.inf, "a number that is not negative"
        elif isinstance(example, str):
            fits, kind = isinstance(value, str), "a text"
        else:
            continue
        require(fits and not is_bool, f"{setting}: {name} is {value!r}, but must be {kind}")


@dataclass
class VTokConfig:
    """The video tokeniser (paper, section 3.2).

    Args:
        strategy: How frames become tokens. ``vtok``: S tokens of the key frame and one motion token per later step.
            ``frames``: S tokens of each of ``sampled_frames`` frames. ``none``: no visual tokens, only text.
            ``vtok-cuts``: ``vtok`` with a further key frame at each cut (:mod:`vtok.tokeniser.cuts`).
            ``training_free``: like ``vtok``, but a later step's token is the mean feature of its frame.
            ``video-lavit``: S tokens of the first frame, then codes of motion vectors (:mod:`vtok.motion_codec`).
            ``omnitokenizer``: pooled latents of an OmniTokenizer, with the backbone of that name.
        sampled_frames: k of ``frames``: this many frames, evenly spaced over the clip.
        backbone: The frozen feature extractor ``F``. ``clip``: layer -2 without CLS. ``vgg19``: one layer.
            ``vidtok``: latents of a VidTok with FSQ; the visual head ``codes`` then predicts its codes. ``qwen2.5-vl``:
            Qwen2.5-VL's tower and merger, for the language model of that name; a patch is two frames.
            ``omnitokenizer``: vectors of an OmniTokenizer's codes.
        weights: The backbone's weights: a hub id or folder for ``clip`` and ``qwen2.5-vl``, torchvision's checkpoint
            file for ``vgg19``, a folder for ``vidtok`` (:mod:`vtok.vidtok.latent_space`), a published ``.ckpt`` or a
            folder for ``omnitokenizer``. ``None``: random weights, with a warning on stderr.
        revision: Branch, tag or commit, if ``weights`` is a hub id.
        clip_config: Overrides of ``transformers.CLIPVisionConfig`` for a random CLIP (default: ViT-L/14-336).
        vgg_layer_index: Index in VGG19's ``features``. 25 is ``conv4_4`` before its ReLU.
        codec: For ``video-lavit``: folder of the motion codec, which ``pipelines/train_motion_codec.py`` writes.
            ``None``: random weights, with a warning on stderr.
        codec_config: For ``video-lavit``: sizes of a random codec: ``form`` (``budget`` or ``published``) and fields of
            :class:`vtok.motion_codec.MotionCodecConfig`.
        spatial_grid_size: g. The key frame keeps ``S = g * g`` spatial tokens. With ``vidtok`` and ``qwen2.5-vl``,
            frames are resized so that the backbone yields g x g features.
        token_dim: Width of a token. If it is not the backbone's width, a linear layer is added.
        fps: Frames per second of the video that the tokeniser gets.
        motion_stride: Frames per motion token: ``M = (N - 1) // motion_stride``.
        motion_tokens_per_second: r: ``M = ceil((N - 1) * r / fps)``. Set at most one of the two rules. With neither,
            the stride is 6.
        residual_grid: n. The residual is pooled to n x n and flattened into ``g_phi``. 1 is the paper's global pool.
            With ``omnitokenizer`` each cell is.
        residual_to: The frame that a residual is taken to: ``key`` (the paper's, the key frame) or ``previous`` (the
            step before; the key frame for the first).
        residual_pooling: How ``g_phi`` makes a token of the n x n cells: ``flatten`` (an MLP reads all of them) or
            ``query`` (a learned query attends to them).
        motion_hidden_dim: Width between ``g_phi``'s two layers, and of the attention of ``query``. ``token_dim`` if
            omitted.
        key_frame_idx: Index of the key frame, or ``detect``: a sharp and typical frame
            (:mod:`vtok.tokeniser.key_frame`). Earlier and later frames get motion tokens.
        max_key_frames: For ``vtok-cuts``: key frames of a video at most, the first one included.
        cut_threshold: For ``vtok-cuts``: from this change of the features on there is a cut, in 0..2
            (:func:`vtok.tokeniser.cuts.changes`).
    """

    strategy: str = "vtok"
    sampled_frames: int | None = None
    backbone: str = "clip"
    weights: str | None = None
    revision: str | None = None
    clip_config: dict[str, Any] | None = None
    vgg_layer_index: int = 25
    codec: str | None = None
    codec_config: dict[str, Any] | None = None
    spatial_grid_size: int = 4
    token_dim: int = 1024
    fps: float = 6.0
    motion_stride: int | None = None
    motion_tokens_per_second: float | None = None
    residual_grid: int = 1
    residual_to: Literal["key", "previous"] = "key"
    residual_pooling: Literal["flatten", "query"] = "flatten"
    motion_hidden_dim: int | None = None
    key_frame_idx: int | Literal["detect"] = 0
    max_key_frames: int | None = None
    cut_threshold: float = 0.15

    def __post_init__(self) -> None:
        require(
            (self.sampled_frames or 0) >= 1 if self.strategy == "frames" else self.sampled_frames is None,
            "tokeniser.sampled_frames, at least 1, belongs to tokeniser.strategy frames: set both or neither",
        )
        require(
            self.motion_stride is None or self.motion_tokens_per_second is None,
            "set only one of tokeniser.motion_stride and tokeniser.motion_tokens_per_second",
        )
        require(self.motion_stride is None or self.motion_stride >= 1, "tokeniser.motion_stride must be at least 1")
        rate = self.motion_tokens_per_second
        require(rate is None or rate > 0, "tokeniser.motion_tokens_per_second must be positive")
        require(self.backbone != "vidtok" or bool(self.weights), "the backbone vidtok needs tokeniser.weights")
        require(self.spatial_grid_size >= 1, "tokeniser.spatial_grid_size must be at least 1")
        require(self.residual_grid >= 1, "tokeniser.residual_grid must be at least 1")
        require(
            self.motion_hidden_dim is None or self.motion_hidden_dim >= 1,
            "tokeniser.motion_hidden_dim must be at least 1",
        )
        require(self.token_dim >= 1, "tokeniser.token_dim must be at least 1")
        require(0 < self.fps <= MOST_FPS, f"tokeniser.fps must be positive and at most {MOST_FPS}")
        key = self.key_frame_idx
        require(key == "detect" or key >= 0, "tokeniser.key_frame_idx must be 'detect' or not negative")
        require(
            self.clip_config is None or self.backbone == "clip",
            "tokeniser.clip_config belongs to tokeniser.backbone clip: leave it out",
        )
        require(
            self.reads_vectors or self.codec is self.codec_config is None,
            "tokeniser.codec and tokeniser.codec_config belong to tokeniser.strategy video-lavit: leave them out",
        )
        require(
            self.codec is None or not self.codec_config,
            "tokeniser.codec_config is for random weights; remove it or tokeniser.codec",
        )
        self._require_residual_settings()
        if self.strategy in CODECS:
            require(
                self.motion_stride is self.motion_tokens_per_second is None,
                f"tokeniser.strategy {self.strategy} has as many motion tokens as its codec says: leave out "
                "tokeniser.motion_stride and tokeniser.motion_tokens_per_second",
            )
            require(
                key == 0,
                f"tokeniser.strategy {self.strategy} takes the first frame as key frame: leave "
                "tokeniser.key_frame_idx at 0",
            )
            require(
                self.backbone != "qwen2.5-vl",
                f"tokeniser.strategy {self.strategy} has no places in Qwen2.5-VL's positions: choose another backbone",
            )
            require(
                self.strategy != "omnitokenizer" or self.backbone == "omnitokenizer",
                "tokeniser.strategy omnitokenizer needs tokeniser.backbone omnitokenizer",
            )
        if self.backbone == "qwen2.5-vl":
            step = self.frames_per_motion_token()
            require(key == 0, "the backbone qwen2.5-vl takes the first frame as key frame: leave key_frame_idx at 0")
            require(
                step >= 2,
                f"the backbone qwen2.5-vl makes a motion token of two frames, but there is one every {step:g}: set "
                "tokeniser.motion_stride to at least 2, or raise tokeniser.fps",
            )

    def _require_residual_settings(self) -> None:
        """Checks the settings of the strategies in ``OF_RESIDUALS``."""
        for name, choices in (("residual_to", ("key", "previous")), ("residual_pooling", ("flatten", "query"))):
            value = getattr(self, name)
            require(value in choices, f"tokeniser.{name} is {value!r}: choose {' or '.join(choices)}")
            require(
                value == choices[0] or self.strategy in OF_RESIDUALS,
                f"tokeniser.{name} {value} belongs to tokeniser.strategy {' or '.join(OF_RESIDUALS)}: leave it out",
            )
        require(
            self.residual_pooling == "flatten" or self.residual_grid > 1,
            "tokeniser.residual_pooling query needs several cells: set tokeniser.residual_grid to 2 or more",
        )
        require(
            self.residual_pooling == "flatten" or self.backbone != "qwen2.5-vl",
            "tokeniser.residual_pooling query cannot start as Qwen2.5-VL's own token: leave it at flatten",
        )
        require(
            (self.max_key_frames or 0) >= 2 if self.strategy == "vtok-cuts" else self.max_key_frames is None,
            "tokeniser.max_key_frames, at least 2, belongs to tokeniser.strategy vtok-cuts: set both or neither",
        )
        require(0 < self.cut_threshold <= 2, "tokeniser.cut_threshold must lie in 0..2, above 0")
        if self.strategy == "vtok-cuts":
            require(
                self.key_frame_idx == 0,
                "tokeniser.strategy vtok-cuts takes the first frame as key frame: leave tokeniser.key_frame_idx at 0",
            )
            require(
                self.backbone != "qwen2.5-vl",
                "tokeniser.strategy vtok-cuts has no places in Qwen2.5-VL's positions: choose another backbone",
            )

    @property
    def reads_vectors(self) -> bool:
        """Whether the strategy reads motion vectors, and so has a motion codec."""
        return self.strategy == "video-lavit"

    @property
    def stride(self) -> int:
        """Frames per motion token by the stride rule."""
        return self.motion_stride or DEFAULT_MOTION_STRIDE

    def frames_per_motion_token(self, fps: float | None = None) -> float:
        """Returns the frames from one motion token to the next, by the rule that is set.

        Args:
            fps: Frames per second. ``self.fps`` if omitted. Only the rate rule uses it.
        """
        if self.motion_tokens_per_second is None:
            return self.stride
        return (fps or self.fps) / self.motion_tokens_per_second

    @property
    def motion_rate(self) -> float:
        """Motion tokens per second of video. 0 if the strategy has the same number for all clips.

        With ``video-lavit`` and ``omnitokenizer`` the codec decides: as many as frames, if it has VTok's number.
        """
        if self.strategy in ("frames", "none"):
            return 0.0
        if self.strategy in CODECS:
            return self.fps
        return self.motion_tokens_per_second or self.fps / self.stride

    @property
    def named_weights(self) -> str:
        """``weights``, for a backbone that needs some; raises ConfigError if they are random."""
        if self.weights is None:
            raise ConfigError(f"the backbone {self.backbone} needs tokeniser.weights")
        return self.weights

    @property
    def num_spatial_tokens(self) -> int:
        return self.spatial_grid_size**2


@dataclass
class LoraConfig:
    """Low-rank adapters (LoRA or DoRA, by peft) on linear layers whose own weights stay frozen.

    Args:
        rank: r. An adapter adds ``(alpha / r) * B A x`` to the layer's output, with A (r, in) and B (out, r).
        alpha: Numerator of that scale.
        dropout: Share of an adapter's inputs that training drops. The decoder's adapters take none.
        dora: DoRA: also learn the length of every row of the layer's weight, apart from its direction.
        bits: Precision of the frozen layers under the adapters: 16 is the run's, 8 and 4 are bitsandbytes' (on a GPU,
            with ZeRO-2, without DoRA). An export is over the layers in full precision.
        targets: Names of the linear layers that get an adapter, as they end: ``q_proj``. If omitted, all of a block in
            the language model, and those of attention (``to_q``, ``to_k``, ``to_v``, ``to_out.0``) in the decoder.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    dora: bool = False
    bits: Literal[16, 8, 4] = 16
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        require(self.rank >= 1, "lora.rank must be at least 1")
        require(self.alpha > 0, "lora.alpha must be positive")
        require(0 <= self.dropout < 1, "lora.dropout must lie in 0..1, below 1")
        require(self.bits in (16, 8, 4), "lora.bits must be 16, 8 or 4")
        require(self.bits == 16 or not self.dora, "lora.dora needs lora.bits 16: leave one of them out")
        require(self.targets != [], "lora.targets is empty: name linear layers, or leave it out")


@dataclass
class MLLMConfig:
    """The multimodal language model.

    Args:
        kind: ``llava-next``, ``llava`` (with HunyuanVideo's own text encoder the model starts as HunyuanVideo),
            ``llama`` (a bare language model) or ``qwen2.5-vl``. The last only understands: it has no visual head and no
            decoder.
        weights: Hub id or folder of a model of this kind, as transformers' ``...ForConditionalGeneration`` or
            ``LlamaForCausalLM`` stores it, with its tokenizer.
        revision: Branch, tag or commit, if ``weights`` is a hub id.
        max_motion_tokens: Rows of the temporal position table in ``P`` (eq. 3). Videos with more steps are refused.
        max_text_tokens: Tokens of a question, and of a caption or answer, at most. Longer ones are cut in training.
        gradient_checkpointing: Recompute the blocks in backward instead of keeping their activations.
        lora: Adapters on the linear layers of its blocks. The language model itself is then frozen, unless
            ``train.parts`` names it. ``null``: no adapters.
    """

    kind: str = "llava-next"
    weights: str = "llava-hf/llama3-llava-next-8b-hf"
    revision: str | None = None
    max_motion_tokens: int = 1024
    max_text_tokens: int = 2048
    gradient_checkpointing: bool = False
    lora: LoraConfig | None = None

    def __post_init__(self):
        require(self.max_motion_tokens >= 1, "mllm.max_motion_tokens must be at least 1")
        require(self.max_text_tokens >= 1, "mllm.max_text_tokens must be at least 1")


@dataclass
class VisualHeadConfig:
    """``p(V_j | V_<j, text)`` (eq. 8) over standardised frozen features.

    Args:
        kind: ``gmm`` (diagonal Gaussian mixture), ``mse`` (regression to the mean), ``flow`` (a small flow-matching
            network) or ``codes`` (cross-entropy over quantised features).
        components, min_scale: For ``gmm``: the number of components and the floor of their standard deviations.
        width, depth, steps: For ``flow``: the layers' width, the number of blocks, and the steps of a sample.
        levels: For ``codes``: codes per dimension. The backbone ``vidtok`` has its own number.
    """

    kind: str = "gmm"
    components: int = 8
    min_scale: float = 1e-2
    width: int = 1024
    depth: int = 3
    steps: int = 16
    levels: int = 32

    def __post_init__(self) -> None:
        require(self.components >= 1, "visual_head.components must be at least 1")
        require(self.min_scale > 0, "visual_head.min_scale must be positive")
        require(
            min(self.width, self.depth, self.steps) >= 1,
            "visual_head.width, visual_head.depth and visual_head.steps must be at least 1",
        )
        require(self.levels >= 2, "visual_head.levels must be at least 2")


@dataclass
class DecoderConfig:
    """The video decoder. It is frozen. With ``wan`` an adapter trains along with the language model.

    Args:
        kind: ``hunyuan`` (HunyuanVideo, which reads the language model's states) or ``wan`` (Wan text-to-video, which
            reads its own text encoder's embeddings and adapted states).
        weights: Hub id or folder in the published layout: ``transformer``, ``vae`` and ``scheduler``; for ``hunyuan``
            also ``text_encoder_2`` and ``tokenizer_2``; for ``wan`` also ``text_encoder``, ``tokenizer``,
            ``model_index.json`` and, if it has two experts, ``transformer_2``.
        revision: Branch, tag or commit, if ``weights`` is a hub id.
        vae: For ``hunyuan``: folder of a causal VidTok that replaces the autoencoder in ``weights``. The transformer
            must have been trained on its latents.
        expert: For a ``wan`` with two experts: the one that this run trains with, on the noise levels of that expert.
            The next run, or this one when resumed, takes the other. Both make a video.
        adapter_dim: For ``wan``: width between the adapter's two layers.
        fps: Frames per second of the decoded video.
        height, width: Size of the decoded video in pixels, multiples of 16 (of 32 for Wan2.2-TI2V-5B).
        max_prompt_tokens: Prompt tokens that are kept after the template is cropped, as in diffusers' HunyuanVideo
            pipeline.
        guidance: For ``hunyuan``: value of the distilled guidance embedding, in training and in sampling. It changes
            the direction of ``L_dec``'s gradient on the conditioning.
        true_guidance: Scale of classifier-free guidance in sampling, against ``negative_prompt``. Wan needs it, since
            it was not distilled. HunyuanVideo was: leave it at 1, which turns it off.
        true_guidance_2: For ``wan`` with two experts: the scale of the one for low noise levels, diffusers'
            ``guidance_scale_2``. ``true_guidance`` if omitted.
        negative_prompt: What ``true_guidance`` leads away from. If omitted: Wan's published text; with HunyuanVideo the
            empty text.
        shift: Shift of the noise levels, in training and in sampling. The one that is stored with the scheduler if
            omitted.
        objective: ``velocity`` (flow matching) or ``noise`` (eq. 11's form, from the same prediction).
        fp8: Keep the linear layers of the frozen transformer's blocks in fp8, half the bytes of bf16
            (:mod:`vtok.fp8`). ``weights``: products are computed in the run's precision. ``dynamic``: inputs are
            rounded too, and products are fp8's, on GPUs that have them. ``null``: the run's precision.
        gradient_checkpointing: Recompute the transformer's blocks in backward.
        vae_tiling: Whether the autoencoder encodes and decodes large frames in diffusers' tiles, in training and in
            sampling: less memory, more arithmetic, slightly different latents. ``auto`` tiles frames above 480 x 832
            pixels with HunyuanVideo, above 720 x 1280 with Wan (:mod:`vtok.video_decoder.tiling`).
        loss_height, loss_width: Size of the videos in ``L_dec``, if it is not that of generated videos.
        loss_latent_frames: ``L_dec`` takes this many latent frames from the start of a window, as a clip of its own.
            The whole window if omitted.
        lora: Adapters on linear layers of the frozen transformer, which then train. The paper has none. They cost
            gradients of its weights' inputs and outputs, which ``plan`` states. ``null``: no adapters.
    """

    kind: str = "hunyuan"
    weights: str = "hunyuanvideo-community/HunyuanVideo"
    revision: str | None = None
    vae: str | None = None
    expert: Literal["high_noise", "low_noise"] | None = None
    adapter_dim: int = 4096
    fps: float = 24.0
    height: int = 320
    width: int = 576
    max_prompt_tokens: int = 256
    guidance: float = 6.0
    true_guidance: float = 1.0
    true_guidance_2: float | None = None
    negative_prompt: str | None = None
    shift: float | None = None
    objective: Literal["velocity", "noise"] = "velocity"
    fp8: Fp8 | None = None
    gradient_checkpointing: bool = False
    vae_tiling: VaeTiling = "auto"
    loss_height: int | None = None
    loss_width: int | None = None
    loss_latent_frames: int | None = None
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        require(
            self.lora is None or self.lora.dropout == 0,
            "decoder.lora.dropout must be 0: the decoder runs in evaluation mode",
        )
        require(
            self.lora is None or self.expert is None,
            "decoder.lora needs a decoder with one transformer: its experts would share the adapters",
        )
        require(
            self.lora is None or self.fp8 is None,
            "decoder.fp8 and decoder.lora exclude each other: adapters cannot be added to fp8 weights; leave one out",
        )
        require(
            self.vae is None or self.kind == "hunyuan",
            f"decoder.vae, a VidTok, replaces only HunyuanVideo's autoencoder: leave it out with {self.kind}",
        )
        require(self.expert is None or self.kind == "wan", "decoder.expert is a setting of decoder.kind wan")
        require(self.adapter_dim >= 1, "decoder.adapter_dim must be at least 1")
        require(0 < self.fps <= MOST_FPS, f"decoder.fps must be positive and at most {MOST_FPS}")
        require(
            (self.loss_height is None) == (self.loss_width is None),
            "set both decoder.loss_height and decoder.loss_width, or neither",
        )
        for prefix, (height, width) in (("", (self.height, self.width)), ("loss_", self.loss_size)):
            require(
                height % 16 == 0 and width % 16 == 0 and min(height, width) >= 16,
                f"decoder.{prefix}height and decoder.{prefix}width must be multiples of 16, not {height}x{width}",
            )
        require(
            self.loss_latent_frames is None or self.loss_latent_frames >= 1,
            "decoder.loss_latent_frames must be at least 1",
        )
        require(self.true_guidance >= 1, "decoder.true_guidance must be at least 1")
        second = self.true_guidance_2
        require(
            second is None or (self.expert is not None and self.true_guidance > 1 and second >= 1),
            "decoder.true_guidance_2, at least 1, is the scale of Wan's second expert: it needs decoder.expert and "
            "decoder.true_guidance above 1",
        )
        require(self.shift is None or self.shift > 0, "decoder.shift must be positive")
        require(self.max_prompt_tokens >= 1, "decoder.max_prompt_tokens must be at least 1")

    @property
    def loss_size(self) -> tuple[int, int]:
        """Height and width of the videos in ``L_dec``."""
        if self.loss_height is None or self.loss_width is None:
            return self.height, self.width
        return self.loss_height, self.loss_width


@dataclass
class LossConfig:
    """Weights of ``L = under * L_under + vis_lm * L_visLM + dec * L_dec`` (eq. 12). The paper sets all to 1.

    Args:
        under, vis_lm, dec: The weights.
        dec_every: n: the first of every n steps has ``L_dec``; the decoder does not run in the others. The weight of
            ``L_dec`` does not change, so over n steps it counts for an n-th.
    """

    under: float = 1.0
    vis_lm: float = 1.0
    dec: float = 1.0
    dec_every: int = 1

    def __post_init__(self) -> None:
        require(self.dec_every >= 1, "loss.dec_every must be at least 1")
        require(
            self.dec_every == 1 or self.under + self.vis_lm > 0,
            "loss.dec_every above 1 needs loss.under or loss.vis_lm: the steps between would have no loss",
        )
        require(min(self.under, self.vis_lm, self.dec) >= 0, "loss weights must not be negative")
        require(self.under + self.vis_lm + self.dec > 0, "at least one loss weight must be positive")

    def with_decoder(self, step: int) -> bool:
        """Whether step ``step``, counted from 1, has ``L_dec``."""
        return (step - 1) % self.dec_every == 0


@dataclass
class ModelConfig:
    """The settings of a :class:`vtok.framework.VTokFramework`."""

    tokeniser: VTokConfig = field(default_factory=VTokConfig)
    mllm: MLLMConfig = field(default_factory=MLLMConfig)
    visual_head: VisualHeadConfig = field(default_factory=VisualHeadConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        require(
            (self.mllm.kind == "qwen2.5-vl") == (self.tokeniser.backbone == "qwen2.5-vl"),
            "mllm.kind qwen2.5-vl and tokeniser.backbone qwen2.5-vl go together: set both or neither",
        )
        require(
            self.generates or self.loss.vis_lm == self.loss.dec == 0,
            f"mllm.kind {self.mllm.kind} understands only: set loss.vis_lm and loss.dec to 0",
        )

    @property
    def generates(self) -> bool:
        """Whether the model has a visual head and a decoder. Without them it only understands."""
        return self.mllm.kind != "qwen2.5-vl"
