"""Ranks that share samples: exchanges, and the decoders' losses and gradients, against one process.

deepspeed --num_gpus R sequence_worker.py MODELS WHAT ...
"""

import copy
import os
import sys
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch
from torch.nn.functional import scaled_dot_product_attention

from pipelines.engine import distributed
from support.tiny import model_config, wan_config
from vtok.assembly.build import build_framework
from vtok.video_decoder import GenerationRow, Posterior
from vtok.video_decoder.hunyuan import HunyuanDecoder

models, *wanted = [word for word in sys.argv[1:] if not word.startswith("--")]
distributed.connect()
size = distributed.world_size()
sequence = distributed.sequence_group(size)


def mean(x):
    return distributed.mean_over_ranks(x.detach().clone())


def close(found, expected, tolerance=1e-5):
    error, length = (found - expected).norm().item(), expected.norm().item()
    assert length > 0 and error <= tolerance * length, (error, length)


def exchanges():
    """Joint attention of a video and a text of these lengths, which the ranks share; then the way back to all rows."""
    for video, text in ((12, 4), (13, 3), (1, 8), (size, 0)):
        draw = torch.Generator().manual_seed(video)
        whole = torch.randn(3, 2, video + text, 4 * size, 5, generator=draw, requires_grad=True)
        weights = torch.randn(2, video + text, 4 * size * 5, generator=draw)

        def attended(qkv):
            return scaled_dot_product_attention(*qkv.transpose(2, 3)).transpose(1, 2)

        expected = attended(whole).flatten(2)
        (gradient,) = torch.autograd.grad((expected * weights).sum(), whole)
        own = torch.cat([sequence.own(part, 2) for part in whole.split([video, text], dim=2)], dim=2)
        heads = sequence.to_heads(own, [video, text])
        assert heads.shape == (3, 2, video + text, 4, 5)
        rows = sequence.to_rows(attended(heads), [video, text]).flatten(2)
        counts = [sequence.lengths(total)[sequence.rank] for total in (video, text)]
        found = torch.cat(
            [sequence.whole(own, total) for own, total in zip(rows.split(counts, dim=1), (video, text))], dim=1
        )
        close(found, expected)
        (own_gradient,) = torch.autograd.grad((found * weights).sum(), whole)
        close(mean(own_gradient), gradient)


def with_more_heads(decoder):
    """A copy whose transformer has new weights and four heads, so that four ranks can share it."""
    changes = dict(num_attention_heads=4, attention_head_dim=12)
    if hasattr(decoder.transformer.config, "rope_axes_dim"):
        changes["rope_axes_dim"] = (4, 4, 4)
    transformer = type(decoder.transformer).from_config(dict(decoder.transformer.config) | changes)
    parts = [transformer, copy.deepcopy(decoder.vae), decoder.text_encoder, decoder.scheduler]
    if hasattr(decoder, "adapter"):
        parts += [copy.deepcopy(decoder.adapter), decoder.boundary, decoder.timestep_per_token]
    return type(decoder)(decoder.config, *parts)


def decoder(configuration, checkpointing):
    """Losses of clips of three sizes and gradients to the states, all forwards before the backward. Sampled videos."""
    torch.manual_seed(0)
    config = configuration(models)
    config.decoder.gradient_checkpointing = checkpointing
    framework = build_framework(config)
    plain, dim = with_more_heads(framework.decoder), framework.mllm.dim
    for parameter in plain.parameters():  # at their first values the output hardly depends on the states
        if parameter.ndim > 1:
            parameter.data.mul_(2)
    shared = with_more_heads(plain)
    shared.load_state_dict(plain.state_dict())
    shared.share(sequence)
    texts = plain.encode_text([framework.text.caption_ids(caption) for caption in ("A red ball.", "Blue")], "cpu")

    def results(decoder):
        draw = torch.Generator().manual_seed(5)
        states = [torch.randn(count, dim, generator=draw, requires_grad=True) for count in (7, 3, 4, 2)]
        losses = []
        for frames, height, width in ((3, 6, 6), (1, 2, 10), (1, 2, 2)):  # 27, 5, 1 tokens
            rows = [GenerationRow(*states[:2]), GenerationRow(*states[2:])]
            shape = (2, plain.latent_channels, frames, height, width)
            posterior = Posterior(torch.randn(shape, generator=draw), torch.rand(shape, generator=draw))
            counts = [4 * frames - 3, 1]
            losses.append(decoder.loss(posterior, counts, decoder.condition(rows, texts), [11, 12]))
        trained = [p for p in decoder.parameters() if p.requires_grad]
        used = states if isinstance(decoder, HunyuanDecoder) else states[1::2]  # Wan reads no states of the prompt
        return losses, torch.autograd.grad(torch.cat(losses).sum(), used + trained)

    (losses, gradients), (found, shares) = results(plain), results(shared)
    for ours, theirs in zip(found, losses):
        close(ours, theirs)
    for ours, theirs in zip(shares, gradients, strict=True):
        close(mean(ours), theirs)

    def sampled(decoder):
        draw = torch.Generator().manual_seed(7)
        rows = [GenerationRow(*torch.randn(2, 3, dim, generator=draw)) for _ in texts]
        with torch.no_grad():
            conditioning = decoder.condition(rows, texts)
        return decoder.sample(conditioning, 21, 2, [torch.Generator().manual_seed(n) for n in (1, 2)]).int()

    if config.decoder.expert is None:  # the weights of experts are read again, and those here are other ones
        found, expected = sampled(shared), sampled(plain)
        assert found.shape == (2, 21, 3, 32, 32) and expected.unique().numel() > 9
        assert (found - expected).abs().max() <= 1


def pieces_run(vae):
    """A list that gets an entry for each piece that the encoder or the decoder runs."""
    pieces = []
    for part in (vae.encoder, vae.decoder):
        part.conv_in.register_forward_hook(lambda *_: pieces.append(part))
    return pieces


def autoencoders(kind):
    """Latents and videos, whole and in tiles, bit by bit: of fewer pieces than ranks, and of uneven numbers."""
    torch.manual_seed(0)
    config = KINDS[kind](models)
    plain = with_more_heads(build_framework(config).decoder)
    shared = with_more_heads(plain)
    shared.load_state_dict(plain.state_dict())
    shared.share(sequence)
    calls, fewer = pieces_run(plain.vae), pieces_run(shared.vae)
    draw = torch.Generator().manual_seed(6)
    for frames, tiling in ((1, False), (5, False), (21, False), (33, False), (33, True)):
        config.decoder.vae_tiling = tiling
        for vae in (plain.vae, shared.vae):
            vae.tile_sample_min_height = vae.tile_sample_min_width = 32
            vae.tile_sample_stride_height = vae.tile_sample_stride_width = 16
            vae.use_tiling = tiling
        video = torch.randint(0, 256, (2, frames, 3, 32, 96), dtype=torch.uint8, generator=draw)
        ours, theirs = (decoder.encode(video) for decoder in (shared, plain))
        assert torch.equal(ours.mean, theirs.mean) and torch.equal(ours.std, theirs.std)
        with torch.no_grad():
            ours, theirs = (decoder.vae.decode(theirs.mean, return_dict=False)[0] for decoder in (shared, plain))
        assert torch.equal(ours, theirs) and ours.shape == (2, 3, frames, 32, 96)
    assert len(fewer) < 0.7 * len(calls)


KINDS = {
    "hunyuan": model_config,
    "wan": wan_config,
    "wan_experts": partial(wan_config, weights="wan_experts", expert="high_noise"),
}
for what in wanted:
    kind, *rest = what.split(":")
    if kind == "exchanges":
        exchanges()
    elif rest == ["autoencoder"]:
        autoencoders(kind)
    else:
        decoder(KINDS[kind], bool(rest))
    print(f"RANK {sequence.rank}: {what} agrees", flush=True)
