"""VidTok: videos to latents or codes, and back (Tang et al., 2024, arXiv 2412.13061).

>>> model = load_model("vidtok_kl_causal_488_4chn", "vidtok_kl_causal_488_4chn.ckpt").eval()
>>> z, reg_log = model.encode(x, return_reg_log=True)      # x: (1, 3, 17, 256, 256) in [-1, 1]; z: (1, 4, 5, 32, 32)
>>> frames = model.decode(z)
>>> _, x_recon, _ = model(x)

The public methods take and return videos and latents as (B, C, T, H, W), like the published models. Inside, tensors are
channels last.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, overload

import torch
from torch import Tensor, nn

from vtok.config import ConfigError, require
from vtok.vidtok import chunks
from vtok.vidtok.blocks import FrameAttention, ResidualBlock
from vtok.vidtok.chunks import DecoderState, EncoderState
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.decoder import Decoder
from vtok.vidtok.encoder import Encoder
from vtok.vidtok.fsq import FSQ
from vtok.vidtok.kl import KL
from vtok.vidtok.stream import Stream
from vtok.vidtok.tiling import blended_tiles
from vtok.vidtok.upstream_compat import decode_overlapping

# A regulariser's log: ``kl_loss`` (KL), or ``indices`` and ``aux_loss`` (FSQ).
RegLog = dict[str, Tensor]


class VidTok(nn.Module):
    """The autoencoder.

    Attributes:
        encoder: Maps frames to moments, channels last.
        regularization: Maps moments to latents.
        decoder: Maps latents to frames, channels last.
        is_causal: Whether no latent frame depends on a later frame.
        use_tiling: Whether a causal model works in chunks of time. The result is the same, and memory does not grow
            with T. A non-causal model ignores it.
        t_chunk_enc: Frames per chunk of the encoder.
        t_chunk_dec: Latent frames per chunk of the decoder.
        upstream_compat: Whether to decode chunks as the published v1.1 models do, which differs a little from decoding
            at once. Calls with a state ignore it.
        use_overlap: With ``upstream_compat`` only: whether each chunk sees one latent frame of the next.
        tile: Side of square tiles in pixels, or ``None`` for whole frames. Tiles are encoded and decoded one by one and
            blended where they overlap, which is approximate (see :mod:`vtok.vidtok.tiling`).
        tile_overlap: Overlap of neighbouring tiles in pixels.
    """

    encoder: Encoder
    decoder: Decoder
    regularization: KL | FSQ

    def __init__(self, config: VidTokConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.regularization = KL() if config.regulariser == "kl" else FSQ(config.levels)
        self.is_causal = config.is_causal
        self.use_tiling = False
        self.t_chunk_enc, self.t_chunk_dec = 16, 16 // config.time_factor
        self.upstream_compat, self.use_overlap = False, True
        self.tile: int | None = None
        self.tile_overlap = 64

    def checkpoint_blocks(self) -> None:
        """Lets each block compute its activations again in backward, which takes less memory and a third more time."""
        self.encoder.run.checkpointing = self.decoder.run.checkpointing = True

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compiles the blocks with ``torch.compile`` at their first use. Parameters keep their names."""
        for half in (self.encoder, self.decoder):
            for block in half.modules():
                if isinstance(block, ResidualBlock | FrameAttention):
                    block.compile(backend=backend)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, RegLog]:
        """Encodes and decodes a video of any length.

        Args:
            x: The video, (B, 3, T, H, W), in [-1, 1].

        Returns:
            The latents (of the video after :meth:`missing_frames` were added), the reconstruction (B, 3, T, H, W), and
            the regulariser's log.
        """
        before, behind = self.missing_frames(x.shape[2])
        z, reg_log = self.encode(lengthened(x, before, behind), return_reg_log=True)
        decoded = self.decode(z)
        end = decoded.shape[2] - behind
        return z, decoded[:, :, end - x.shape[2] : end], reg_log

    def missing_frames(self, frames: int) -> tuple[int, int]:
        """Returns how often to repeat the first and the last frame of a video so that every frame is reconstructed.

        v1.0 reconstructs f k + 1 frames. A non-causal model takes f k frames. v1.1 takes any number.
        """
        factor = self.config.time_factor
        match self.config.time:
            case "causal":
                return (1 - frames) % factor, 0
            case "noncausal":
                return 0, -frames % factor
            case _:
                return 0, 0

    def reconstruct(self, chunks: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
        """Yields the reconstruction of a video while its chunks arrive, with the same total number of frames.

        A causal model reconstructs the whole video exactly. A non-causal model reconstructs each chunk by itself.

        Args:
            chunks: The parts of the video, (B, 3, n, H, W) each.
            frames: Length of the whole video.
        """
        if not self.is_causal:
            yield from (self(chunk)[1] for chunk in chunks)
            return
        before, _ = self.missing_frames(frames)
        encoding = self.start_encoding(before + frames)
        decoding = self.start_decoding(latents := self.config.latent_frames(before + frames))
        surplus = latents * self.config.time_factor - frames
        surplus -= self.config.time_factor - 1 if self.config.time == "causal" else 0
        for chunk in chunks:
            z = self.encode(lengthened(chunk, before, 0), state=encoding)
            decoded, before = self.decode(z, state=decoding), 0
            yield decoded[:, :, surplus:]
            surplus = max(surplus - decoded.shape[2], 0)

    # ---------------------------------------------------------------- encoding

    @overload
    def encode(
        self, x: Tensor, return_reg_log: Literal[False] = False, state: EncoderState | None = None
    ) -> Tensor: ...

    @overload
    def encode(
        self, x: Tensor, return_reg_log: Literal[True], state: EncoderState | None = None
    ) -> tuple[Tensor, RegLog]: ...

    def encode(
        self, x: Tensor, return_reg_log: bool = False, state: EncoderState | None = None
    ) -> Tensor | tuple[Tensor, RegLog]:
        """Encodes a video.

        Args:
            x: The video, (B, 3, T, H, W), in [-1, 1].
            return_reg_log: Whether to return the regulariser's log too.
            state: Given if ``x`` is the next chunk of a longer video. Then only the latents that ``x`` completes are
                returned, and the state advances.

        Returns:
            The latents (B, z, t, h, w). With ``return_reg_log``, also ``kl_loss``, or ``indices`` (B, t, h, w) and
            ``aux_loss``.

        Raises:
            ConfigError: Height or width is not a multiple of the spatial compression; or the model is non-causal and T
                is not a multiple of the temporal compression; or ``x`` is longer than the rest of the video.
        """
        z, reg_log = self.regularization(self.moments(x, state))
        z = z.movedim(-1, 1)
        return (z, reg_log) if return_reg_log else z

    def start_encoding(self, frames: int) -> EncoderState:
        """Returns the state to encode a video of ``frames`` frames chunk by chunk.

        Raises:
            ConfigError: The model is not causal.
        """
        self.require_causal()
        return chunks.start_encoding(self.config, frames)

    def moments(self, x: Tensor, state: EncoderState | None = None) -> Tensor:
        """Returns the regulariser's input, (B, t, h, w, channels). Arguments and errors are those of :meth:`encode`."""
        frames, factor = x.shape[2], self.config.space_factor
        require(
            all(side % factor == 0 for side in x.shape[3:]),
            f"height and width must be multiples of {factor}, not {x.shape[3]}x{x.shape[4]}",
        )
        require(
            self.is_causal or frames % self.config.time_factor == 0,
            f"a non-causal VidTok takes a multiple of {self.config.time_factor} frames, not {frames}",
        )
        x = x.movedim(1, -1)
        if self.tile is None:
            return self.whole_moments(x, state)
        self.require_whole_video(state)
        tile, overlap = (pixels // factor * factor for pixels in (self.tile, self.tile_overlap))
        return blended_tiles(x, tile, overlap, 1 / factor, self.whole_moments)

    def whole_moments(self, x: Tensor, state: EncoderState | None = None) -> Tensor:
        """Encodes whole frames (B, T, H, W, 3) to moments (B, t, h, w, channels)."""
        if not self.is_causal:
            return self.encoder(x, Stream())
        state = state or self.start_encoding(x.shape[1])
        parts = x.split(self.t_chunk_enc, dim=1) if self.use_tiling else [x]
        return torch.cat([chunks.encode_chunk(self.encoder, part, state) for part in parts], dim=1)

    # ---------------------------------------------------------------- decoding

    def decode(self, z: Tensor, decode_from_indices: bool = False, state: DecoderState | None = None) -> Tensor:
        """Decodes latents.

        Args:
            z: Latents (B, z, t, h, w), or FSQ's ``indices`` (B, t, h, w).
            decode_from_indices: Whether ``z`` are indices.
            state: Given if ``z`` is the next chunk of a longer video. Then only the frames that are final now are
                returned, and the state advances.

        Returns:
            Frames (B, 3, T, H, W). v1.0 returns T = f (t - 1) + 1 frames, the other models T = f t. The first f frames
            of v1.1 are identical.

        Raises:
            ConfigError: Indices are given to a ``kl`` model, or ``z`` is longer than the rest of the video.
        """
        if decode_from_indices:
            if not isinstance(self.regularization, FSQ):
                raise ConfigError("only a VidTok with the regulariser fsq decodes from indices")
            z = self.regularization.indices_to_codes(z).to(self.decoder.last_layer.dtype)
        else:
            z = z.movedim(1, -1)
        return self.frames(z, state).movedim(-1, 1)

    def start_decoding(self, latent_frames: int) -> DecoderState:
        """Returns the state to decode a video of ``latent_frames`` latent frames chunk by chunk.

        Raises:
            ConfigError: The model is not causal.
        """
        self.require_causal()
        return DecoderState(latent_frames, Stream())

    def frames(self, z: Tensor, state: DecoderState | None = None) -> Tensor:
        """Decodes latents (B, t, h, w, channels) to frames (B, T, H, W, 3), in tiles if ``tile`` is set."""
        if self.tile is None:
            return self.whole_frames(z, state)
        self.require_whole_video(state)
        tile, overlap = (pixels // self.config.space_factor for pixels in (self.tile, self.tile_overlap))
        return blended_tiles(z, tile, overlap, self.config.space_factor, self.whole_frames)

    def whole_frames(self, z: Tensor, state: DecoderState | None = None) -> Tensor:
        """Does what :meth:`frames` does, without tiles."""
        if not self.is_causal:
            return self.decoder(z, Stream())
        compatible = self.upstream_compat and self.use_tiling and self.config.time == "causal_v1_1"
        if compatible and state is None:
            return decode_overlapping(self.decoder, z, self.t_chunk_dec, self.use_overlap)
        state = state or self.start_decoding(z.shape[1])
        parts = z.split(self.t_chunk_dec, dim=1) if self.use_tiling else [z]
        return torch.cat([chunks.decode_chunk(self.decoder, part, state) for part in parts], dim=1)

    def require_whole_video(self, state: EncoderState | DecoderState | None) -> None:
        """Raises ConfigError if a state is given: tiles and chunks with a state exclude each other."""
        require(state is None, "tiles work on whole videos only: set tile = None, or give no state")

    def require_causal(self) -> None:
        """Raises ConfigError if the model is not causal."""
        require(
            self.is_causal,
            "a non-causal VidTok sees a clip as a whole: cut the video into clips of a multiple of "
            f"{self.config.time_factor} frames",
        )


def lengthened(x: Tensor, before: int, behind: int) -> Tensor:
    """Returns (B, C, T, H, W) with ``before`` copies of its first frame and ``behind`` copies of its last."""
    parts = [x[:, :, :1].expand(-1, -1, before, -1, -1), x, x[:, :, -1:].expand(-1, -1, behind, -1, -1)]
    return torch.cat(parts, dim=2) if before or behind else x
