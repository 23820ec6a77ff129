"""A causal video in chunks gives the same result as at once, for all lengths and sizes of chunks."""

import pytest
import torch
from torch import nn

from pipelines.benchmarks.vidtok_plain import PlainVidTok
from support.vidtok import random_video, small_model
from vtok.config import ConfigError

CAUSAL = [
    "vidtok_kl_causal_488_4chn", "vidtok_kl_causal_288_8chn", "vidtok_kl_causal_288_8chn_v1_1",
    "vidtok_kl_causal_488_4chn_v1_1", "vidtok_fsq_causal_888_32768_v1_1",
]  # fmt: skip


@pytest.mark.parametrize(
    "lengths", [(1, 2, 3, 7, 8, 9, 16, 29), pytest.param(range(1, 41), marks=pytest.mark.long, id="all")]
)
@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_any_length_in_chunks_is_as_at_once_and_comes_back_whole(name, lengths):
    """Lengths include 1, an image. Each length is cut into chunks of other sizes."""
    model = small_model(name, ch=8, num_res_blocks=1)
    for frames in lengths:
        x = random_video(frames, size=16)
        _, at_once, _ = model(x)
        assert at_once.shape == x.shape
        in_chunks = torch.cat(list(model.reconstruct(x.split(5 + frames % 7, dim=2), frames)), dim=2)
        torch.testing.assert_close(in_chunks, at_once, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_latents_and_all_frames_of_them_are_the_same_in_chunks_of_any_size(name):
    """Also compares the padding's frames, which ``model(x)`` cuts off, and lengths of which v1.0 loses frames."""
    model = small_model(name, ch=8)
    for frames, size in ((1, 1), (13, 1), (16, 3), (17, 9), (24, 5)):
        x = random_video(frames, size=16)
        z, state = model.encode(x), model.start_encoding(frames)
        assert z.shape[2] == model.config.latent_frames(frames)
        latents = [model.encode(chunk, state=state) for chunk in x.split(size, dim=2)]
        torch.testing.assert_close(torch.cat(latents, dim=2), z, atol=1e-5, rtol=0)
        state = model.start_decoding(z.shape[2])
        decoded = [model.decode(chunk, state=state) for chunk in z.split(1 + size % 3, dim=2)]
        torch.testing.assert_close(torch.cat(decoded, dim=2), model.decode(z), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_noncausal_model_gives_every_length_back_too():
    model = small_model("vidtok_kl_noncausal_488_4chn", ch=8, num_res_blocks=1)
    for frames in range(1, 41):
        x = random_video(frames, size=16)
        assert model(x)[1].shape == x.shape
    assert torch.equal(model(x)[1], model.decode(model.encode(x)))  # 40 frames need no padding


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_tiling_changes_nothing(name):
    model, x = small_model(name), random_video(27)
    at_once = model(x)
    model.use_tiling, model.t_chunk_enc, model.t_chunk_dec = True, 8, 2
    in_chunks = model(x)
    for index in (0, 1):
        torch.testing.assert_close(in_chunks[index], at_once[index], atol=1e-5, rtol=0)
    for key, value in at_once[2].items():
        torch.testing.assert_close(in_chunks[2][key], value)


@torch.no_grad()
def test_the_reconstruction_ends_with_what_the_published_model_gives():
    """v1.0: the published model reconstructs 4k + 1 frames whole and loses frames of other lengths."""
    model, x = small_model("vidtok_kl_causal_488_4chn"), random_video(17)
    plain = PlainVidTok(model)
    torch.testing.assert_close(model(x)[1], plain.decode(plain.encode(x).chunk(2, 1)[0]), atol=1e-4, rtol=0)
    assert plain.decode(plain.encode(random_video(16)).chunk(2, 1)[0]).shape[2] == 13


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_a_state_carries_only_what_is_needed(name):
    """A layer over time keeps at most two frames, as copies; less video is kept than makes a latent frame.

    A layer that interpolates keeps the last frame of each of its three taps, and the frames by which two are delayed.
    """
    model = small_model(name, ch=8)
    x, factor = random_video(40, size=16), model.config.time_factor
    state = model.start_encoding(100)
    model.encode(x, state=state)
    assert kept(state) == kept_after(model, x[:, :, :24])
    assert state.pending.shape[1] < factor and owns_its_memory(state.pending)
    assert all(past.shape[1] <= 2 and owns_its_memory(past) for past in state.stream.kept.values())
    decoding = model.start_decoding(40)
    model.decode(model.encode(x), state=decoding)
    assert all(past.shape[1] <= 2 and owns_its_memory(past) for past in decoding.stream.kept.values())
    causal = [part for part in model.decoder.modules() if getattr(part, "past", 0)]
    interpolating = [part for part in model.decoder.modules() if type(part).__name__ == "InterpolatedTimeUp"]
    assert len(decoding.stream.kept) == len(causal) + (3 + 2) * len(interpolating)


def kept(state) -> int:
    return sum(past.nbytes for past in state.stream.kept.values())


def kept_after(model: nn.Module, x: torch.Tensor) -> int:
    state = model.start_encoding(100)
    model.encode(x, state=state)
    return kept(state)


def owns_its_memory(x: torch.Tensor) -> bool:
    return x.untyped_storage().nbytes() == x.nbytes


@torch.no_grad()
def test_a_finished_pass_keeps_nothing():
    model = small_model("vidtok_kl_causal_488_4chn_v1_1", ch=8)
    state = model.start_encoding(9)
    for chunk in random_video(9, size=16).split(5, dim=2):
        model.encode(chunk, state=state)
    assert not state.stream.kept


@torch.no_grad()
def test_chunks_beyond_the_end_are_refused():
    model = small_model("vidtok_kl_causal_488_4chn", ch=8)
    state = model.start_encoding(9)
    with pytest.raises(ConfigError, match="has 10 frames, but the video has 9 left"):
        model.encode(random_video(10, size=16), state=state)
    with pytest.raises(ConfigError, match="cut the video into clips of a multiple of 4 frames"):
        small_model("vidtok_kl_noncausal_488_4chn", ch=8).start_encoding(8)


# ---------------------------------------------------------------- the published way


@torch.no_grad()
def published_chunks(plain: PlainVidTok, z: torch.Tensor, size: int) -> torch.Tensor:
    """The published models' decoding of overlapping chunks, written out layer by layer on (B, C, T, H, W)."""
    memory, ahead, first = {}, 0, True

    class Chunked(PlainVidTok):
        def __init__(self):
            self.config, self.parameters, self.rate, self.calls = plain.config, plain.parameters, 1, 0

        def padded(self, x, past):
            key, self.calls = self.calls, self.calls + 1
            before = (
                x[:, :, :1].repeat(1, 1, past, 1, 1)[:, :, :past] if x.ndim == 5 else x[:, :, :1].repeat(1, 1, past)
            )
            x = torch.cat([before if first else memory[key], x], dim=2)
            end = x.shape[2] - ahead * self.rate
            memory[key] = x[:, :, end - past : end]
            return x

        def double(self, name, x, rate):
            alpha = self.parameters[f"{name}.mix_factor"].sigmoid()
            if first:
                memory[name] = x[:, :, -rate:]
                parts = [x[:, :, :rate], x[:, :, rate:]]
                x = torch.cat([interpolated(part) for part in parts if part.shape[2]], dim=2)
            else:
                x = torch.cat([memory[name], x], dim=2)
                memory[name] = x[:, :, -2 * rate : -rate]
                x = interpolated(x)[:, :, 2 * rate :]
            self.rate *= 2
            return alpha * x + (1 - alpha) * self.conv3d(f"{name}.conv", x)

    frames, start = [], 0
    while start < z.shape[2]:
        end = min(start + (size if start else 1), z.shape[2])
        ahead = int(end < z.shape[2])
        chunk = Chunked().decode(z[:, :, start : end + ahead])
        frames.append(chunk[:, :, : chunk.shape[2] - ahead * plain.config.time_factor])
        start, first = end, False
    return torch.cat(frames, dim=2)


def interpolated(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(x, scale_factor=(2.0, 1.0, 1.0), mode="trilinear")


@torch.no_grad()
def test_upstream_compat_decodes_as_the_published_models_do_in_chunks():
    """Every frame is the published models', which differs a little from decoding at once."""
    model = small_model("vidtok_kl_causal_488_4chn_v1_1")
    z = 3 * torch.randn(1, 4, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    at_once = model.decode(z)
    model.use_tiling, model.t_chunk_dec, model.upstream_compat = True, 2, True
    overlapping = model.decode(z)
    torch.testing.assert_close(overlapping, published_chunks(PlainVidTok(model), z, 2), atol=1e-5, rtol=0)
    assert 1e-2 < (overlapping - at_once).abs().max() < 0.5
    state = model.start_decoding(z.shape[2])  # with a state, decoding is always exact
    in_chunks = torch.cat([model.decode(chunk, state=state) for chunk in z.split(3, dim=2)], dim=2)
    torch.testing.assert_close(in_chunks, at_once, atol=1e-5, rtol=0)
    assert state.latents_left == 0
    model.use_overlap = False
    assert (model.decode(z) - at_once).abs().max() > (overlapping - at_once).abs().max()
    model.upstream_compat = False
    torch.testing.assert_close(model.decode(z), at_once, atol=1e-5, rtol=0)
