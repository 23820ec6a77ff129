"""HunyuanVideo's autoencoder, whose work on a video is shared among ranks (see :mod:`vtok.sequence`).

diffusers' autoencoder cuts a long video into overlapping pieces of 17 frames, and large frames into tiles. It encodes
each piece by itself and blends the results. Here each rank encodes every n-th piece and sends it to the others. So the
latents are those of one rank, bit by bit.

Wan's autoencoder is not shared: it takes a video four frames at a time, and each piece needs those before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch.distributed as dist
from diffusers.models import AutoencoderKLHunyuanVideo
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor

from vtok.sequence import SequenceGroup

Encode = Callable[[Tensor], AutoencoderKLOutput]


def share_pieces(vae: AutoencoderKLHunyuanVideo, sequence: SequenceGroup) -> None:
    """Makes ``vae.encode`` share its pieces from now on. All ranks of the group then call it on the same videos."""
    vae.encode = partial(encode, vae, vae.encode, sequence)  # type: ignore[method-assign]


def encode(
    vae: AutoencoderKLHunyuanVideo, encode_alone: Encode, sequence: SequenceGroup, videos: Tensor
) -> AutoencoderKLOutput:
    """Encodes videos (B, 3, F, H, W). Each rank runs the encoder on its own pieces only. There is no gradient.

    Args:
        vae: The autoencoder.
        encode_alone: Its own ``encode``. It runs twice around an encoder that computes nothing: the first time to see
            the pieces, the second time with their results.
        sequence: The ranks.
        videos: The videos.
    """
    pieces: list[Tensor] = []

    def note(piece: Tensor) -> Tensor:
        pieces.append(piece)
        return empty_result(vae, piece).zero_()

    with encoder_replaced(vae, note):
        encode_alone(videos)
    results = []
    for number, piece in enumerate(pieces):
        owner = number % sequence.size
        result = vae.encoder(piece).contiguous() if owner == sequence.rank else empty_result(vae, piece)
        results.append(result)
    for number, result in enumerate(results):  # not before: a rank would wait while the others compute
        if not result.is_meta:
            assert sequence.group is not None
            dist.broadcast(result, dist.get_global_rank(sequence.group, number % sequence.size), sequence.group)
    given = iter(results)
    with encoder_replaced(vae, lambda piece: next(given)):
        return encode_alone(videos)


def empty_result(vae: AutoencoderKLHunyuanVideo, piece: Tensor) -> Tensor:
    """Returns memory for what the encoder makes of a piece (B, 3, 4k + 1, h, w)."""
    batch, _, frames, height, width = piece.shape
    time, space = vae.temporal_compression_ratio, vae.spatial_compression_ratio
    channels = 2 * vae.config["latent_channels"]  # mean and log variance
    return piece.new_empty(batch, channels, (frames - 1) // time + 1, height // space, width // space)


@contextmanager
def encoder_replaced(vae: AutoencoderKLHunyuanVideo, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Makes the encoder within an autoencoder a function, for as long as the context lasts."""
    vae.encoder.forward = function  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del vae.encoder.forward
