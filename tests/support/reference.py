"""The losses written out clip by clip in plain PyTorch: eqs. 7, 10 and 11, without any of vtok's assembly.

Only modules of transformers and diffusers and bare parameters of the framework are used; every row is run alone.
"""

import math

import torch
import torch.nn.functional as F
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vtok.framework import VTokFramework
from vtok.rows.batch import Batch

CROP_TEMPLATE = 3  # hidden_states[-3]


def clip_pixels(picture, size):
    """(3, H, W) uint8 -> (3, size, size) int32: CLIP's own processor, but for its scaling of the values."""
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, do_rescale=False, do_normalize=False
    )
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    return processor(image, return_tensors="pt").pixel_values[0].int()


def clip_features(framework, frames):
    """(n, 3, 64, 64) uint8 -> (n, 8, 8, 64): CLIP's hidden_states[-2] without CLS."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    clip = framework.tokeniser.feature_extractor.clip
    hidden = clip((frames.float() / 255 - mean) / std, output_hidden_states=True).hidden_states[-2]
    return hidden[:, 1:].reshape(len(frames), 8, 8, -1)


def visual_targets(framework, frames):
    """Pooled key grid (16, d_v) and pooled residuals (M, d_v); one motion token a frame (4 per second at 4 fps)."""
    with torch.no_grad():
        features = clip_features(framework, frames)
        grid = features[0].reshape(4, 2, 4, 2, -1).mean(dim=(1, 3)).reshape(16, -1)
        residuals = (features[1:] - features[:1]).mean(dim=(1, 2))
    return grid, residuals


def visual_embeddings(framework, grid, residuals):
    """phi_vis(V) + P."""
    first, _, second = framework.tokeniser.motion_encoder.g_phi
    scale = framework.tokeniser.feature_scale["motion"]
    residuals = (residuals - scale.mean) / scale.std
    motion = F.linear(F.gelu(F.linear(residuals, first.weight, first.bias)), second.weight, second.bias)
    projector, positions = framework.projection.projector, framework.projection.positions
    tokens = torch.cat([grid, motion])
    hidden = F.linear(tokens, projector.linear_1.weight, projector.linear_1.bias)
    embedded = F.linear(F.gelu(hidden), projector.linear_2.weight, projector.linear_2.bias)
    p = torch.cat([
        positions.spatial.weight + positions.modality.weight[0],
        positions.temporal.weight[: len(residuals)] + positions.modality.weight[1],
    ])  # fmt: skip
    return embedded + p


def mixture_nll(head, hidden, target):
    """-log p of a diagonal Gaussian mixture, divided by the dimension, per row."""
    out = F.linear(hidden, head.linear.weight, head.linear.bias)
    k, d = head.components, head.dim
    losses = []
    for row, x in zip(out, target):
        weights = torch.log_softmax(row[:k], 0)
        terms = []
        for c in range(k):
            mean = row[k + c * d : k + (c + 1) * d]
            std = F.softplus(row[k + k * d + c * d : k + k * d + (c + 1) * d]) + head.min_scale
            log_density = -0.5 * ((x - mean) / std) ** 2 - torch.log(std) - 0.5 * math.log(2 * math.pi)
            terms.append(weights[c] + log_density.sum())
        losses.append(-torch.logsumexp(torch.stack(terms), 0) / d)
    return torch.stack(losses)


def clip_losses(framework: VTokFramework, batch: Batch, index: int):
    """L_under, L_visLM and L_dec of one clip; the last two are zero without a caption."""
    lm, text = framework.mllm.causal_lm, batch.texts[index]
    counts = batch.media_counts or [1] * len(batch.texts)
    first = sum(counts[:index])
    seen = [batch.frames[n, : batch.frame_counts[n]] for n in range(first, first + counts[index])]
    targets = [visual_targets(framework, frames) for frames in seen]
    media = [visual_embeddings(framework, *target) for target in targets]
    (grid, residuals), visual = targets[0], media[0]
    embed = lambda ids: lm.model.embed_tokens(torch.tensor(ids, dtype=torch.long))  # noqa: E731

    # eq. 7
    pieces, answers, places = [], [], []
    for asked, answer in [(text.question, text.answer), *text.turns]:
        pieces += [embed([token]) if token >= 0 else media[-1 - token] for token in asked]
        first = sum(map(len, pieces))
        places += range(first - 1, first + len(answer) - 1)
        answers += answer
        pieces.append(embed(answer))
    row = torch.cat(pieces)
    logits = lm(inputs_embeds=row[None]).logits[0]
    answer = torch.tensor(answers, dtype=torch.long)
    under = F.cross_entropy(logits[places], answer) if len(answer) else row.sum() * 0
    if not text.captioned:
        return under, row.sum() * 0, row.sum() * 0

    # eq. 10
    row = torch.cat([embed(text.prompt), visual])
    states = lm.model(inputs_embeds=row[None], output_hidden_states=True)
    predicting = states.last_hidden_state[0][len(text.prompt) - 1 : -1]
    scale = framework.tokeniser.feature_scale
    targets = [(grid - scale["spatial"].mean) / scale["spatial"].std,
               (residuals - scale["motion"].mean) / scale["motion"].std]  # fmt: skip
    losses = [mixture_nll(framework.visual_head["spatial"], predicting[:16], targets[0])]
    if len(residuals):
        losses.append(mixture_nll(framework.visual_head["motion"], predicting[16:], targets[1]))
    vis_lm = torch.cat(losses).mean()

    # eq. 11
    conditioning = states.hidden_states[-CROP_TEMPLATE][:, framework.text.crop_start :]
    dec = flow_matching_loss(framework, batch, index, conditioning)
    return under, vis_lm, dec


def flow_matching_loss(framework, batch, index, conditioning):
    """|v - (eps - z)|^2 of one clip over its own latents."""
    decoder = framework.decoder
    generator = torch.Generator().manual_seed(batch.decoder_seeds[index])
    video = batch.video[index][0] if isinstance(batch.video, list) else batch.video[index]
    pixels = video.float().permute(1, 0, 2, 3)[None] / 127.5 - 1
    with torch.no_grad():
        posterior = decoder.vae.encode(pixels).latent_dist
        normal = torch.randn(1, 1, 1, 1, generator=generator)
        posterior_noise = torch.randn(posterior.mean.shape[1:], generator=generator)
        eps = torch.randn(posterior.mean.shape[1:], generator=generator)
        z = (posterior.mean + posterior.std * posterior_noise) * decoder.vae.config.scaling_factor
        pooled = decoder.text_encoder(torch.tensor([batch.texts[index].decoder_ids])).pooler_output
    s = 1 / (1 + torch.exp(-normal))
    sigma = 7 * s / (1 + 6 * s)
    velocity = decoder.transformer(
        hidden_states=(1 - sigma) * z + sigma * eps, timestep=sigma.flatten() * 1000,
        encoder_hidden_states=conditioning, encoder_attention_mask=torch.ones(conditioning.shape[:2]),
        pooled_projections=pooled, guidance=torch.tensor([6000.0]), return_dict=False,
    )[0]  # fmt: skip
    real = (batch.video_counts[index] - 1) // 4 + 1
    return (velocity - (eps - z))[:, :, :real].square().mean()


def global_loss(framework: VTokFramework, batch: Batch):
    """Mean over the clips of the weighted sum (eq. 12); clips without a caption only have L_under."""
    weights, total = framework.config.loss, 0.0
    for index, text in enumerate(batch.texts):
        under, vis_lm, dec = clip_losses(framework, batch, index)
        total = total + weights.under * under
        total = total + text.predicts * weights.vis_lm * vis_lm + text.decodes * weights.dec * dec
    return total / len(batch.texts)
