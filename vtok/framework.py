"""VTokFramework: one language model that understands and generates video (paper, section 3.1).
One training step, top to bottom in :meth:`VTokFramework.forward`:

    frames -> frozen features -> tokens -> phi_vis + P  \\
                                     text -> embeddings  > rows -> language model -> L_under, L_visLM
    video -> frozen latents -----------------------------------> frozen decoder  -> L_dec
"""

import torch
from torch import Tensor, nn

from vtok.config import ModelConfig
from vtok.devices import to_device
from vtok.mllm import MLLM, Hidden
from vtok.mllm.mrope import row_positions, video_positions
from vtok.phases import phase
from vtok.projection import VisualPositions, VisualProjection, mlp_projector
from vtok.rows.batch import Batch
from vtok.rows.plan import RowParts, RowPlan, assemble, mean_per_clip, plan_rows
from vtok.rows.text import TextEncoder
from vtok.tokeniser import Tokeniser, VisualFeatures
from vtok.video_decoder import GenerationRow, Posterior, VideoDecoder
from vtok.visual_head import build_visual_head

# What a training step returns: the weighted sum and its parts.
LOSSES = ("loss", "loss_under", "loss_vis_lm", "loss_dec")

class VTokFramework(nn.Module):
    """The whole model. Trainable: language model, phi_vis, P, g_phi, the visual head and what a decoder adds to itself;
    the rest is frozen.

    Without a decoder there is no visual head either: the model understands, and the other losses are zero.

    Args:
        config: its dimensions must be those of the parts.
        tokeniser: frames to tokens.
        mllm: the language model.
        projector: the published model's projector, for phi_vis; a fresh one is made if ``token_dim`` is not its input
            width.
        projector_dim: that input width.
        decoder: the video decoder, frozen but for what it adds; ``None`` where the model understands only.
        text: the tokenizers; ``None`` where no text is handled (counting parameters).
    """

    def __init__(
        self,
        config: ModelConfig,
        tokeniser: Tokeniser,
        mllm: MLLM,
        projector: nn.Module,
        projector_dim: int,
        decoder: VideoDecoder | None,
        text: TextEncoder | None,
    ):
        super().__init__()
        self.config = config
        self.text = text
        self.mllm = mllm
        self.decoder = decoder
        self.tokeniser = tokeniser
        extractor = tokeniser.feature_extractor
        keep = extractor.projected and config.tokeniser.token_dim == projector_dim
        self.projection = VisualProjection(
            projector if keep else mlp_projector(config.tokeniser.token_dim, mllm.dim),
            VisualPositions(
                tokeniser.place, config.tokeniser.num_spatial_tokens, config.mllm.max_motion_tokens, mllm.dim
            ),
        )
        feature_dims = tokeniser.feature_dims
        if not feature_dims:  # no visual token: nothing would give these a gradient
            self.projection.requires_grad_(False)
        fsq_levels = extractor.levels if config.visual_head.kind == "codes" else None
        targets = feature_dims if config.generates else {}
        heads = {
            kind: build_visual_head(config.visual_head, mllm.dim, dim, fsq_levels) for kind, dim in targets.items()
        }
        self.visual_head = nn.ModuleDict(heads)
        for scale in tokeniser.feature_scale.values():
            scale.fixed = fsq_levels is not None

    def train(self, mode: bool = True) -> "VTokFramework":
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        self.tokeniser.feature_extractor.eval()
        if self.decoder is not None:
            self.decoder.eval()
        return self

    @property
    def measured(self) -> nn.Module:
        """Holds what is measured before training and saved along with the weights."""
        return self.tokeniser.feature_scale

    @property
    def frozen_parts(self) -> dict[str, nn.Module]:
        """What is never trained, by part."""
        parts = {"feature_extractor": self.tokeniser.feature_extractor}
        return parts | (self.decoder.parts() if self.decoder is not None else {})

    @property
    def added_parts(self) -> dict[str, nn.Module]:
        """What a decoder adds to itself, and is trained, by part."""
        return self.decoder.added() if self.decoder is not None else {}

    # ---------------------------------------------------------------- training

    def forward(self, batch: Batch, with_decoder: bool = True, reduce: bool = True) -> dict[str, Tensor]:
        """Losses of a micro-batch of B samples, in fp32.

        Each is averaged over a sample's own tokens (L_visLM also over dimensions, L_dec over its latent elements), then
        over the samples, those without an answer or a caption counting as zero. Micro-batches of one size can so be
        averaged again, over ranks and accumulation steps, to the mean over the global batch.

        Args:
            with_decoder: whether this step has an L_dec (see ``LossConfig.dec_every``). Without one, or where its
                weight is zero, it counts as zero and the decoder does not run.
            reduce: average over the samples; else the losses are those of each sample, (B,).

        Returns:
            ``loss`` (the weighted sum, eq. 12), ``loss_under`` (eq. 7), ``loss_vis_lm`` (eq. 10), ``loss_dec``
            (eq. 11), and ``tokens``, the language model's tokens in this micro-batch.
        """
        weights = self.config.loss
        with_decoder = with_decoder and weights.dec > 0
        understanding, generation = weights.under > 0, weights.vis_lm > 0 or with_decoder

        features = self.features(batch)
        device = features.spatial.device
        with phase("language_model"):
            visual = self.projection(self.tokeniser.encode(features))

        plan = plan_rows(
            batch.texts, features.token_counts, self.text.crop_start, understanding, generation,
            spatial=features.spatial.shape[1],
        ).to(device)  # fmt: skip
        with phase("language_model"):
            rows = assemble(plan, self.mllm.embed(plan.token_ids), visual)
            positions = self.positions(plan.row_parts, batch.frame_counts)
            hidden = self.mllm(rows, plan.row_lengths, plan.shared_row, positions=positions)

        losses = {
            "loss_under": self.understanding_loss(hidden, plan),
            "loss_vis_lm": self.visual_loss(hidden, plan, features, batch.head_seeds) * plan.captioned,
            "loss_dec": self.decoder_loss(hidden, plan, batch, with_decoder) * plan.captioned,
        }
        if reduce:
            losses = {name: loss.mean() for name, loss in losses.items()}
        losses["loss"] = (
            weights.under * losses["loss_under"]
            + weights.vis_lm * losses["loss_vis_lm"]
            + weights.dec * losses["loss_dec"]
        )
        return losses | {"tokens": torch.full((), len(plan.source), device=device)}

    def positions(self, rows: list[RowParts], frame_counts: list[int]) -> Tensor | None:
        """Positions (3, 1, L) of packed rows, where the language model has mRoPE; else it counts for itself.

        Args:
            frame_counts: frames of each clip.
        """
        if self.mllm.positions_per_second is None:
            return None
        placed = [
            row_positions(row.before, [self.clip_positions(row.visual, frame_counts[row.clip])], row.after)
            for row in rows
        ]
        return to_device(torch.cat(placed, dim=1)[:, None], self.mllm.embed.weight.device)

    def clip_positions(self, num_tokens: int, num_frames: int, fps: float | None = None) -> Tensor:
        """Positions (3, num_tokens) of a clip's visual tokens, counted from where they begin."""
        tokeniser, config = self.tokeniser, self.config.tokeniser
        per_frame = self.mllm.positions_per_second * torch.tensor(1 / (fps or config.fps))
        places = [tokeniser.place(index) for index in range(num_tokens)]
        return video_positions(places, tokeniser.time_frames(num_frames, fps), config.spatial_grid_size, per_frame)

    @phase("feature_extractor")
    def features(self, batch: Batch) -> VisualFeatures:
        """Frozen features of the clips, unless the batch brings them."""
        if isinstance(batch.frames, Tensor):
            return self.tokeniser.features(batch.frames, batch.frame_counts)
        return self.in_model_dtype(batch.frames)

    def in_model_dtype(self, features: VisualFeatures) -> VisualFeatures:
        """Stored features as the tokeniser's own would be."""
        dtype = next(self.projection.parameters()).dtype
        return features._replace(spatial=features.spatial.to(dtype), motion=features.motion.to(dtype))

    @phase("heads")
    def understanding_loss(self, hidden: Hidden, plan: RowPlan) -> Tensor:
        """L_under of each clip (eq. 7): cross-entropy of answer and end token; logits only where they are needed."""
        losses = self.mllm.lm_head(hidden.last.flatten(0, 1)[plan.answer_from], plan.answer_ids)
        return mean_per_clip(losses, plan.answer_clip, plan.answer_counts)

    @phase("heads")
    def visual_loss(self, hidden: Hidden, plan: RowPlan, features: VisualFeatures, seeds: list[int]) -> Tensor:
        """L_visLM of each clip (eq. 10), over its visual tokens, against the standardised frozen features."""
        states = hidden.last.flatten(0, 1)[plan.visual_from]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        losses = [states.new_zeros(0, dtype=torch.float32)]  # a clip may have no visual token
        for kind, head in self.visual_head.items():
            spatial = kind == "spatial"
            rows = slice(plan.num_spatial) if spatial else slice(plan.num_spatial, None)
            frozen, counts = features.of(kind)
            noise = own_noise(counts, (frozen.shape[1], head.noise_dim), generators)
            first = 0 if spatial else features.spatial.shape[1]
            place = plan.visual_clip[rows], plan.visual_index[rows] - first
            target = self.tokeniser.feature_scale[kind].standardise(frozen[place])
            losses.append(head.loss(states[rows], target, to_device(noise, frozen.device)[place]))
        return mean_per_clip(torch.cat(losses), plan.visual_clip, plan.visual_counts)

    def decoder_loss(self, hidden: Hidden, plan: RowPlan, batch: Batch, with_decoder: bool) -> Tensor:
        """L_dec of each clip (eq. 11), or zero in a step without."""
        if self.decoder is None:
            return torch.zeros((), device=hidden.conditioning.device)
        if not with_decoder:
            return self.decoder.no_loss(hidden.conditioning)
        with phase("text_encoder"):
            text = self.decoder.encode_text([text.decoder_ids for text in batch.texts], hidden.conditioning.device)
        with phase("diffusion_transformer"):
            conditioning = self.decoder.condition(self.generation_rows(hidden.conditioning, plan), text)
        with phase("autoencoder"):
            posterior = batch.video if isinstance(batch.video, Posterior) else self.decoder.encode(batch.video)
        with phase("diffusion_transformer"):
            return self.decoder.loss(posterior, batch.video_counts, conditioning, batch.decoder_seeds)

    def generation_rows(self, states: Tensor, plan: RowPlan) -> list[GenerationRow]:
        """What the decoder is given of the packed states (1, L, d): prompts from the crop on, and visual tokens.

        A token's row is the one whose input it is, not the one that predicts it: the last token has no other.
        """
        rows = zip(plan.conditioning_start, plan.conditioning_rows, plan.conditioning_visual)
        return [
            GenerationRow(*states[0, start : start + count].split([count - visual, visual]))
            for start, count, visual in rows
        ]

    # ---------------------------------------------------------------- parts

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part: the language model (with its head), the trained additions, and each frozen part."""
        parts = {
            "language_model": [self.mllm],
            "phi_vis + P": [self.projection],
            "g_phi": [part for name, part in self.tokeniser.named_children() if name != "feature_extractor"],
            "visual_head": [self.visual_head],
            **{name: [part] for name, part in (self.added_parts | self.frozen_parts).items()},
        }
        return {
            name: sum(p.numel() for module in modules for p in module.parameters()) for name, modules in parts.items()
        }


def own_noise(counts: list[int], shape: tuple[int, int], generators: list[torch.Generator]) -> Tensor:
    """Standard normal (B, length, dim), on the CPU; zero behind each clip's own count.

    Only its own tokens are drawn: a clip's noise must not depend on how far its batch mates pad it.
    """
    noise = torch.zeros(len(counts), *shape)
    for clip, (count, generator) in enumerate(zip(counts, generators)):
        noise[clip, :count] = torch.randn(count, shape[1], generator=generator)
    return noise
