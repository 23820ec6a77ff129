"""VTokFramework: one language model that understands and generates video (paper, section 3.1).
One training step, top to bottom in :meth:`VTokFramework.forward`:

    frames -> frozen features -> tokens -> phi_vis + P  \\
                                     text -> embeddings  > rows -> language model -> L_under, L_visLM
    video -> frozen latents -----------------------------------> frozen decoder  -> L_dec
"""

import torch
from torch import Tensor, nn

from vtok.config import ModelConfig
from vtok.devices import indices_on_device, to_device
from vtok.mllm import MLLM, Hidden
from vtok.mllm.mrope import row_positions, video_positions
from vtok.module_table import ModuleTable
from vtok.parts import learnable_names
from vtok.phases import phase
from vtok.projection import VisualPositions, VisualProjection, mlp_projector
from vtok.rows.batch import Batch
from vtok.rows.plan import RowPart, RowPlan, assemble, mean_per_clip, plan_rows
from vtok.rows.text import TextEncoder
from vtok.tokeniser import Tokeniser, VisualFeatures
from vtok.video_decoder import GenerationRow, Posterior, VideoDecoder
from vtok.visual_head import VisualHead, build_visual_head

# The losses of a training step: the weighted sum and its parts.
LOSSES = ("loss", "loss_under", "loss_vis_lm", "loss_dec")


class VTokFramework(nn.Module):
    """The whole model.

    Language model, phi_vis, P, g_phi, the visual heads and a decoder's adapter train. The rest is frozen. With adapters
    (``mllm.lora``) these train in place of the language model. :func:`vtok.parts.train_only` freezes further parts.

    Without a decoder there are no visual heads either: the model only understands, and the other losses are zero.

    Args:
        config: The settings. Their dimensions must be those of the parts.
        tokeniser: Turns frames into tokens.
        mllm: The language model.
        projector: The published model's projector. It becomes phi_vis if ``token_dim`` is its input width; else phi_vis
            is new.
        projector_dim: That input width.
        decoder: The video decoder. ``None`` if the model only understands.
        text: The tokenizers. ``None`` if no text is processed, as in counting parameters.

    Attributes:
        learnable: Names of the parameters that can train.
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
        self._text = text
        self.mllm = mllm
        self.decoder = decoder
        self.tokeniser = tokeniser
        extractor = tokeniser.feature_extractor
        keep = extractor.projected and config.tokeniser.token_dim == projector_dim
        self.projection = VisualProjection(
            projector if keep else mlp_projector(config.tokeniser.token_dim, mllm.dim),
            VisualPositions(tokeniser.place, tokeniser.num_cells, config.mllm.max_motion_tokens, mllm.dim),
        )
        feature_dims = tokeniser.feature_dims
        if not feature_dims:  # no visual tokens, so these would get no gradient
            self.projection.requires_grad_(False)
        cells = tokeniser.cells if config.visual_head.kind == "codes" else {}
        targets = feature_dims if config.generates else {}
        heads = {
            kind: build_visual_head(config.visual_head, mllm.dim, dim, cells.get(kind)) for kind, dim in targets.items()
        }
        self.visual_head: ModuleTable[VisualHead] = ModuleTable(heads)
        for kind, scale in tokeniser.feature_scale.items():
            scale.fixed = kind in cells
        self.learnable = learnable_names(self)

    @property
    def text(self) -> TextEncoder:
        """The tokenizers."""
        if self._text is None:
            raise RuntimeError("this framework has no tokenizers: vtok.assembly.build.build_framework adds them")
        return self._text

    @text.setter
    def text(self, text: TextEncoder) -> None:
        self._text = text

    def train(self, mode: bool = True) -> "VTokFramework":
        """Sets the training mode. Frozen parts stay in evaluation mode."""
        super().train(mode)
        self.tokeniser.feature_extractor.eval()
        if self.decoder is not None:
            self.decoder.eval()
        return self

    @property
    def measured(self) -> nn.Module:
        """The module whose buffers are measured before training and saved along with the weights."""
        return self.tokeniser.feature_scale

    @property
    def frozen_parts(self) -> dict[str, nn.Module]:
        """The parts that never train, by name."""
        parts: dict[str, nn.Module] = {"feature_extractor": self.tokeniser.feature_extractor}
        return parts | (self.decoder.parts() if self.decoder is not None else {})

    @property
    def added_parts(self) -> dict[str, nn.Module]:
        """The modules that a decoder adds and trains, by name."""
        return self.decoder.added() if self.decoder is not None else {}

    # ---------------------------------------------------------------- training

    def forward(self, batch: Batch, with_decoder: bool = True, reduce: bool = True) -> dict[str, Tensor]:
        """Computes the losses of a micro-batch of B samples, in fp32.

        Each loss is averaged over a sample's own tokens (L_visLM also over dimensions, L_dec over latent elements),
        then over the samples. Samples without an answer or a caption count as zero. So the mean over the global batch
        is the mean over micro-batches of equal size, on all ranks and accumulation steps.

        Args:
            batch: The samples.
            with_decoder: Whether this step has L_dec (see ``LossConfig.dec_every``). If not, or if its weight is zero,
                L_dec is zero and the decoder does not run.
            reduce: Whether to average over the samples. If not, each loss is (B,).

        Returns:
            ``loss`` (the weighted sum, eq. 12), ``loss_under`` (eq. 7), ``loss_vis_lm`` (eq. 10), ``loss_dec``
            (eq. 11), and ``tokens``, the number of the language model's tokens in this micro-batch.
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
            spatial=features.spatial.shape[1], media_counts=batch.media_counts, gaps=features.gaps,
        ).to(device)  # fmt: skip
        with phase("language_model"):
            rows = assemble(plan, self.mllm.embed(plan.token_ids), visual)
            positions = self.positions(plan.row_parts, batch.frame_counts)
            hidden = self.mllm(rows, plan.row_lengths, plan.shared_row, positions=positions)

        losses = {
            "loss_under": self.understanding_loss(hidden, plan),
            "loss_vis_lm": self.visual_loss(hidden, plan, features, batch.head_seeds) * plan.predicts,
            "loss_dec": self.decoder_loss(hidden, plan, batch, with_decoder) * plan.decodes,
        }
        if reduce:
            losses = {name: loss.mean() for name, loss in losses.items()}
        losses["loss"] = (
            weights.under * losses["loss_under"]
            + weights.vis_lm * losses["loss_vis_lm"]
            + weights.dec * losses["loss_dec"]
        )
        return losses | {"tokens": torch.full((), len(plan.source), device=device)}

    def positions(self, rows: list[list[RowPart]], frame_counts: list[int]) -> Tensor | None:
        """Returns the positions (3, 1, L) of packed rows for a language model with mRoPE, ``None`` for others.

        Args:
            rows: The parts of each row.
            frame_counts: Frames of each medium.
        """
        if self.mllm.positions_per_second is None:
            return None
        placed = [
            row_positions(
                count if medium is None else self.clip_positions(count, frame_counts[medium]) for medium, count in row
            )
            for row in rows
        ]
        return to_device(torch.cat(placed, dim=1)[:, None], self.mllm.device)

    def clip_positions(self, num_tokens: int, num_frames: int, fps: float | None = None) -> Tensor:
        """Returns the mRoPE positions (3, num_tokens) of a clip's visual tokens, from 0 on."""
        assert self.mllm.positions_per_second is not None
        tokeniser, config = self.tokeniser, self.config.tokeniser
        per_frame = self.mllm.positions_per_second * torch.tensor(1 / (fps or config.fps))
        places = [tokeniser.place(index) for index in range(num_tokens)]
        return video_positions(places, tokeniser.time_frames(num_frames, fps), config.spatial_grid_size, per_frame)

    @phase("feature_extractor")
    def features(self, batch: Batch) -> VisualFeatures:
        """Extracts the frozen features of the clips, unless the batch has them."""
        if isinstance(batch.frames, Tensor):
            return self.tokeniser.features(batch.frames, batch.frame_counts, vectors=batch.vectors)
        return self.restored(batch.frames)

    def restored(self, features: VisualFeatures) -> VisualFeatures:
        """Returns stored features in the dtype of the model, with all places of spatial tokens."""
        dtype, counts = next(self.projection.parameters()).dtype, features.of("spatial")[1]
        spatial, motion = features.spatial.to(dtype), features.motion.to(dtype)
        if missing := self.tokeniser.spatial_places - spatial.shape[1]:
            spatial = nn.functional.pad(spatial, (0, 0, 0, missing))
        return features._replace(spatial=spatial, motion=motion, spatial_counts=counts)

    def embedded(self, features: VisualFeatures) -> Tensor:
        """Embeds the visual tokens of one clip for the language model: (1, L, d)."""
        return features.without_gap(self.projection(self.tokeniser.encode(features)))

    @phase("heads")
    def understanding_loss(self, hidden: Hidden, plan: RowPlan) -> Tensor:
        """Computes L_under of each clip (eq. 7): the cross-entropy of answer and end token."""
        losses = self.mllm.lm_head(hidden.last.flatten(0, 1)[plan.answer_from], plan.answer_ids)
        return mean_per_clip(losses, plan.answer_clip, plan.answer_counts)

    @phase("heads")
    def visual_loss(self, hidden: Hidden, plan: RowPlan, features: VisualFeatures, seeds: list[int]) -> Tensor:
        """Computes L_visLM of each clip (eq. 10). The targets are the standardised frozen features."""
        states = hidden.last.flatten(0, 1)[plan.visual_from]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        losses = [states.new_zeros(0, dtype=torch.float32)]  # a clip may have no visual tokens
        for kind, head in self.visual_head.items():
            spatial = kind == "spatial"
            rows = slice(plan.num_spatial) if spatial else slice(plan.num_spatial, None)
            frozen, counts = features.of(kind)
            own = [counts[medium] for medium in plan.first_medium]
            noise = own_noise(own, (frozen.shape[1], head.noise_dim), generators)
            index = plan.visual_index[rows] - (0 if spatial else features.spatial.shape[1])
            target = self.tokeniser.feature_scale[kind].standardise(frozen[plan.visual_medium[rows], index])
            drawn = to_device(noise, frozen.device)[plan.visual_clip[rows], index]
            losses.append(head.loss(states[rows], target, drawn))
        return mean_per_clip(torch.cat(losses), plan.visual_clip, plan.visual_counts)

    def decoder_loss(self, hidden: Hidden, plan: RowPlan, batch: Batch, with_decoder: bool) -> Tensor:
        """Computes L_dec of each clip (eq. 11), or zero in a step without it.

        Videos of one tensor run together, those alone that have a loss (:attr:`Batch.decoded`). Videos of a list run
        one by one, all of them, since ranks have to run the decoder equally often.
        """
        if self.decoder is None:
            return torch.zeros((), device=hidden.conditioning.device)
        if not with_decoder:
            return self.decoder.no_loss(hidden.conditioning)
        samples = len(batch.texts)
        batch, kept = batch.decoded
        with phase("text_encoder"):
            captions = batch.captions
            if captions is None:
                ids = [text.decoder_ids for text in batch.texts]
                captions = self.decoder.encode_text(ids, hidden.conditioning.device)
        with phase("diffusion_transformer"):
            rows = self.generation_rows(hidden.conditioning, plan, kept)
        groups, losses = batch.groups, []
        size = len(rows) // len(groups)
        for first, video in zip(range(0, len(rows), size), groups):
            own = slice(first, first + size)
            with phase("diffusion_transformer"):
                conditioning = self.decoder.condition(rows[own], captions[own])
            with phase("autoencoder"):
                posterior = video if isinstance(video, Posterior) else self.decoder.encode(video)
            if isinstance(batch.video, list):  # the transformer computes no padding
                posterior = posterior.first((batch.video_counts[first] - 1) // self.decoder.latents_per_frame + 1)
            with phase("diffusion_transformer"):
                losses.append(
                    self.decoder.loss(posterior, batch.video_counts[own], conditioning, batch.decoder_seeds[own])
                )
        found = torch.cat(losses)
        if len(found) == samples:
            return found
        (places,) = indices_on_device(found.device, kept)
        return found.new_zeros(samples).index_copy(0, places, found)

    def generation_rows(self, states: Tensor, plan: RowPlan, clips: list[int]) -> list[GenerationRow]:
        """Takes some clips' states for the decoder from the packed states (1, L, d): cropped prompt and visual tokens.

        A visual token's state is the one at its own position, not the one that predicts it. The last visual token
        predicts nothing, so only its own position has seen it.
        """
        rows = list(zip(plan.conditioning_start, plan.conditioning_rows, plan.conditioning_visual))
        return [
            GenerationRow(*states[0, start : start + count].split([count - visual, visual]))
            for start, count, visual in (rows[clip] for clip in clips)
        ]

    # ---------------------------------------------------------------- parts

    def parameter_counts(self, trained_only: bool = False) -> dict[str, int]:
        """Counts the parameters of each part: language model with its head, trained additions, frozen parts.

        Args:
            trained_only: Whether to count only parameters that train.
        """
        parts: dict[str, list[nn.Module]] = {
            "language_model": [self.mllm],
            "phi_vis + P": [self.projection],
            "g_phi": [part for name, part in self.tokeniser.named_children() if name != "feature_extractor"],
            "visual_head": [self.visual_head],
            **{name: [part] for name, part in (self.added_parts | self.frozen_parts).items()},
        }
        return {
            name: sum(
                p.numel() for module in modules for p in module.parameters() if p.requires_grad or not trained_only
            )
            for name, modules in parts.items()
        }


def own_noise(counts: list[int], shape: tuple[int, int], generators: list[torch.Generator]) -> Tensor:
    """Draws standard normal noise (B, length, dim) on the CPU.

    Only a clip's own tokens get draws; padding is zero. So a clip's noise does not depend on the rest of the batch.

    Args:
        counts: The number of tokens of each clip.
        shape: Length and dim.
        generators: One per clip.
    """
    noise = torch.zeros(len(counts), *shape)
    for clip, (count, generator) in enumerate(zip(counts, generators)):
        noise[clip, :count] = torch.randn(count, shape[1], generator=generator)
    return noise
