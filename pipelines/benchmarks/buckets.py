"""What buckets save, on the facts of a simulated manifest.

No public manifest has sizes, lengths and kinds of 1 M mixed samples, so these are drawn. The numbers are ours:

    80 % videos: sizes as in ``SIZES``; durations log-normal around 6 s (sigma 0.7), from 0.5 to 60 s
    12 % images: aspect ratios as in ``PICTURES``; the longer side log-uniform from 512 to 2048 pixels
     5 % texts:  conversations, log-normal around 1200 bytes (sigma 1)
     3 % videos with a question and no caption
    captions:    words log-normal around 40 (sigma 0.7)

Costs are FLOPs of the paper's model, measured on the meta device as a plan does.
"""

from typing import NamedTuple

import numpy as np

from data_tools.buckets import Bucket, BucketedOrder, Bucketing, choose_buckets
from data_tools.buckets.nearest import distances, has_video, latent_frames_of
from data_tools.order import RunOrder
from data_tools.shards import ROW
from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.metering.buckets import bucket_steps, predicted_costs
from pipelines.metering.flops import part_flops
from pipelines.metering.step import meta_copy
from pipelines.views import shapes_of

SIZES = {
    (1280, 720): 0.30, (1920, 1080): 0.25, (1080, 1920): 0.10, (854, 480): 0.08, (640, 360): 0.07, (720, 1280): 0.06,
    (640, 480): 0.04, (1080, 1080): 0.04, (1920, 800): 0.025, (960, 720): 0.02, (2560, 1080): 0.015,
}  # fmt: skip
PICTURES = {4 / 3: 0.3, 3 / 2: 0.2, 16 / 9: 0.1, 1.0: 0.2, 3 / 4: 0.1, 2 / 3: 0.07, 9 / 16: 0.03}
RANKS = 16
SHARD = 1000  # samples of a shard
SIDE = 16  # pixels of a latent token of the paper's transformer
TRANSFORMER = "diffusion_transformer"


class Manifest:
    """A reader of facts alone.

    Args:
        rows: ``ROW`` (N,).
    """

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def facts(self, rows: np.ndarray) -> np.ndarray:
        """The manifest's entries for ``rows``."""
        return self.rows[rows]


def simulated_manifest(samples: int, seed: int = 0) -> np.ndarray:
    """Draws the facts of ``samples`` samples, ``ROW`` (samples,), as the module's docstring says."""
    draw = np.random.default_rng(seed)
    rows = np.zeros(samples, dtype=ROW)
    kind = draw.choice(4, samples, p=[0.8, 0.12, 0.05, 0.03])  # video, image, text, video without a caption
    size = np.array(list(SIZES))[draw.choice(len(SIZES), samples, p=list(SIZES.values()))]
    aspect = np.array(list(PICTURES))[draw.choice(len(PICTURES), samples, p=list(PICTURES.values()))]
    longer = np.exp(draw.uniform(np.log(512), np.log(2048), samples))
    picture = np.stack([longer * np.minimum(1, aspect), longer * np.minimum(1, 1 / aspect)], axis=1)
    rows["width"], rows["height"] = np.where(kind[:, None] == 1, picture, size).T.astype(int)
    rows["duration"] = np.exp(draw.normal(np.log(6), 0.7, samples)).clip(0.5, 60)
    rows["frames"] = rows["duration"] * 24
    rows["words"] = np.exp(draw.normal(np.log(40), 0.7, samples)).clip(3, 400)
    rows["length"] = 10**6
    image, text = kind == 1, kind == 2
    rows["frames"][image], rows["duration"][image] = 1, 0
    for name in ("width", "height", "frames", "duration"):
        rows[name][text] = 0
    rows["length"][text] = 2048 + np.exp(draw.normal(np.log(1200), 1, text.sum())).clip(80, 60_000)
    rows["words"][kind >= 2] = 0
    return rows


class Measured(NamedTuple):
    """What buckets do to a dataset's clips.

    Attributes:
        padding: Share of latent tokens that are padding.
        wasted: Share of the transformer's FLOPs that go into it.
        cropped: Mean share of a picture that is cropped away.
        cut: Share of the windows' latent frames that are cut off.
    """

    padding: float
    wasted: float
    cropped: float
    cut: float


def measured(rows: np.ndarray, buckets: list[Bucket], transformer: np.ndarray, seconds: float, fps: float) -> Measured:
    """Sorts the clips of a manifest into buckets.

    Args:
        rows: The manifest, ``ROW`` (N,).
        buckets: The buckets.
        transformer: Coefficients of the transformer's FLOPs by its tokens, the highest power first.
        seconds: Length of a window.
        fps: Of the videos.
    """
    clips = rows[has_video(rows)]
    nearest = distances(clips, buckets, seconds, fps, "crop").argmin(axis=1)
    own = latent_frames_of(clips["duration"], seconds, fps)
    kept = np.array([bucket.latent_frames for bucket in buckets])[nearest]
    of_frame = np.array([bucket.tokens(SIDE) / bucket.latent_frames for bucket in buckets])[nearest]
    computed, real = kept * of_frame, np.minimum(own, kept) * of_frame
    aspects = np.array([bucket.width / bucket.height for bucket in buckets])
    ratio = clips["width"] / clips["height"] / aspects[nearest]
    return Measured(
        padding=float(1 - real.sum() / computed.sum()),
        wasted=float(1 - np.polyval(transformer, real).sum() / np.polyval(transformer, computed).sum()),
        cropped=float((1 - np.minimum(ratio, 1 / ratio)).mean()),
        cut=float(np.maximum(own - kept, 0).sum() / own.sum()),
    )


def imbalance(costs: np.ndarray, ranks: int = RANKS) -> float:
    """Returns the time of the slowest ranks of all micro-steps over that of the mean rank.

    Args:
        costs: Predicted cost of each position's sample, in order. A micro-step takes one sample a rank.
        ranks: Their number.
    """
    steps = costs[: len(costs) // ranks * ranks].reshape(-1, ranks)
    return float(steps.max(axis=1).sum() / steps.mean(axis=1).sum())


class Compared(NamedTuple):
    """One shape for all clips, against buckets.

    Attributes:
        one: All clips in the shape of L_dec, padded.
        buckets: Those that ``auto`` chooses.
        number: Their number.
        plain: Imbalance in the plain order, where each clip of the one shape is computed at its own length.
        arranged: Imbalance in the order with buckets.
        cost: FLOPs of a mean sample in its bucket, over those of a clip in the one shape.
    """

    one: Measured
    buckets: Measured
    number: int
    plain: float
    arranged: float
    cost: float


def compared(samples: int, positions: int, preset: str = "llava_next_8b_hunyuan") -> Compared:
    """Compares one shape with buckets on a simulated manifest.

    Args:
        samples: Of the manifest.
        positions: Of the run whose imbalance is measured.
        preset: Its model, window and size of L_dec.
    """
    config = parse_run_arguments(["--config", str(PRESETS / f"{preset}.yaml"), "--data.buckets", "auto"]).config
    data, fps, framework = config.data, config.model.decoder.fps, meta_copy(config.model, config.train.precision)
    image_size, rows = framework.tokeniser.feature_extractor.image_size, simulated_manifest(samples)
    height, width = config.model.decoder.loss_size
    one = [Bucket(height, width, frames) for frames in (1, 61, round(data.seconds * fps) + 1)]
    buckets = choose_buckets(rows, one[-1], data.seconds, fps, "crop")

    shapes = shapes_of(config, image_size, one)
    transformer = [
        part_flops(step, 1, 1)[TRANSFORMER].hardware for step in bucket_steps(config, framework, shapes[:-1])
    ]
    by_tokens = np.polyfit([bucket.tokens(SIDE) for bucket in one], transformer, 2)

    # With three lengths in one size, a sample's FLOPs are a quadratic in its latent frames.
    own_costs, token = predicted_costs(config, framework, shapes)
    by_frames = np.polyfit([bucket.latent_frames for bucket in one], own_costs[:-1], 2)
    costs, token = predicted_costs(config, framework, shapes_of(config, image_size, buckets))
    bucketing = Bucketing(Manifest(rows), buckets, data.seconds, fps, "crop", np.array(costs), token)
    order = RunOrder(config.seed, [SHARD] * (samples // SHARD))
    batch, unit = config.train.global_batch_size, config.train.micro_batch_size
    arranged = BucketedOrder(order, bucketing, config.arranged_samples, batch, unit, config.seed)

    plain_rows = np.array([order.row(position) for position in range(positions)])
    found = rows[plain_rows]
    own = latent_frames_of(found["duration"], data.seconds, fps)
    plain = np.where(has_video(found), np.polyval(by_frames, own), own_costs[-1]) + bucketing.text_costs(plain_rows)
    dealt = arranged.costs(range(positions))
    return Compared(
        one=measured(rows, one[-1:], by_tokens, data.seconds, fps),
        buckets=measured(rows, buckets, by_tokens, data.seconds, fps),
        number=len(buckets),
        plain=imbalance(plain),
        arranged=imbalance(dealt),
        cost=float(dealt.mean() / (own_costs[-2] + bucketing.text_costs(plain_rows).mean())),
    )
