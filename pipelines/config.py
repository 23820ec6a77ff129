"""The configuration of a run: typed sections. A YAML file sets them, and the command line overrides the file.

RunConfig
  model       vtok.config.ModelConfig
  init        a trained VTok to start from
  data        which shards, and how a clip becomes a sample
  train       batch, steps, optimiser
  checkpoint  when to save
  validation  when to judge the model on held-out clips, and on which
  track       what shows the figures
  demo        make clips first, show a caption and a video at the end
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from vtok.config import ModelConfig, require
from vtok.parts import EVERYTHING, require_entries

# Categories of scenes of the shapes world.
Scenes = Literal["counting", "direction", "relative_position", "relative_size", "colour", "state", "motion",
                 "bounce_count", "two_movers"]  # fmt: skip
Trackers = Literal["tensorboard", "wandb", "mlflow", "swanlab", "trackio"]
# What ``precompute.py`` stores with the clips, and the encoder that then does not run.
STORED = {"features": "feature_extractor", "latents": "autoencoder", "captions": "text_encoder"}
# Steps between validations by default, if there is a held-out split.
VALIDATE_EVERY = 1000
# Batches that are formed together with ``data.buckets``. The slowest ranks of all of them together take at most one
# sample's time more than the mean.
ARRANGED_BATCHES = 128
# The longest window of a clip, in seconds, and the longest wait, in minutes.
DAY, YEAR = 86_400, 525_600
# Tokens of a caption, if the data are unknown.
CAPTION_TOKENS = 64


def require_seed(seed: int) -> None:
    """Raises ConfigError unless torch takes the seed."""
    require(0 <= seed < 2**63, f"seed must lie between 0 and 2^63 - 1, not {seed}")


@dataclass
class CaptionShares:
    """Which caption of a clip trains, as shares of the samples, relative to each other.

    Args:
        any: One of the clip's captions, drawn.
        short: The one with the fewest words.
        long: The one with the most words.
        empty: The generation row has no text, as with ``data.text_dropout``, which this replaces. The understanding row
            keeps a drawn caption.
    """

    any: float = 0.0
    short: float = 0.0
    long: float = 0.0
    empty: float = 0.0

    def __post_init__(self):
        shares = (self.any, self.short, self.long, self.empty)
        require(
            all(0 <= share < math.inf for share in shares) and 0 <= self.empty < sum(shares),
            "the captions of data.mixture are shares: none is negative, and one beside empty is positive",
        )


@dataclass
class MixtureConfig:
    """
    Args:
        shards: Folder or address of a dataset.
        weight: Share of the run's samples, relative to the weights of the other datasets. Give all datasets of a
            mixture a weight, or none. Without weights each dataset counts by its number of samples.
        name: Its name in messages and figures. By default that of its folder; of ``NAME/train`` it is NAME.
        validation: Folder or address of its held-out split. By default the ``val`` beside its ``train``.
        prompts: Wordings that ask for a caption, one of which is drawn. By default those of ``vtok.rows.prompts``.
        captions: Which of a clip's captions trains. By default any.
        losses: Losses that its samples count in. Its samples are zero in the others.
    """

    shards: str
    weight: float | None = None
    name: str | None = None
    validation: str | None = None
    prompts: list[str] | None = None
    captions: CaptionShares | None = None
    losses: list[Literal["under", "vis_lm", "dec"]] = field(default_factory=lambda: ["under", "vis_lm", "dec"])

    def __post_init__(self):
        require(self.weight is None or self.weight > 0, "the weights of data.mixture must be positive")
        require(self.name is None or bool(self.name.strip()), "a name in data.mixture is empty")
        prompts = self.prompts if self.prompts is not None else ["-"]
        require(
            bool(prompts) and all(prompt.strip() for prompt in prompts),
            f"data.mixture: the prompts of {self.shards} are empty: give some, or leave them out",
        )
        require(self.losses != [], f"data.mixture: {self.shards} counts in no loss: give it one, or leave it out")

    @property
    def title(self) -> str:
        """``name``, or what replaces it."""
        *above, last = self.shards.rstrip("/").split("/")
        return self.name or (above[-1] if last == "train" and above and above[-1] else last)


@dataclass
class InitConfig:
    """
    Args:
        weights: A trained VTok to start from: a run's folder, one of its checkpoints, an export, ``shapes/vtok``, or a
            hub id. Only the weights come along.
        ema: Whether to take the average of a run's weights.
        strict: Whether everything must fit. If not, what does not fit is listed and starts as it would otherwise.
        measure: Whether to measure the features' mean and deviation anew. If not, they come along.
    """

    weights: str | None = None
    ema: bool = False
    strict: bool = True
    measure: bool = False

    def __post_init__(self):
        require(self.weights is not None or not self.ema, "init.ema needs init.weights")


@dataclass
class DataConfig:
    """
    Args:
        shards: Folder that ``vtok-shards build`` wrote, or its address (``s3://``, ``hf://``, ``https://``, ...).
        mixture: Instead of ``shards``: several datasets, each with a weight, captions, prompts and losses of its own.
        root: Instead of ``shards``: a folder of shards, of videos with a captions.csv, or of frame folders. Raw clips
            are packed once, beside the output.
        seconds: Length of the window of a clip that makes a sample.
        window: Position of the window in a longer clip: ``drawn`` anew each time, or ``centred``. Precomputed features
            and latents need ``centred``.
        fit: ``crop`` or ``pad`` clips to the views' shapes.
        decoder: Video decoding library. ``torchcodec`` is ``pip install 'vtok[torchcodec]'``; ``decord`` is legacy.
        workers: Loader processes per rank; 0 decodes in the training process.
        max_bad_share: Largest share of unreadable samples. With more of them the run stops.
        text_dropout: Share of samples whose caption is dropped from the generation row, also for the decoder. It
            teaches what ``generate.py --visual_guidance`` needs.
        turns: Of a clip with several questions, training asks ``one``, drawn anew each time, or ``all``, as one
            conversation with a loss on every answer. A text's conversation is always whole.
        buckets: The shapes of the videos in ``L_dec``: a list of HEIGHTxWIDTHxSECONDS, such as ``[320x576x5, 576x320x5,
            432x416x0]`` (0 seconds for images), or ``auto``, which chooses them by the manifest. Each clip goes to the
            nearest one (:mod:`data_tools.buckets`). Micro-batches have one bucket, micro-steps one cost.
            ``null``: all videos have the size of ``L_dec``.
        bucket_tokens: For ``auto``: latent tokens of a bucket at most. By default those of ``data.seconds`` at the size
            of ``L_dec``, which is the largest size in any case.
        group_by_length: Number of consecutive samples within which batches are formed of samples of similar length: a
            multiple of ``train.global_batch_size``, such as 100 times. 0 keeps the order. With
            ``buckets``, batches are formed of samples of similar cost, and 0 stands for 128 batches.
        allow_growth: Whether a resumed run goes on if shards or datasets were added behind those that it had. From then
            on, position p is that of a run that had all data from its start.
        cache_dir: Cache for shards at an address, on a disk of the machine. All its processes share the cache.
        cache_gb: Largest size of the cache in GB. About 50 shards are in use at once. If they do not fit, shards are
            fetched again and again.
    """

    shards: str | None = None
    mixture: list[MixtureConfig] | None = None
    root: str | None = None
    seconds: float = 5.0
    window: Literal["drawn", "centred"] = "drawn"
    fit: Literal["crop", "pad"] = "crop"
    decoder: Literal["pyav", "torchcodec", "decord"] = "pyav"
    workers: int = 2
    max_bad_share: float = 0.01
    text_dropout: float = 0.0
    turns: Literal["one", "all"] = "one"
    buckets: Literal["auto"] | list[str] | None = None
    bucket_tokens: int | None = None
    group_by_length: int = 0
    allow_growth: bool = False
    cache_dir: str = "~/.cache/vtok/shards"
    cache_gb: float = 64.0

    def __post_init__(self):
        require(0 < self.seconds <= DAY, f"data.seconds must be positive and at most {DAY}")
        require(self.workers >= 0, "data.workers must not be negative")
        require(0 <= self.max_bad_share <= 1, "data.max_bad_share must lie in 0..1")
        require(0 <= self.text_dropout < 1, "data.text_dropout must be at least 0 and below 1")
        require(self.group_by_length >= 0, "data.group_by_length must not be negative")
        require(self.buckets != [], "data.buckets is empty: list some, or leave it out")
        require(self.bucket_tokens is None or self.buckets == "auto", "data.bucket_tokens goes with data.buckets auto")
        require(self.bucket_tokens is None or self.bucket_tokens >= 1, "data.bucket_tokens must be at least 1")
        require(self.cache_gb > 0, "data.cache_gb must be positive")
        weights = [part.weight for part in self.mixture or []]
        require(self.mixture != [], "data.mixture is empty")
        require(
            None not in weights or not any(weights), "give a weight to all datasets of data.mixture or to none of them"
        )
        names = [part.title for part in self.mixture or []]
        twice = next((name for name in names if names.count(name) > 1), "")
        require(not twice, f"data.mixture: two datasets are called {twice}: give each a name")

    @property
    def sources(self) -> list[MixtureConfig]:
        """The datasets of the run, in order; one without settings of its own if there is no mixture."""
        return self.mixture or [MixtureConfig(self.shards or self.root or "")]


@dataclass
class OptimisationConfig:
    """
    Args:
        max_steps: Optimiser steps of the run.
        epochs: Instead of ``max_steps``: passes over the data.
        global_batch_size: Samples per optimiser step, over all ranks.
        micro_batch_size: Samples that a rank processes at once, at most. It accumulates the rest of its share.
        lr: Peak learning rate of AdamW.
        betas: Betas of AdamW.
        eps: Epsilon of AdamW.
        weight_decay: Weight decay of AdamW. Biases, norms and embeddings are not decayed.
        warmup_steps: Steps of the learning rate's linear warm-up.
        schedule: Learning rate after the warm-up: ``constant``, or ``cosine`` down to a tenth.
        max_grad_norm: Largest global gradient norm; larger gradients are clipped to it.
        precision: ``auto`` is bf16 on GPUs and fp32 on a CPU.
        ema_decay: Decay of the running average of the trained weights, 0.999 in the paper. ``null`` keeps no average.
        ema_warmup: Start with a low decay that grows to ``ema_decay``, for short runs.
        deterministic: Use deterministic operations only. Some of them are slower on GPUs.
        max_nonfinite_steps: Number of consecutive steps with a non-finite loss or gradient that stops the run.
        timeout_minutes: How long a rank waits for the others after the first step, before it counts them as dead. A
            loader process that stays at one sample for a quarter of it, while its rank waits for it, is replaced.
    """

    max_steps: int | None = None
    epochs: float | None = None
    global_batch_size: int = 16
    micro_batch_size: int = 1
    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    max_grad_norm: float = 1.0
    max_nonfinite_steps: int = 10
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    ema_decay: float | None = 0.999
    ema_warmup: bool = False
    deterministic: bool = False
    timeout_minutes: float = 10.0

    def __post_init__(self):
        require(
            (self.max_steps is None) != (self.epochs is None), "set exactly one of train.max_steps and train.epochs"
        )
        require(self.max_steps is None or self.max_steps >= 1, "train.max_steps must be at least 1")
        require(self.epochs is None or self.epochs > 0, "train.epochs must be positive")
        require(self.global_batch_size >= 1, "train.global_batch_size must be at least 1")
        require(self.micro_batch_size >= 1, "train.micro_batch_size must be at least 1")
        require(0 < self.lr < math.inf, "train.lr must be positive and finite")
        require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "train.betas must lie in 0..1, below 1"
        )
        require(0 < self.eps < math.inf, "train.eps must be positive and finite")
        require(0 <= self.weight_decay < math.inf, "train.weight_decay must be finite and not negative")
        require(self.ema_decay is None or 0 <= self.ema_decay < 1, "train.ema_decay must lie in 0..1, below 1")
        require(self.max_grad_norm > 0, "train.max_grad_norm must be positive")
        require(self.max_nonfinite_steps >= 1, "train.max_nonfinite_steps must be at least 1")
        require(self.warmup_steps >= 0, "train.warmup_steps must not be negative")
        require(
            0 < self.timeout_minutes <= YEAR,
            f"train.timeout_minutes must be positive and at most {YEAR}, which is a year",
        )

    @property
    def sample_seconds(self) -> float:
        """Seconds that a loader process may take for a sample. It can hang twice before the other ranks give up."""
        return 60 * self.timeout_minutes / 4

    @property
    def rates(self) -> dict[str, float]:
        """Peak learning rates, by the entries of :func:`vtok.parts.entry_of`."""
        return {EVERYTHING: self.lr}


@dataclass
class TrainConfig(OptimisationConfig):
    """
    Args:
        parts: What trains, each with its peak learning rate in place of ``lr``: parts of :mod:`vtok.parts`, such as
            ``g_phi: 1e-4``, and blocks, such as ``language_model.layers.16-31: 1e-5``. All follow the one schedule.
            ``max_grad_norm`` is about their common norm. What is not named is frozen. ``null``: all trains, at ``lr``,
            which is refused beside ``parts``.
        sequence_parallel: Number of consecutive ranks that share each sample and split the rows of the decoder's
            transformer and the pieces of its autoencoder (:mod:`vtok.sequence`). It divides the ranks and the
            transformer's attention heads. Batches and curve are those of the other splits.
        compile: ``blocks`` runs the blocks of language model and diffusion transformer under ``torch.compile``, which
            takes minutes once (:mod:`pipelines.engine.compiling`). ``null``: as they are.
        calibration_batches: Global batches whose frozen features give the visual head's mean and standard deviation.
    """

    parts: dict[str, float] | None = None
    sequence_parallel: int = 1
    compile: Literal["blocks"] | None = None
    calibration_batches: int = 8

    @property
    def rates(self) -> dict[str, float]:
        return self.parts or super().rates

    def __post_init__(self):
        super().__post_init__()
        if self.parts is not None:
            require_entries(self.parts)
        require(self.sequence_parallel >= 1, "train.sequence_parallel must be at least 1")
        require(self.calibration_batches >= 1, "train.calibration_batches must be at least 1")


@dataclass
class CheckpointConfig:
    """
    Args:
        every: Steps between checkpoints. The last step always writes one.
        keep: Number of latest checkpoints that stay on disk; ``best`` for the latest one and the one with the lowest
            validation loss.
        keep_every: Checkpoints at multiples of this number of steps stay too.
    """

    every: int = 1000
    keep: int | Literal["best"] = 2
    keep_every: int | None = None

    def __post_init__(self):
        require(self.every >= 1, "checkpoint.every must be at least 1")
        require(self.keep == "best" or self.keep >= 1, "checkpoint.keep must be at least 1, or best")
        require(self.keep_every is None or self.keep_every >= 1, "checkpoint.keep_every must be at least 1")


@dataclass
class ValidationConfig:
    """
    Args:
        every: Steps between validations; the last step is always validated. 0 turns validation off. By default 1000
            if there is a held-out split.
        shards: Folder or address of the held-out split. By default the ``val`` that ``vtok-shards build --val-share``
            writes beside the ``train`` of ``data.shards``.
        samples: Samples of the split that are used at most, from the first on.
        captions: Number of samples whose captions by the model go to TensorBoard.
        videos: Number of samples for whose own captions the model's videos go to TensorBoard.
        denoising_steps: Denoising steps of these videos.
    """

    every: int | None = None
    shards: str | None = None
    samples: int = 64
    captions: int = 2
    videos: int = 1
    denoising_steps: int = 20

    def __post_init__(self):
        require(self.every is None or self.every >= 0, "validation.every must not be negative")
        require(self.samples >= 1, "validation.samples must be at least 1")
        require(self.denoising_steps >= 1, "validation.denoising_steps must be at least 1")
        require(min(self.captions, self.videos) >= 0, "validation.captions and validation.videos must not be negative")


@dataclass
class DemoConfig:
    """
    Args:
        clips: Training clips of moving shapes to render.
        held_out: Further clips that are never trained on.
        captions: Categories of the held-out clips whose captions are shown at the end.
        prompts: Categories of the scenes whose captions are the prompts of the videos at the end.
        seconds: Length of these videos.
        steps: Denoising steps of these videos.
        best_of: Videos made of each prompt, of which the model keeps one (:mod:`vtok.best_of`).
    """

    clips: int = 64
    held_out: int = 9
    captions: list[Scenes] = field(default_factory=lambda: ["motion", "counting", "colour", "direction"])
    prompts: list[Scenes] = field(default_factory=lambda: ["direction", "relative_position", "counting", "state"])
    seconds: float = 3.0
    steps: int = 20
    best_of: int = 8

    def __post_init__(self):
        require(self.clips >= 1, "demo.clips must be at least 1")
        require(self.held_out >= 9, "demo.held_out must be at least 9: clips of all nine categories")
        require(self.captions != [] and self.prompts != [], "demo.captions or demo.prompts is empty")
        require(self.seconds > 0 and self.steps >= 1, "demo.seconds and demo.steps must be positive")
        require(self.best_of >= 1, f"demo.best_of must be at least 1, not {self.best_of}")


@dataclass
class RunConfig:
    """
    Args:
        seed: Seed of every random draw.
        track: What shows figures, captions and videos. All but TensorBoard are packages to install.
        tiny_models: Write tiny models with random weights into the output and train those. Overrides ``weights``.
        demo: Render the data and show the result; ``null`` for a run on given data.
        stages: The run goes through these in turn (see :mod:`pipelines.cli.stages`). Each has a ``name`` and the
            settings in which it differs from the rest of the file. ``null``: one stage.
    """

    train: TrainConfig
    seed: int = 0
    track: list[Trackers] = field(default_factory=lambda: ["tensorboard"])
    tiny_models: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    data: DataConfig = field(default_factory=DataConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    demo: DemoConfig | None = None
    stages: list[dict[str, Any]] | None = None

    def __post_init__(self):
        names = [str(stage.get("name", "")) for stage in self.stages or []]
        require(self.stages != [], "stages is empty: list some, or leave it out")
        require(
            all(name.isidentifier() for name in names) and len({*names}) == len(names),
            "each of the stages needs a name of its own, of letters, digits and _",
        )
        require(
            self.model.generates or self.demo is None,
            f"the demo ends with a video, but mllm.kind {self.model.mllm.kind} understands only: leave demo out",
        )
        require(
            self.model.generates or self.train.sequence_parallel == 1,
            f"train.sequence_parallel splits the decoder's transformer, but mllm.kind {self.model.mllm.kind} has no "
            "decoder: leave it out",
        )
        require_seed(self.seed)
        every = VALIDATE_EVERY if self.validation.every is None else self.validation.every
        require(
            self.checkpoint.keep != "best" or (every and every % self.checkpoint.every == 0),
            f"checkpoint.keep best needs a checkpoint at every validation: validation.every {every} is not a multiple "
            f"of checkpoint.every {self.checkpoint.every}",
        )
        if self.data.buckets:
            self._check_buckets()
        window, batch = self.data.group_by_length, self.train.global_batch_size
        require(
            window % batch == 0,
            f"data.group_by_length {window} is not a multiple of train.global_batch_size {batch}: try "
            f"{-(-window // batch) * batch}",
        )

    def _check_buckets(self) -> None:
        require(self.model.generates, f"data.buckets needs a decoder, but mllm.kind {self.model.mllm.kind} has none")
        require(
            self.model.decoder.loss_latent_frames is None,
            "data.buckets gives the lengths of L_dec's videos: leave out model.decoder.loss_latent_frames",
        )
        micro, batch = self.train.micro_batch_size, self.train.global_batch_size
        require(
            batch % micro == 0,
            f"with data.buckets, train.micro_batch_size {micro} must divide train.global_batch_size {batch}",
        )

    @property
    def arranged_samples(self) -> int:
        """Samples among which batches are formed; 0 keeps the order."""
        batches = ARRANGED_BATCHES if self.data.buckets else 0
        return self.data.group_by_length or batches * self.train.global_batch_size
