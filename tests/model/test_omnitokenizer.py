"""OmniTokenizer: layout of the published checkpoints, layers against plain rewrites, the strategy."""

from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F

from support.tiny import model_config, with_strategy
from vtok.config import ConfigError, VTokConfig
from vtok.feature_extractor import build_feature_extractor
from vtok.omnitokenizer import Encoding, OmniTokenizer, OmniTokenizerConfig, omni_config
from vtok.omnitokenizer.checkpoint import save_folder
from vtok.omnitokenizer.layers import Attention, Surroundings, WindowAttention
from vtok.omnitokenizer.model import Patches, Pixels, initialise, to_model, whole_patches
from vtok.tokeniser import build_tokeniser
from vtok.tokeniser.omnitokenizer import cells

SMALL = dict(
    resolution=32, patch_size=8, twod_window_size=2, embedding_dim=24, heads=2, dim_head=12, n_codes=32,
    temporal_depth=1, enc_block="tw", dec_block="t",
)  # fmt: skip


def published_names(config: OmniTokenizerConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published encoder's and codebook's tensors, written from its source, module by module."""
    dim, inner, pixels = config.embedding_dim, config.heads * config.dim_head, 3 * config.patch_size**2
    wide = int(config.ff_mult * (2 / 3) * dim)
    found: dict[str, tuple[int, ...]] = {}
    for name, width in (("first_frame", pixels), ("", pixels * config.temporal_patch_size)):
        at = "encoder.to_patch_emb" + ("_" + name if name else "")
        found |= {f"{at}.1.weight": (width,), f"{at}.1.bias": (width,), f"{at}.2.weight": (dim, width)}
        found |= {f"{at}.2.bias": (dim,), f"{at}.3.weight": (dim,), f"{at}.3.bias": (dim,)}
    spatial, temporal = config.enc_block, "t" * config.temporal_depth
    for transformer, blocks in (("enc_spatial_transformer", spatial), ("enc_temporal_transformer", temporal)):
        found[f"encoder.{transformer}.norm_out.gamma"] = (dim,)
        for index, block in enumerate(blocks):
            at = f"encoder.{transformer}.layers.{index}"
            found |= {f"{at}.1.norm.gamma": (dim,), f"{at}.3.0.weight": (dim,), f"{at}.3.0.bias": (dim,)}
            found |= {f"{at}.3.1.weight": (2 * wide, dim), f"{at}.3.4.weight": (dim, wide)}
            if block == "w":
                window = (2 * config.twod_window_size - 1) ** 2
                found |= {f"{at}.1.relative_position_bias_table": (window, config.heads)}
                found |= {f"{at}.1.qkv.weight": (3 * dim, dim)}
                found |= {f"{at}.1.proj.weight": (dim, dim), f"{at}.1.proj.bias": (dim,)}
            else:
                found |= {f"{at}.0.dsconv.weight": (dim, 1, 3, 3, 3), f"{at}.0.dsconv.bias": (dim,)}
                found |= {f"{at}.1.to_q.weight": (inner, dim), f"{at}.1.to_kv.weight": (2 * inner, dim)}
                found |= {f"{at}.1.q_scale": (config.dim_head,), f"{at}.1.k_scale": (config.dim_head,)}
                found |= {f"{at}.1.to_out.weight": (dim, inner)}
    found |= {"pre_vq_conv.1.weight": (config.codebook_dim, dim), "pre_vq_conv.1.bias": (config.codebook_dim,)}
    return found | {"codebook.embeddings": (config.n_codes, config.codebook_dim)}


# What a published file holds besides; none of it changes a code.
BESIDES = ("encoder.enc_spatial_transformer.norm_out.beta", "codebook.N", "image_discriminator.model0.0.weight")


def write_published(path, config: OmniTokenizerConfig, **arguments) -> dict[str, torch.Tensor]:
    """A file of the published form, with random weights."""
    state = {name: torch.randn(shape) for name, shape in published_names(config).items()}
    more = {name: torch.zeros(3) for name in BESIDES}
    given = (
        vars(config) | dict(patch_embed="linear", l2_code=True, lr=1e-3, data_path=["x"], spatial_depth=4) | arguments
    )
    torch.save({"state_dict": state | more, "epoch": 3, "hyper_parameters": {"args": Namespace(**given)}}, path)
    return state


def test_the_published_architecture_has_the_published_names():
    with torch.device("meta"):
        encoding = Encoding(OmniTokenizerConfig())
    assert {name: tuple(p.shape) for name, p in encoding.named_parameters()} == published_names(OmniTokenizerConfig())


@torch.no_grad()
def test_a_file_of_the_published_form_loads(tmp_path):
    config = omni_config(SMALL)
    state = write_published(tmp_path / "imagenet_k600.ckpt", config)
    settings = VTokConfig(backbone="omnitokenizer", weights=str(tmp_path / "imagenet_k600.ckpt"), spatial_grid_size=2)
    extractor = build_feature_extractor(settings)
    assert extractor.tokenizer.config == config and extractor.image_size == 32 and extractor.width == 8
    loaded = dict(extractor.tokenizer.named_parameters())
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
    assert extractor(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)).shape == (2, 4, 4, 8)


@pytest.mark.parametrize("change", [dict(use_vae=True), dict(patch_embed="cnn"), dict(l2_code=False)])
def test_other_kinds_of_published_files_are_refused(tmp_path, change):
    write_published(tmp_path / "x.ckpt", omni_config(SMALL), **change)
    with pytest.raises(ConfigError, match=f"has {next(iter(change))}"):
        build_feature_extractor(VTokConfig(backbone="omnitokenizer", weights=str(tmp_path / "x.ckpt")))


def test_what_is_no_omnitokenizer_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    (tmp_path / "config.json").write_text("{}")
    for weights, message in (
        (tmp_path / "x.ckpt", "not a checkpoint of OmniTokenizer"),
        (tmp_path, "writes such folders"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_feature_extractor(VTokConfig(backbone="omnitokenizer", weights=str(weights)))
    with pytest.raises(ConfigError, match="there is no y.ckpt"):
        build_feature_extractor(VTokConfig(backbone="omnitokenizer", weights=str(tmp_path / "y.ckpt")))
    with pytest.raises(ConfigError, match="has no setting resolutions"):
        omni_config(dict(resolutions=3))


def test_patches_are_cut_and_joined():
    video = torch.rand(2, 3, 8, 16, 24)
    patches = Patches(4, 8)(video)
    assert patches.shape == (2, 2, 2, 3, 3 * 4 * 64)
    assert torch.equal(patches[1, 1, 0, 2], video[1, :, 4:, :8, 16:].flatten())
    assert torch.equal(Pixels(4, 8)(patches), video)
    assert [whole_patches(frames, 4) for frames in (1, 2, 5, 6, 31)] == [1, 5, 5, 9, 33]


@torch.no_grad()
def test_attention_is_that_of_the_published_code():
    """Against plain sums: cosines times 8, keys of the input before its norm, places turned in pairs (RoPE)."""
    config = OmniTokenizerConfig(**SMALL)
    attention, x = Attention(config, causal=False), torch.randn(2, 16, 24)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    heads, width, rows = 2, 12, []
    q = attention.to_q(F.layer_norm(x, (24,), attention.norm.gamma))
    k, v = attention.to_kv(x).chunk(2, -1)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        angle = torch.zeros(16, width // 2)
        for place in range(16):
            for pair in range(width // 2):
                axis = place % 4 if pair % 2 == 0 else place // 4
                angle[place, pair] = axis / 10000 ** (4 * (pair // 2) / width)
        turn = torch.polar(torch.ones_like(angle), angle)
        turned = [
            torch.view_as_real(
                torch.view_as_complex(part[..., own].contiguous().unflatten(-1, (-1, 2))) * turn
            ).flatten(-2)
            for part in (q, k)
        ]
        cosine = (F.normalize(turned[0], dim=-1) * attention.q_scale) @ (
            F.normalize(turned[1], dim=-1) * attention.k_scale
        ).transpose(1, 2)
        rows.append((8 * cosine).softmax(-1) @ v[..., own])
    torch.testing.assert_close(attention(x, 4), x + attention.to_out(torch.cat(rows, -1)), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_windows_see_themselves_alone_with_a_bias_for_each_distance():
    config = OmniTokenizerConfig(**SMALL)
    attention, x = WindowAttention(config), torch.randn(1, 16, 24)
    whole = attention(x, 4)
    changed = x.clone()
    changed[0, 0] += 1  # in the window of rows 0, 1 and columns 0, 1
    differs = (attention(changed, 4) != whole).any(-1)[0].nonzero().flatten().tolist()
    assert differs == [0, 1, 4, 5]
    q, k, v = attention.qkv(attention.norm(x[:, [2, 3, 6, 7]])).chunk(3, -1)
    places, rows = [(0, 0), (0, 1), (1, 0), (1, 1)], []
    for head in range(2):
        own = slice(12 * head, 12 * head + 12)
        bias = torch.tensor(
            [
                [attention.relative_position_bias_table[(a - c + 1) * 3 + (b - d + 1), head] for c, d in places]
                for a, b in places
            ]
        )
        rows.append((q[..., own] @ k[..., own].transpose(1, 2) / 12**0.5 + bias).softmax(-1) @ v[..., own])
    expected = x[:, [2, 3, 6, 7]] + attention.proj(torch.cat(rows, -1))
    torch.testing.assert_close(whole[:, [2, 3, 6, 7]], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_no_latent_of_a_frame_depends_on_later_ones_in_space_and_attention():
    """Without the convolution over time, whose published order mixes frames (see Surroundings)."""
    model = OmniTokenizer(omni_config(SMALL)).eval()
    for layer in model.encoder.enc_temporal_transformer.modules():
        if isinstance(layer, Surroundings):
            torch.nn.init.zeros_(layer.dsconv.weight)
    video = torch.rand(1, 3, 9, 32, 32) - 0.5
    changed = video.clone()
    changed[:, :, 5:] = 0
    latents, others = model.latents(video), model.latents(changed)
    assert torch.allclose(latents[:, :2], others[:, :2], atol=1e-6)
    assert not torch.allclose(latents[:, 2], others[:, 2], atol=1e-3)
    assert torch.allclose(model.latents(video[:, :, :1]), latents[:, :1], atol=1e-6)  # an image is a first frame


def test_a_small_one_learns_images_and_videos_jointly():
    torch.manual_seed(0)
    model = OmniTokenizer(omni_config(SMALL))
    initialise(model)
    video = (torch.rand(4, 3, 1, 1, 1) - 0.5).expand(4, 3, 5, 32, 32)  # four colours
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(40):
        optimiser.zero_grad()
        losses = model.training_losses(video)
        losses["loss"].backward()
        optimiser.step()
        curve.append({name: value.item() for name, value in losses.items()})
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    for loss in ("loss_rec", "loss_image"):
        assert curve[-1][loss] < 0.5 * curve[0][loss]


def test_cells_keep_means_of_their_parts():
    latents = torch.arange(64.0).view(1, 8, 8, 1)
    pooled = cells(latents, 2, 2)
    assert pooled.shape == (1, 4, 4)
    assert pooled[0, 1].tolist() == [latents[0, r : r + 2, c : c + 2].mean() for r in (0, 2) for c in (4, 6)]
    torch.testing.assert_close(cells(latents, 2, 1)[..., 0], pooled.mean(-1))


@torch.no_grad()
def test_five_seconds_cost_48_tokens_and_clips_keep_to_themselves(tiny_models):
    config = with_strategy(model_config(tiny_models), tiny_models, strategy="omnitokenizer").tokeniser
    tokeniser = build_tokeniser(config)
    assert tokeniser.counts(31) == tokeniser.counts(121, fps=24) == (16, 32) and tokeniser.counts(1) == (16, 0)
    frames = torch.randint(0, 256, (2, 9, 3, 64, 64), dtype=torch.uint8)
    features = tokeniser.features(frames, [9, 6])
    assert features.motion_counts == [8, 8] and features.spatial.shape == (2, 16, 8)
    filled = frames[1:].clone()
    filled[:, 6:] = frames[1, 5]
    alone = tokeniser.features(filled)
    assert torch.equal(features.spatial[1:], alone.spatial) and torch.equal(features.motion[1:], alone.motion)
    _, vectors = tokeniser.codec.tokenizer(to_model(frames[:1]))
    torch.testing.assert_close(features.spatial[0], vectors[0, 0].view(4, 2, 4, 2, 8).mean((1, 3)).flatten(0, 1))


def test_settings_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs tokeniser.backbone omnitokenizer"):
        VTokConfig(strategy="omnitokenizer")
    with pytest.raises(ConfigError, match="first frame as key frame"):
        VTokConfig(strategy="omnitokenizer", backbone="omnitokenizer", key_frame_idx=3)
    save_folder(OmniTokenizer(omni_config(SMALL)), tmp_path / "codec")
    with pytest.raises(ConfigError, match="at most 4, its patches"):
        build_feature_extractor(
            VTokConfig(backbone="omnitokenizer", weights=str(tmp_path / "codec"), spatial_grid_size=5)
        )
