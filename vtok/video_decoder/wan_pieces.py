"""Wan's autoencoder, its pieces shared among ranks (see :mod:`vtok.video_decoder.shared_pieces`).

It encodes the first frame, then four frames at a time. It decodes one latent frame at a time. A piece needs the pieces
before: each causal convolution reads the two frames before its input, which diffusers keeps from call to call. Nothing
else in the autoencoder looks at another frame.

All ranks run the first frame. Then the other pieces go round the ranks. In a round n ranks run n consecutive pieces at
the same time, and each convolution first gets the frames before from the rank of the piece before:

    rank 0:  piece 1     piece n + 1    ...     first frame -> 1 -> 2 -> ... -> n -> n + 1 -> ...
    rank 1:  piece 2     piece n + 2    ...     each arrow at each convolution, all arrows of a round at once

A rank could not compute the frames before a piece again: through all these convolutions, a latent of Wan depends on the
last 113 frames, 29 pieces.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, TypeGuard

import torch
from diffusers.models import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample
from torch import Tensor, nn
from torch.nn.functional import pad

from vtok.sequence import SequenceGroup
from vtok.video_decoder.shared_pieces import Piece, take_over


def share_wan_pieces(vae: AutoencoderKLWan, sequence: SequenceGroup) -> None:
    """Makes ``vae.encode`` and ``vae.decode`` share their pieces from now on.

    All ranks of the group then call them on the same videos or latents. There is no gradient.
    """
    config: Any = vae.config
    space = config["scale_factor_spatial"] // (config["patch_size"] or 1)  # diffusers cuts patches before the encoder

    def encoded(video: Tensor, options: dict[str, Any]) -> Sequence[int]:
        batch, _, _, height, width = video.shape
        return batch, 2 * config["z_dim"], 1, height // space, width // space  # mean and log variance

    def decoded(latents: Tensor, options: dict[str, Any]) -> Sequence[int]:
        batch, _, _, height, width = latents.shape
        frames = 1 if options.get("first_chunk") else config["scale_factor_temporal"]
        return batch, config["out_channels"], frames, height * space, width * space

    take_over(vae, "encode", vae.encoder, encoded, partial(in_rounds, vae.encoder, sequence))
    take_over(vae, "decode", vae.decoder, decoded, partial(in_rounds, vae.decoder, sequence))


def received_bytes(vae: AutoencoderKLWan, ranks: int, num_frames: int, height: int, width: int) -> int:
    """Returns the bytes of frames that each rank of a group receives while they encode a video, not in tiles."""
    config: Any = vae.config
    numbers, area = 0.0, (config["patch_size"] or 1) ** -2  # of a pixel, in the grid of a convolution's input
    for module in vae.encoder.modules():  # in the order in which they run
        if isinstance(module, WanResample):
            area /= 4
        elif looks_back(module):
            numbers += area * module.in_channels * (2 if module.stride[0] == 1 else 1)
    rounds = -(-((num_frames - 1) // config["scale_factor_temporal"]) // ranks)
    return round(numbers * height * width) * rounds * vae.dtype.itemsize


def in_rounds(part: nn.Module, sequence: SequenceGroup, pieces: list[Piece]) -> list[Tensor]:
    """Runs the pieces of one video after another, or of one tile after another, and returns all results."""
    results = []
    # diffusers makes a new list of kept frames for each.
    for _, of_one in groupby(pieces, key=lambda piece: id(piece.options["feat_cache"])):
        results += one_in_rounds(part, sequence, *of_one)
    return results


def one_in_rounds(part: nn.Module, sequence: SequenceGroup, first: Piece, *others: Piece) -> list[Tensor]:
    """Runs the pieces of one video or tile."""
    kept = list(first.options["feat_cache"])

    def result(piece: Piece) -> Tensor:
        return part(piece.input, **piece.options | {"feat_cache": kept, "feat_idx": [0]})

    results = [result(first)]
    if others:
        kept = NothingKept(kept)
        with frames_from_other_ranks(part, sequence):
            # In the last round ranks without a piece run the last one again: all take part in each exchange.
            turns = range(sequence.rank, len(others) + sequence.rank, sequence.size)
            own = [result(others[min(turn, len(others) - 1)]) for turn in turns]
        results += in_turn(sequence, own)[: len(others)]
    return results


def in_turn(sequence: SequenceGroup, own: list[Tensor]) -> list[Tensor]:
    """Gathers the results of all ranks, in the order of their pieces.

    Args:
        sequence: The ranks.
        own: This rank's result of each round, all of one shape.
    """
    rows = torch.stack(own).flatten(1)[None]
    whole = sequence.whole(rows, sequence.size * len(own))[0]
    by_rank = whole.view(sequence.size, len(own), *own[0].shape)
    return [result for of_round in by_rank.unbind(1) for result in of_round]


def looks_back(module: nn.Module) -> TypeGuard[WanCausalConv3d]:
    """Whether a module is a convolution that reads frames before its input."""
    return isinstance(module, WanCausalConv3d) and module.kernel_size[0] > 1


class NothingKept(list):
    """diffusers' list of the frames before, which takes no memory: other ranks send these frames.

    What is stored keeps its shape, which diffusers' blocks look at.
    """

    def __setitem__(self, index: Any, frames: Any) -> None:
        super().__setitem__(index, frames.new_zeros(()).expand_as(frames))


@contextmanager
def frames_from_other_ranks(part: nn.Module, sequence: SequenceGroup) -> Iterator[None]:
    """Makes the causal convolutions read the frames of the piece before, for as long as the context lasts."""
    hooks = [
        module.register_forward_pre_hook(FramesBefore(sequence)) for module in part.modules() if looks_back(module)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class FramesBefore:
    """Gives a causal convolution the frames before its input, as a hook before its forward."""

    def __init__(self, sequence: SequenceGroup):
        self.nearest, self.farther = PassedOn(sequence), PassedOn(sequence)

    def __call__(self, convolution: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Replaces the frames before in the arguments.

        In the first round they come from the first frame of the video. Each rank has run it, so they are right there.

        Args:
            convolution: The module.
            arguments: The input (B, C, t, h, w), and the frames before (B, C, 1 or 2, h, w) if there are any. A
                convolution that halves time reads one, which is the first of the input.
        """
        own, *rest = arguments
        assert isinstance(convolution, WanCausalConv3d)
        if convolution.stride[0] > 1:
            before, own = own.tensor_split([1], dim=2)
            return (torch.cat([self.nearest(own[:, :, -1:], before), own], dim=2),)
        before = rest[0] if rest else own[:, :, :0]
        before = pad(before, (0, 0, 0, 0, 2 - before.shape[2], 0))  # diffusers' padding before the video
        if own.shape[2] > 1:
            return own, self.nearest(own[:, :, -2:], before)
        # A piece of one frame: the other one comes from the piece before the last.
        nearest = self.nearest(own, before[:, :, 1:])
        return own, torch.cat([self.farther(nearest, before[:, :, :1]), nearest], dim=2)


class PassedOn:
    """Passes frames from each piece to the next.

    A rank gets those of the rank before. The first rank gets those of the last rank, a round later.
    """

    def __init__(self, sequence: SequenceGroup):
        self.sequence = sequence
        self.kept: Tensor | None = None

    def __call__(self, own: Tensor, at_start: Tensor) -> Tensor:
        """Passes on a piece's frames, and returns those of the piece before; for the first piece, ``at_start``."""
        received = self.sequence.from_rank_before(own)
        if self.sequence.rank > 0:
            return received
        before = at_start if self.kept is None else self.kept
        self.kept = received
        return before
