"""VidTwin against a plain rewrite of its published arithmetic, on the same random weights; its checkpoint's layout."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from data_tools.shapes import render_clips
from data_tools.video.decode import validate
from pipelines import reconstruct_vidtwin
from vtok.config import ConfigError
from vtok.vidtwin import VidTwin, VidTwinConfig, load_model
from vtok.weights.own_folder import save_weights

SMALL = dict(
    frames=4, side=24, patch=8, width=32, depth=2, heads=2, queries=5, query_width=16, structure_channels=3,
    dynamics_channels=2,
)  # fmt: skip


def small(**changes):
    """A VidTwin of which every weight is random, the gates and norms too."""
    torch.manual_seed(0)
    model = load_model(**SMALL | changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(max(parameter.shape[-1], 4)))
    return model


def clip(frames=4, side=24, seed=1):
    return torch.rand(2, 3, frames, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Plain:
    """The published arithmetic, place by place: sequences are (B (T S), C), softmax and masks are written out."""

    def __init__(self, model):
        self.c, self.p = model.config, {name: value.detach() for name, value in model.named_parameters()}

    def linear(self, name, x):
        return x @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def conv(self, name, x, stride=1):
        return F.conv2d(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"], stride, 1)

    def norm(self, x, shift, scale):
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-6)
        return x * (1 + scale) + shift

    def attention(self, name, x, heads, causal):
        n, length, width = x.shape
        q, k, v = self.linear(f"{name}.qkv", x).view(n, length, 3, heads, -1).unbind(2)
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(width // heads)
        if causal:
            scores += torch.full((length, length), -math.inf).triu(1)
        return self.linear(
            f"{name}.proj", torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), v).reshape(n, length, -1)
        )

    def blocks(self, half, x):
        c, tokens = self.c, self.c.grid**2
        x = x + torch.from_numpy(np.concatenate([self.waves(c.width // 2, axis) for axis in (1, 0)], 1)).float()
        for number in range(c.depth):
            name = f"{half}.blocks.{number}"
            rows = self.p[f"{name}.scale_shift_table"]
            for b in range(len(x)):
                y = self.attention(f"{name}.attn", self.norm(x[b], rows[0], rows[1]), c.heads, causal=False)
                x[b] = x[b] + rows[2] * y
                times = x[b].transpose(0, 1)
                if number == 0:
                    times = times + torch.from_numpy(self.wave(c.width, np.arange(c.frames))).float()
                y = self.attention(f"{name}.attn_temp", times, c.heads, causal=True)
                x[b] = x[b] + rows[2] * y.transpose(0, 1)
                hidden = self.linear(f"{name}.mlp.fc1", self.norm(x[b], rows[3], rows[4]))
                x[b] = x[b] + rows[5] * self.linear(f"{name}.mlp.fc2", F.gelu(hidden, approximate="tanh"))
        assert x.shape[2] == tokens
        return x

    def wave(self, width, at):
        omega = 1 / 10000 ** (np.arange(width // 2) / (width / 2))
        return np.concatenate([np.sin(np.outer(at, omega)), np.cos(np.outer(at, omega))], 1)

    def waves(self, width, axis):
        return self.wave(width, np.indices((self.c.grid, self.c.grid))[axis].reshape(-1))

    def qformer(self, x):
        out, p = self.p["temporal_qformer.query_embeds"].expand(len(x), -1, -1), "temporal_qformer.qformer"

        def norm(name, x):
            return F.layer_norm(x, x.shape[-1:], self.p[f"{name}.weight"], self.p[f"{name}.bias"], 1e-12)

        def seen(name, x, memory):
            q, k, v = (
                self.linear(f"{name}.attention.{part}", y).unflatten(-1, (8, -1)).transpose(1, 2)
                for part, y in (("query", x), ("key", memory), ("value", memory))
            )
            scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
            found = self.linear(f"{name}.output.dense", (scores @ v).transpose(1, 2).flatten(2))
            return norm(f"{name}.output.LayerNorm", found + x)

        out = norm(f"{p}.layernorm", out)
        for number in range(6):
            name = f"{p}.encoder.layer.{number}"
            out = seen(f"{name}.attention", out, out)
            if number % 2 == 0:
                out = seen(f"{name}.crossattention", out, x)
            hidden = F.gelu(self.linear(f"{name}.intermediate_query.dense", out))
            out = norm(f"{name}.output_query.LayerNorm", self.linear(f"{name}.output_query.dense", hidden) + out)
        return out

    def encode(self, x):
        """Means of structure (B, F, h, w, C), of columns (B, C, T, w) and of rows (B, C, T, h)."""
        c, g = self.c, self.c.grid
        z = F.conv3d(
            x, self.p["encoder.x_embedder.proj.weight"], self.p["encoder.x_embedder.proj.bias"],
            (1, c.patch, c.patch),
        )  # fmt: skip
        z = self.blocks("encoder", z.flatten(3).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).unflatten(3, (g, g))
        queries = self.qformer(z.permute(0, 3, 4, 2, 1).reshape(-1, c.frames, c.width))
        images = queries.view(-1, g, g, c.queries, c.query_width).permute(0, 3, 4, 1, 2).flatten(0, 1)
        down = F.relu(self.conv("content_downsample_blocks.0", self.conv("conv_in", images), 2))
        moments = self.conv("bottle_down", down)
        structure = moments[:, : c.structure_channels].unflatten(0, (-1, c.queries)).permute(0, 1, 3, 4, 2)
        frames = z.transpose(1, 2).flatten(0, 1)
        frames = F.relu(self.conv("downsample_motion_module.0", frames, 2)).unflatten(0, (-1, c.frames)).transpose(1, 2)
        parts = [self.conv("motion_head", frames.mean(axis))[:, : c.dynamics_channels] for axis in (3, 4)]
        return structure, *parts

    def decode(self, structure, columns, rows):
        c, g = self.c, self.c.grid
        images = F.relu(self.conv("bottle_up.0", structure.flatten(0, 1).movedim(-1, 1)))
        images = F.relu(self.conv("content_upsample_blocks.0", images))
        images = self.conv("conv_out", images.repeat_interleave(2, 2).repeat_interleave(2, 3))
        border = (images.shape[2] - g) // 2
        images = images[:, :, border : border + g, border : border + g].unflatten(0, (-1, c.queries))
        queries = F.relu(self.linear("cont_emb.0", images.permute(0, 3, 4, 1, 2)))  # (B, h, w, F, C)
        mixed = torch.einsum("tf,bhwfc->bhwtc", self.p["cont_emb.2.weight"][:, :, 0], queries)
        total = F.relu(mixed + self.p["cont_emb.2.bias"][:, None]).permute(0, 3, 1, 2, 4)
        for moving, axis in ((columns, 2), (rows, 3)):
            y = F.relu(self.linear("motion_emb.0", moving.permute(0, 2, 3, 1)))
            y = F.relu(self.linear("motion_emb.2", y)).transpose(2, 3)
            y = F.relu(self.linear("up_motion.2", F.relu(self.linear("up_motion.0", y)))).transpose(2, 3)
            total = total + y.unsqueeze(axis)
        x = self.blocks("decoder", total.flatten(2, 3))
        rows = self.p["decoder.final_layer.scale_shift_table"]
        x = self.linear("decoder.final_layer.linear", self.norm(x, rows[0], rows[1]))
        x = x.view(len(x), c.frames, g, g, c.patch, c.patch, 3)
        return torch.einsum("bthwpqc->bcthpwq", x).reshape(len(x), 3, c.frames, c.side, c.side)


@torch.no_grad()
@pytest.mark.parametrize("side", [24, 32])  # an odd grid is cut after doubling, an even one is not
def test_equal_to_the_plain_arithmetic(side):
    model, x = small(side=side).double(), clip(side=side).double()
    plain = Plain(model)
    latents = model.encode(x)
    structure, columns, rows = plain.encode(x)
    for ours, theirs in zip(latents, (structure, columns.permute(0, 2, 3, 1), rows.permute(0, 2, 3, 1))):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    frames = model.decode(latents)
    torch.testing.assert_close(frames, plain.decode(structure, columns, rows), rtol=1e-8, atol=1e-8)
    assert frames.std() > 0.1


def test_the_published_sizes():
    with torch.device("meta"):
        model, x = VidTwin(VidTwinConfig()).eval(), torch.empty(1, 3, 16, 224, 224)
        structure, columns, rows = model.encode(x)
        assert model.decode(model.encode(x)).shape == x.shape
    assert structure.shape == (1, 16, 7, 7, 8) and columns.shape == rows.shape == (1, 16, 7, 8)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["temporal_qformer.query_embeds"] == (16, 64)
    assert shapes["temporal_qformer.qformer.encoder.layer.4.crossattention.attention.key.weight"] == (64, 768)
    assert shapes["encoder.blocks.15.attn_temp.qkv.weight"] == (2304, 768)
    assert shapes["decoder.final_layer.linear.weight"] == (768, 768) and shapes["up_motion.0.weight"] == (14, 7)
    assert shapes["motion_head.weight"] == (16, 768, 3, 3) and shapes["bottle_down.weight"] == (16, 256, 3, 3)
    assert shapes["cont_emb.2.weight"] == (16, 16, 1)


@torch.no_grad()
def test_dynamics_of_another_clip_and_short_clips():
    model = small()
    one, other = model.encode(clip()), model.encode(clip(seed=2))
    mixed = one.with_dynamics_of(other)
    assert torch.equal(mixed.structure, one.structure) and torch.equal(mixed.rows, other.rows)
    frames = model.decode(mixed)
    assert (frames - model.decode(one)).abs().max() > 1e-3 and (frames - model.decode(other)).abs().max() > 1e-3
    short = clip(frames=3)
    _, reconstruction, log = model(short)
    held = torch.cat([short, short[:, :, -1:]], dim=2)
    assert torch.equal(reconstruction, model.decode(model.encode(held))[:, :, :3]) and log["kl_loss"] > 0
    with pytest.raises(ConfigError, match="takes 4 frames of 24x24, not 4 of 32x32"):
        model.encode(clip(side=32))
    with pytest.raises(ConfigError, match="takes 4 frames of 24x24, not 5"):
        model(clip(frames=5))


def test_gradients_reach_every_parameter():
    model = small().train()
    _, reconstruction, log = model(clip())
    (reconstruction.square().mean() + 1e-3 * log["kl_loss"]).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_checkpoint_of_the_published_layout_loads(tmp_path):
    """It also stores layers that are never called, positions, and the losses."""
    model = small()
    state = model.state_dict() | {
        "encoder.final_layer.linear.weight": torch.ones(2), "decoder.x_embedder.proj.bias": torch.ones(2),
        "encoder.pos_embed": torch.ones(1, 9, 32), "decoder.pos_embed_temporal": torch.ones(1, 4, 32),
        "loss.logvar": torch.ones(()),
    }  # fmt: skip
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "x.ckpt")
    loaded = load_model(tmp_path / "x.ckpt", **SMALL)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    save_weights(loaded, tmp_path / "x.safetensors")
    load_model(tmp_path / "x.safetensors", **SMALL)
    with pytest.raises(ConfigError, match=r"bottle_down.bias should be \(8,\), found \(6,\)"):
        load_model(tmp_path / "x.safetensors", **SMALL | {"structure_channels": 4})
    with pytest.raises(ConfigError, match="is not a multiple of patches"):
        load_model(side=225)


def test_the_command_reconstructs_and_mixes(tmp_path, capsys):
    render_clips(tmp_path / "clips", 2, seed=3)
    one, other = sorted((tmp_path / "clips").glob("*.mp4"))
    small_enough = SMALL | {"side": 32, "depth": 1}
    save_weights(small(side=32, depth=1), tmp_path / "x.safetensors")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small_enough))
    command = ["--checkpoint", str(tmp_path / "x.safetensors"), "--config", str(tmp_path / "small.yaml")]
    command += ["--input", str(one), "--output-dir", str(tmp_path / "out")]
    reconstruct_vidtwin.main(command)
    assert re.search(r"PSNR \d+\.\d\d dB, SSIM ", capsys.readouterr().out)
    reconstruct_vidtwin.main([*command, "--dynamics-of", str(other)])
    for name, width in (("reconstruction", 32), (f"with_dynamics_of_{other.stem}", 32), ("side_by_side", 96)):
        facts = validate(tmp_path / "out" / f"{one.stem}_{name}.mp4")
        assert (facts.frames, facts.height, facts.width) == (round(validate(one).duration * 8), 32, width)
    (tmp_path / "small.yaml").write_text("depht: 1\n")
    with pytest.raises(SystemExit) as exit:
        reconstruct_vidtwin.main(command)
    assert exit.value.code == 2
    assert capsys.readouterr().err == (
        "reconstruct_vidtwin: error: a VidTwin has no setting depht; did you mean depth?\n"
    )
