"""An autoencoder's work on a video, shared among ranks (see :mod:`vtok.sequence`).

diffusers' autoencoders take a long video in pieces, and large frames in tiles. Each piece is one call of their encoder
or decoder. Here each rank makes every n-th of these calls and sends the result to the others. So latents and videos are
those of one rank, bit by bit.

HunyuanVideo's pieces overlap, and need nothing of each other. Wan's do: see :mod:`vtok.video_decoder.wan_pieces`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch.distributed as dist
from diffusers.models import AutoencoderKLHunyuanVideo
from torch import Tensor, nn

from vtok.sequence import SequenceGroup


class Piece(NamedTuple):
    """A call of the encoder or the decoder within an autoencoder.

    Attributes:
        input: (B, C, frames, h, w).
        options: diffusers' keywords of the call.
        shape: Shape of the result.
    """

    input: Tensor
    options: dict[str, Any]
    shape: Sequence[int]


# Returns the shape of the result of a call, from its input and its keywords.
ShapeOf = Callable[[Tensor, dict[str, Any]], Sequence[int]]

# Returns the results of all pieces, on all ranks.
Run = Callable[[list[Piece]], list[Tensor]]


def share_pieces(vae: AutoencoderKLHunyuanVideo, sequence: SequenceGroup) -> None:
    """Makes ``vae.encode`` and ``vae.decode`` share their pieces from now on.

    All ranks of the group then call them on the same videos or latents. There is no gradient.
    """
    time, space = vae.temporal_compression_ratio, vae.spatial_compression_ratio
    moments, colours = 2 * vae.config["latent_channels"], vae.config["out_channels"]  # mean and log variance

    def encoded(video: Tensor, options: dict[str, Any]) -> Sequence[int]:
        batch, _, frames, height, width = video.shape
        return batch, moments, (frames - 1) // time + 1, height // space, width // space

    def decoded(latents: Tensor, options: dict[str, Any]) -> Sequence[int]:
        batch, _, frames, height, width = latents.shape
        return batch, colours, (frames - 1) * time + 1, height * space, width * space

    take_over(vae, "encode", vae.encoder, encoded, partial(every_nth, vae.encoder, sequence))
    take_over(vae, "decode", vae.decoder, decoded, partial(every_nth, vae.decoder, sequence))


def every_nth(part: nn.Module, sequence: SequenceGroup, pieces: list[Piece]) -> list[Tensor]:
    """Runs independent pieces, each on one rank, and returns all results."""
    results = []
    for number, piece in enumerate(pieces):
        own = number % sequence.size == sequence.rank
        results.append(part(piece.input).contiguous() if own else piece.input.new_empty(piece.shape))
    for number, result in enumerate(results):  # not before: a rank would wait while the others compute
        if not result.is_meta:
            assert sequence.group is not None
            dist.broadcast(result, dist.get_global_rank(sequence.group, number % sequence.size), sequence.group)
    return results


def take_over(vae: nn.Module, method: str, part: nn.Module, shape_of: ShapeOf, run: Run) -> None:
    """Makes a method of an autoencoder get the results of its encoder or decoder from ``run``.

    Args:
        vae: The autoencoder.
        method: ``encode`` or ``decode``.
        part: The encoder or decoder that the method calls.
        shape_of, run: As their types say.
    """
    setattr(vae, method, partial(in_two_passes, getattr(vae, method), part, shape_of, run))


def in_two_passes(
    alone: Callable[..., Any], part: nn.Module, shape_of: ShapeOf, run: Run, *arguments: Any, **options: Any
) -> Any:
    """Calls diffusers' own method twice around a part that computes nothing.

    The first call shows the pieces. The second one gets their results.
    """
    pieces: list[Piece] = []

    def note(piece: Tensor, **keywords: Any) -> Tensor:
        pieces.append(Piece(piece, keywords, shape_of(piece, keywords)))
        return piece.new_zeros(pieces[-1].shape)

    with forward_replaced(part, note):
        alone(*arguments, **options)
    results = iter(run(pieces))
    with forward_replaced(part, lambda piece, **keywords: next(results)):
        return alone(*arguments, **options)


@contextmanager
def forward_replaced(module: nn.Module, function: Callable[..., Tensor]) -> Iterator[None]:
    """Makes a module a function, for as long as the context lasts."""
    module.forward = function
    try:
        yield
    finally:
        del module.forward
