"""VidTok: videos to latents or codes, and back (Tang et al., 2024, arXiv 2412.13061).

>>> model = load_model("vidtok_kl_causal_488_4chn", "vidtok_kl_causal_488_4chn.ckpt").eval()
>>> z, reg_log = model.encode(x, return_reg_log=True)      # x: (1, 3, 17, 256, 256) in [-1, 1]; z: (1, 4, 5, 32, 32)
>>> frames = model.decode(z)
>>> _, x_recon, _ = model(x)

Videos and latents are (B, C, T, H, W) for the caller, as with the published models; inside they lie channels last.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from vtok.config import require
from vtok.vidtok import chunks
from vtok.vidtok.chunks import DecoderState, EncoderState
from vtok.vidtok.config import VidTokConfig
from vtok.vidtok.decoder import Decoder
from vtok.vidtok.encoder import Encoder
from vtok.vidtok.fsq import FSQ
from vtok.vidtok.kl import KL
from vtok.vidtok.stream import Stream
from vtok.vidtok.tiling import blended_tiles
from vtok.vidtok.upstream_compat import decode_overlapping

RegLog = dict[str, Tensor]


class VidTok(nn.Module):
    """The autoencoder.

    Attributes:
        encoder, regularization, decoder: its parts, which work on (B, T, H, W, C).
        is_causal: whether no frame's latent depends on a later frame.
        use_tiling: a causal model encodes and decodes in chunks of time. Results stay the same; memory does not grow
            with T. Another model sees a clip as a whole all the same.
        t_chunk_enc, t_chunk_dec: frames, and latent frames, in a chunk.
        upstream_compat: decode chunks as the published v1.1 models do, which is not quite the same as at once; with a
            state chunks are always as at once.
        use_overlap: only with ``upstream_compat``: each chunk sees one latent frame of the next.
        tile, tile_overlap: encode and decode frames in square tiles of so many pixels a side, blended where they
            overlap, which is approximate (see :mod:`vtok.vidtok.tiling`); ``None`` for whole frames.
    """

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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, RegLog]:
        """Latents, the reconstruction of ``x`` (B, 3, T, H, W), and the regulariser's log.

        The reconstruction has T frames, whatever T is: see :meth:`missing_frames`.
        """
        before, behind = self.missing_frames(x.shape[2])
        z, reg_log = self.encode(lengthened(x, before, behind), return_reg_log=True)
        decoded = self.decode(z)
        end = decoded.shape[2] - behind
        return z, decoded[:, :, end - x.shape[2] : end], reg_log

    def missing_frames(self, frames: int) -> tuple[int, int]:
        """Copies of its first and of its last frame that a video needs to come back whole.

        v1.0 gives back f k + 1 frames, a non-causal model is given f k; v1.1 needs none.
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
        """A video's reconstruction as it comes, of the same number of frames.

        A causal model's is that of the whole video; another's is of each chunk by itself.

        Args:
            chunks: (B, 3, n, H, W) each.
            frames: of all of them together.
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

    def encode(
        self, x: Tensor, return_reg_log: bool = False, state: EncoderState | None = None
    ) -> Tensor | tuple[Tensor, RegLog]:
        """Latents (B, z, t, h, w) of ``x`` (B, 3, T, H, W) in [-1, 1].

        Args:
            state: of a longer video, of which ``x`` is the next chunk: gives the latents that it completes.

        Returns:
            with ``return_reg_log`` also ``kl_loss``, or ``indices`` (B, t, h, w) and ``aux_loss``.

        Raises:
            ConfigError: height or width is no multiple of the compression; of a non-causal model, the length.
        """
        z, reg_log = self.regularization(self.moments(x, state))
        z = z.movedim(-1, 1)
        return (z, reg_log) if return_reg_log else z

    def start_encoding(self, frames: int) -> EncoderState:
        """To encode a video of so many frames chunk by chunk."""
        self.require_causal()
        return chunks.start_encoding(self.config, frames)

    def moments(self, x: Tensor, state: EncoderState | None = None) -> Tensor:
        """What the regulariser is given: (B, t, h, w, channels); arguments and errors as :meth:`encode`."""
        frames, factor = x.shape[2], self.config.space_factor
        require(
            all(side % factor == 0 for side in x.shape[3:]),
            f"height and width must be multiples of {factor}, not {x.shape[3]}x{x.shape[4]}",
        )
        require(
            self.is_causal or frames % self.config.time_factor == 0,
            f"a non-causal VidTok takes 4k frames, not {frames}",
        )
        x = x.movedim(1, -1)
        if self.tile is None:
            return self.whole_moments(x, state)
        self.require_whole_video(state)
        tile, overlap = (pixels // factor * factor for pixels in (self.tile, self.tile_overlap))
        return blended_tiles(x, tile, overlap, 1 / factor, self.whole_moments)

    def whole_moments(self, x: Tensor, state: EncoderState | None = None) -> Tensor:
        """Of (B, T, H, W, 3), without tiles."""
        if not self.is_causal:
            return self.encoder(x, Stream())
        state = state or self.start_encoding(x.shape[1])
        parts = x.split(self.t_chunk_enc, dim=1) if self.use_tiling else [x]
        return torch.cat([chunks.encode_chunk(self.encoder, part, state) for part in parts], dim=1)

    # ---------------------------------------------------------------- decoding

    def decode(self, z: Tensor, decode_from_indices: bool = False, state: DecoderState | None = None) -> Tensor:
        """Frames (B, 3, T, H, W) of latents (B, z, t, h, w), or of ``indices`` (B, t, h, w).

        v1.0 gives f (t - 1) + 1 frames, the others f t, of which the first f of v1.1 are identical.

        Args:
            state: of a longer video, of which ``z`` is the next chunk: gives the frames that it settles.
        """
        if decode_from_indices:
            z = self.regularization.indices_to_codes(z).to(self.decoder.last_layer.dtype)
        else:
            z = z.movedim(1, -1)
        return self.frames(z, state).movedim(-1, 1)

    def start_decoding(self, latent_frames: int) -> DecoderState:
        """To decode a video of so many latent frames chunk by chunk."""
        self.require_causal()
        return DecoderState(latent_frames, Stream())

    def frames(self, z: Tensor, state: DecoderState | None = None) -> Tensor:
        """(B, t, h, w, channels) to (B, T, H, W, 3)."""
        if self.tile is None:
            return self.whole_frames(z, state)
        self.require_whole_video(state)
        tile, overlap = (pixels // self.config.space_factor for pixels in (self.tile, self.tile_overlap))
        return blended_tiles(z, tile, overlap, self.config.space_factor, self.whole_frames)

    def whole_frames(self, z: Tensor, state: DecoderState | None = None) -> Tensor:
        """As :meth:`frames`, without tiles."""
        if not self.is_causal:
            return self.decoder(z, Stream())
        compatible = self.upstream_compat and self.use_tiling and self.config.time == "causal_v1_1"
        if compatible and state is None:
            return decode_overlapping(self.decoder, z, self.t_chunk_dec, self.use_overlap)
        state = state or self.start_decoding(z.shape[1])
        parts = z.split(self.t_chunk_dec, dim=1) if self.use_tiling else [z]
        return torch.cat([chunks.decode_chunk(self.decoder, part, state) for part in parts], dim=1)

    def require_whole_video(self, state: EncoderState | DecoderState | None) -> None:
        require(state is None, "frames in tiles go with whole videos only: set tile = None, or give no state")

    def require_causal(self) -> None:
        require(self.is_causal, "a non-causal VidTok sees a clip as a whole: cut the video into clips of 4k frames")


def lengthened(x: Tensor, before: int, behind: int) -> Tensor:
    """(B, C, T, H, W) with so many copies of its first and of its last frame."""
    parts = [x[:, :, :1].expand(-1, -1, before, -1, -1), x, x[:, :, -1:].expand(-1, -1, behind, -1, -1)]
    return torch.cat(parts, dim=2) if before or behind else x
