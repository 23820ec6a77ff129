"""VidTwin: a clip to latents of structure and of dynamics, and back (Wang et al., CVPR 2025, arXiv 2412.17726).

>>> model = load_model("vidtwin_structure_7_7_8_dynamics_7_8.ckpt").eval()
>>> latents = model.encode(x)                    # x: (1, 3, 16, 224, 224) in [-1, 1]
>>> frames = model.decode(latents)
>>> mixed = model.decode(latents.with_dynamics_of(model.encode(other)))

Structure says what is there and how it moves slowly. Dynamics say, for each frame, what moves fast. In the encoder's
features

    structure   a Q-Former over the frames of each place, then convolutions over the places
    dynamics    means over the rows and over the columns of each frame

and the decoder reads the sum of what both say about each patch. The modules have the published parameters' names.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from vtok.config import require
from vtok.vidtok.kl import KL
from vtok.vidtok.model import RegLog, lengthened
from vtok.vidtwin.config import VidTwinConfig
from vtok.vidtwin.transformer import Decoder, Encoder

# Stored tensors that reconstruct nothing: layers that are never called, and positions, which are no weights.
UNUSED = (
    "encoder.final_layer.", "decoder.x_embedder.", "encoder.pos_embed", "decoder.pos_embed",
)  # fmt: skip

QFORMER_LAYERS, QFORMER_HEADS, QFORMER_MLP = 6, 8, 768
FIRST = 128  # channels of the first convolution over the queries


class Latents(NamedTuple):
    """A clip's latents; T frames, Q queries, C channels, the places' grid halved to h x w.

    Attributes:
        structure: (B, Q, h, w, C).
        columns: Dynamics of each column, (B, T, w, C).
        rows: Dynamics of each row, (B, T, h, C).
    """

    structure: Tensor
    columns: Tensor
    rows: Tensor

    def with_dynamics_of(self, other: "Latents") -> "Latents":
        """Returns this clip's structure with the dynamics of another."""
        return Latents(self.structure, other.columns, other.rows)


class QFormer(nn.Module):
    """BLIP-2's Q-Former: learned queries that read a sequence.

    Args:
        queries: Number of queries.
        query_width: Their channels.
        width: Channels of the sequence.
    """

    def __init__(self, queries: int, query_width: int, width: int):
        super().__init__()
        config = Blip2QFormerConfig(
            hidden_size=query_width, encoder_hidden_size=width, num_hidden_layers=QFORMER_LAYERS,
            num_attention_heads=QFORMER_HEADS, intermediate_size=QFORMER_MLP,
        )  # fmt: skip
        self.query_embeds = nn.Parameter(torch.randn(queries, query_width))
        self.qformer = Blip2QFormerModel(config)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, N, C) to (n, queries, query_width)."""
        queries = self.query_embeds.expand(len(x), -1, -1)
        return self.qformer(query_embeds=queries, encoder_hidden_states=x).last_hidden_state


class VidTwin(nn.Module):
    """The autoencoder. Latents are draws in training and means at evaluation.

    Attributes:
        is_causal: ``False``: a clip has one length.
    """

    is_causal = False

    def __init__(self, config: VidTwinConfig):
        super().__init__()
        self.config = config
        width, last = config.width, FIRST * 2**config.structure_halvings
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.regularization = KL()

        self.temporal_qformer = QFormer(config.queries, config.query_width, width)
        self.conv_in = conv(config.query_width, FIRST)
        self.content_downsample_blocks = halving(FIRST, config.structure_halvings, grows=True)
        self.bottle_down = conv(last, 2 * config.structure_channels)
        self.bottle_up = nn.Sequential(conv(config.structure_channels, last), nn.ReLU())
        self.content_upsample_blocks = doubling(last, config.structure_halvings)
        self.conv_out = conv(FIRST, config.query_width)
        to_frames = nn.Conv1d(config.queries, config.frames, 1)
        self.cont_emb = nn.Sequential(nn.Linear(config.query_width, width), nn.ReLU(), to_frames, nn.ReLU())

        grid = config.grid
        for _ in range(config.dynamics_halvings):
            grid = (grid + 1) // 2
        self.downsample_motion_module = halving(width, config.dynamics_halvings, grows=False)
        self.motion_head = conv(width, 2 * config.dynamics_channels)
        self.motion_emb = two_layers(config.dynamics_channels, width)
        self.up_motion = two_layers(grid, config.grid)

    def forward(self, x: Tensor) -> tuple[Latents, Tensor, RegLog]:
        """Encodes and decodes a clip of at most T frames; a shorter one is continued by copies of its last frame.

        Args:
            x: The clip, (B, 3, t, H, W), in [-1, 1].

        Returns:
            The latents, the reconstruction (B, 3, t, H, W), and the log with ``kl_loss``.

        Raises:
            ConfigError: The clip is too long or of another size.
        """
        length = x.shape[2]
        latents, log = self.encode_with_log(lengthened(x, 0, max(0, self.config.frames - length)))
        return latents, self.decode(latents)[:, :, :length], log

    def encode(self, x: Tensor) -> Latents:
        """Encodes a clip (B, 3, T, H, W) in [-1, 1].

        Raises:
            ConfigError: The clip is of another length or size.
        """
        return self.encode_with_log(x)[0]

    def encode_with_log(self, x: Tensor) -> tuple[Latents, RegLog]:
        """Does what :meth:`encode` does, and returns the sum of the three ``kl_loss`` too."""
        frames, side = self.config.frames, self.config.side
        require(
            x.shape[2:] == (frames, side, side),
            f"a VidTwin takes {frames} frames of {side}x{side}, not {x.shape[2]} of {x.shape[3]}x{x.shape[4]}",
        )
        features = self.encoder(x)
        found = [self.regularization(moments) for moments in (self.structure(features), *self.dynamics(features))]
        return Latents(*(z for z, _ in found)), {"kl_loss": torch.stack([log["kl_loss"] for _, log in found]).sum()}

    def decode(self, latents: Latents) -> Tensor:
        """Decodes latents to frames (B, 3, T, H, W)."""
        structure = self.of_structure(latents.structure)
        columns, rows = (self.of_dynamics(part) for part in (latents.columns, latents.rows))
        return self.decoder(structure + columns[:, :, None] + rows[:, :, :, None])

    def structure(self, features: Tensor) -> Tensor:
        """Maps features (B, T, h, w, C) to the structure's moments, (B, Q, h', w', 2 C')."""
        batch, _, height, width, _ = features.shape
        queries = self.temporal_qformer(features.permute(0, 2, 3, 1, 4).flatten(0, 2))  # (B h w, Q, c)
        images = queries.unflatten(0, (batch, height, width)).permute(0, 3, 4, 1, 2)  # (B, Q, c, h, w)
        moments = self.bottle_down(self.content_downsample_blocks(self.conv_in(images.flatten(0, 1))))
        return moments.unflatten(0, images.shape[:2]).movedim(2, -1)

    def dynamics(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Maps features (B, T, h, w, C) to the moments of columns (B, T, w', 2 C') and of rows (B, T, h', 2 C')."""
        images = self.downsample_motion_module(features.flatten(0, 1).movedim(-1, 1))
        places = images.unflatten(0, features.shape[:2]).transpose(1, 2)  # (B, C, T, h', w')
        return tuple(self.motion_head(places.mean(axis)).movedim(1, -1) for axis in (-2, -1))

    def of_structure(self, z: Tensor) -> Tensor:
        """Maps the structure latent (B, Q, h', w', C') to features (B, T, h, w, C)."""
        grid = self.config.grid
        images = self.content_upsample_blocks(self.bottle_up(z.flatten(0, 1).movedim(-1, 1)))
        images = self.conv_out(images)
        surplus = (images.shape[-1] - grid) // 2  # halving rounded up
        images = images[..., surplus : surplus + grid, surplus : surplus + grid].unflatten(0, z.shape[:2])
        queries = images.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B h w, Q, c)
        return self.cont_emb(queries).unflatten(0, (len(z), grid, grid)).permute(0, 3, 1, 2, 4)

    def of_dynamics(self, z: Tensor) -> Tensor:
        """Maps dynamics of columns or rows, (B, T, n', C'), to features (B, T, n, C)."""
        return self.up_motion(self.motion_emb(z).transpose(2, 3)).transpose(2, 3)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Builds a convolution of 3 x 3 that keeps the size, or divides it by the stride."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def halving(channels: int, times: int, grows: bool) -> nn.Sequential:
    """Builds convolutions that halve the size; if it ``grows``, each doubles the channels."""
    layers: list[nn.Module] = []
    for _ in range(times):
        outputs = 2 * channels if grows else channels
        layers += [conv(channels, outputs, stride=2), nn.ReLU()]
        channels = outputs
    return nn.Sequential(*layers)


def doubling(channels: int, times: int) -> nn.Sequential:
    """Builds convolutions that halve the channels, each followed by a doubling of the size."""
    layers: list[nn.Module] = []
    for _ in range(times):
        layers += [conv(channels, channels // 2), nn.ReLU(), nn.Upsample(scale_factor=2)]
        channels //= 2
    return nn.Sequential(*layers)


def two_layers(inputs: int, outputs: int) -> nn.Sequential:
    """Builds two linear layers, each with a ReLU behind it."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs), nn.ReLU())
