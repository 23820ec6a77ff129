"""``evaluate.py vidtok``: its measures against references written out here, and the frames that they cover."""

import json
import math

import pytest
import torch
import yaml

from data_tools.errors import DataError
from data_tools.shapes import render_clips
from data_tools.video.files import list_videos
from pipelines import evaluate
from pipelines.evaluation.vidtok_scores import long_reconstruction, reconstructions, scores_of, unit_range
from pipelines.vidtok_training.clips import read_clips
from support.vidtok import lpips_files, small_model
from vtok.config import ConfigError
from vtok.vidtok import metrics, model
from vtok.vidtok.losses.perceptual import LPIPS, load_lpips
from vtok.vidtok.upstream_compat import decode_overlapping
from vtok.weights.own_folder import save_weights

NAME = "vidtok_kl_causal_488_4chn"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 2, seed=3)
    return folder


def pictures(count=2, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_known_error():
    x = torch.full((3, 3, 4, 4), 0.5)
    y = x + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)
    torch.testing.assert_close(metrics.psnr(x, y), torch.tensor([20.0, 40.0, 100.0]), rtol=1e-4, atol=1e-3)


def test_ssim_window_by_window():
    """Computes the definition in fp64, one window and one channel at a time."""
    x, y = pictures(seed=1).double(), pictures(seed=2).double()
    y = 0.7 * x + 0.3 * y
    line = torch.tensor([math.exp(-(offset**2) / (2 * 1.5**2)) for offset in range(-5, 6)], dtype=torch.float64)
    weight = torch.outer(line, line)
    weight /= weight.sum()
    for number, found in enumerate(metrics.ssim(x, y)):
        values = []
        for channel in range(3):
            for top in range(6):
                for left in range(6):
                    a, b = (one[number, channel, top : top + 11, left : left + 11] for one in (x, y))
                    mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
                    var_a, var_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
                    both = (weight * (a - mean_a) * (b - mean_b)).sum()
                    c1, c2 = 0.01**2, 0.03**2
                    top_part = (2 * mean_a * mean_b + c1) * (2 * both + c2)
                    values.append(top_part / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
        assert found.item() == pytest.approx(torch.stack(values).mean().item(), abs=1e-10)
    torch.testing.assert_close(metrics.ssim(x, x), torch.ones(2).double())


def test_lpips_layer_by_layer(tmp_path):
    """Builds VGG-16 as a plain list of layers with torchvision's numbers, and applies the paper's equation 1."""
    vgg, linear = lpips_files(tmp_path)
    layers, widths = [], [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512]
    for width in widths:
        if width == "M":
            layers.append(torch.nn.MaxPool2d(2))
        else:
            conv = torch.nn.Conv2d(vgg[f"features.{len(layers)}.weight"].shape[1], width, 3, padding=1)
            conv.load_state_dict({name: vgg[f"features.{len(layers)}.{name}"] for name in ("weight", "bias")})
            layers += [conv, torch.nn.ReLU()]
    taps = [index - 1 for index, width in enumerate(layers) if isinstance(width, torch.nn.MaxPool2d)] + [29]
    x, y = pictures(size=32, seed=1) * 2 - 1, pictures(size=32, seed=2) * 2 - 1
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    a, b = ((one - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for one in (x, y))
    expected = torch.zeros(2)
    with torch.no_grad():
        for index, layer in enumerate(layers):
            a, b = layer(a), layer(b)
            if index in taps:
                units = [one / one.square().sum(1, keepdim=True).sqrt() for one in (a, b)]
                weight = linear[f"lin{taps.index(index)}.model.1.weight"]
                expected += (weight * (units[0] - units[1]) ** 2).sum(1).mean((1, 2))
    lpips = load_lpips(tmp_path / "vgg.pth", tmp_path / "linear.pth")
    torch.testing.assert_close(lpips(x, y), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(lpips.train()(x, y), lpips.eval()(x, y))
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_lpips_says_which_weight_is_missing(tmp_path):
    lpips_files(tmp_path)
    with pytest.raises(ConfigError, match="lacks features.0.weight"):
        load_lpips(tmp_path / "linear.pth", tmp_path / "vgg.pth")


def test_lpips_has_a_gradient_where_a_feature_is_all_zero():
    x = pictures().requires_grad_()
    LPIPS()(x, x.detach()).sum().backward()
    assert x.grad.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("name, length", [(NAME, 17), ("vidtok_kl_noncausal_488_4chn", 16)])
def test_the_tail_is_filled_up_and_its_real_frames_alone_are_scored(videos, name, length):
    model, video = small_model(name, ch=8), videos / "000.mp4"
    scores = scores_of(reconstructions(model, video, 10, 32, 32), {"psnr": metrics.psnr}).frames["psnr"]
    expected = []
    for clip in read_clips(video, 10, 32, 32, length)[1]:
        whole = torch.cat([clip, *[clip[:, :, -1:]] * (length - clip.shape[2])], dim=2)
        reconstruction = unit_range(model(whole)[1])[: clip.shape[2]]
        expected.append(metrics.psnr(unit_range(clip), reconstruction))
    assert len(scores) == 30 and [len(part) for part in expected] == [length, 30 - length]
    torch.testing.assert_close(scores, torch.cat(expected))


@torch.no_grad()
@pytest.mark.parametrize("tile, overlap", [(32, 0), (24, 8)])
def test_tiles_are_compared_with_whole_frames(videos, tile, overlap):
    model, video = small_model(NAME, ch=8), videos / "000.mp4"
    scores = scores_of(reconstructions(model, video, 10, 32, 32, tile, overlap), {"psnr": metrics.psnr}).frames
    expected = []
    for clip in read_clips(video, 10, 32, 32, 17)[1]:
        filled = torch.cat([clip, *[clip[:, :, -1:]] * (17 - clip.shape[2])], dim=2)
        both = []
        for model.tile, model.tile_overlap in ((None, 0), (tile, overlap)):
            both.append(unit_range(model(filled)[1])[: clip.shape[2]])
        expected.append(metrics.psnr(*both))
    torch.testing.assert_close(scores["tiles"], torch.cat(expected), rtol=1e-3, atol=0)
    exact = tile == 32  # a single tile
    assert (scores["tiles"] > 90).all() if exact else (scores["tiles"] < 60).all()
    whole = scores_of(reconstructions(model, video, 10, 32, 32), {"psnr": metrics.psnr}).frames
    torch.testing.assert_close(whole["psnr"], scores["psnr"])
    assert "tiles" not in whole


def whole_video(path, size=32):
    _, clips = read_clips(path, 8, size, size, 1000)
    return torch.cat(list(clips), dim=2)


@pytest.mark.parametrize("name, chunk", [(NAME, 5), (NAME, 16), (f"{NAME}_v1_1", 16), (f"{NAME}_v1_1", 7)])
def test_a_long_video_is_scored_as_if_it_were_reconstructed_at_once(videos, name, chunk):
    """24 frames in chunks: all frames, in order, as clips of 17 and 7, like one pass over the whole video."""
    net, x = small_model(name, ch=8), whole_video(videos / "000.mp4")
    clips = list(long_reconstruction(net, videos / "000.mp4", 8, 32, 32, chunk))
    assert [(len(clip.original), clip.complete) for clip in clips] == [(17, True), (7, False)]
    with torch.no_grad():
        expected = unit_range(net(x)[1])
    torch.testing.assert_close(torch.cat([clip.original for clip in clips]), unit_range(x))
    torch.testing.assert_close(torch.cat([clip.reconstruction for clip in clips]), expected, atol=1e-4, rtol=0)
    alone = torch.cat([clip.reconstruction for clip in reconstructions(net, videos / "000.mp4", 8, 32, 32)])
    assert (alone[17:] - expected[17:]).abs().max() > 1e-3  # clips of their own do not see the frames before


@torch.no_grad()
def test_chunks_that_overlap_as_published_are_decoded_so(videos, monkeypatch):
    """That this is the published decoding, and another than at once, is shown in test_chunks.py."""
    net, x, asked = small_model(f"{NAME}_v1_1", ch=8), whole_video(videos / "000.mp4"), []
    monkeypatch.setattr(
        model, "decode_overlapping", lambda *given: asked.append(given[2:]) or decode_overlapping(*given)
    )
    clips = list(long_reconstruction(net, videos / "000.mp4", 8, 32, 32, 8, compatible=True))
    assert asked == [(2, True)] and [len(clip.original) for clip in clips] == [17, 7]
    published = decode_overlapping(net.decoder, net.encode(x).movedim(1, -1), 2, overlap=True).movedim(-1, 1)
    found = torch.cat([clip.reconstruction for clip in clips])
    torch.testing.assert_close(found, unit_range(published[:, :, -24:]), atol=1e-4, rtol=0)


def test_long_videos_by_the_command(videos, tmp_path, capsys):
    command = list(map(str, [*command_on(videos, tmp_path), "--read-long-video", "--chunk", 6]))
    evaluate.main(command)
    report = json.loads((tmp_path / "scores.json").read_text())
    assert report["mean"]["frames"] == 48 and report["settings"]["read_long_video"] == "True"
    for options, told in (
        (["--tile", "16"], "choose one of --read-long-video and --tile"),
        (["--upstream-compat"], "--upstream-compat goes with --read-long-video and a v1.1 model"),
        (["--chunk", "0"], "--chunk must lie between 1 and 100,000, not 0"),
    ):
        with pytest.raises(SystemExit) as exit:
            evaluate.main([*command, *options])
        assert exit.value.code == 2 and told in capsys.readouterr().err


def command_on(videos, folder):
    """Returns the command's words for a small model that it writes to a folder."""
    save_weights(small_model(NAME, ch=8), folder / "x.safetensors")
    (folder / "small.yaml").write_text(yaml.safe_dump({"model": {"name": NAME, "ch": 8}}))
    return ["vidtok", "--config", folder / "small.yaml", "--checkpoint", folder / "x.safetensors", "--data",
            videos, "--height", 32, "--width", 32, "--fps", 8, "--output", folder / "scores.json"]  # fmt: skip


def test_frechet_distance_of_known_distributions():
    """Means and covariances are exact: N(mu, S) and N(nu, c^2 S) are |mu - nu|^2 + (1 - c)^2 tr S apart."""
    draws = torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = draws @ torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shift = torch.arange(6.0)
    b = a.mean(0) + 3 * (a - a.mean(0)) + shift
    expected = shift.square().sum().item() + 4 * a.var(0).sum().item()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-9)
    few = a[:3]  # fewer than dimensions: singular covariances
    assert metrics.frechet_distance(few, few + shift) == pytest.approx(shift.square().sum().item(), rel=1e-6)


class ScriptedMeans(torch.nn.Module):
    """A stand-in with the call signature of I3D's TorchScript file."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert rescale and resize and return_features
        return x.mean(dim=[2, 3, 4]) / 255


def test_fvd_is_of_the_whole_clips(videos, tmp_path, capsys):
    torch.jit.script(ScriptedMeans()).save(tmp_path / "i3d.pt")
    command = command_on(videos, tmp_path)
    evaluate.main(list(map(str, [*command, "--fvd", tmp_path / "i3d.pt"])))
    model, features = small_model(NAME, ch=8).eval(), []
    for video in sorted(videos.glob("*.mp4")):  # 24 frames: one complete clip each
        clip = next(reconstructions(model, video, 8, 32, 32))
        assert clip.complete and len(clip.original) == 17
        features.append([one.mean((0, 2, 3)) for one in (clip.original, clip.reconstruction)])
    expected = metrics.frechet_distance(*(torch.stack(side) for side in zip(*features)))
    assert json.loads((tmp_path / "scores.json").read_text())["mean"]["fvd"] == pytest.approx(expected, rel=1e-4)
    assert f"fvd     {expected:>9.4f}  lower" in capsys.readouterr().out
    (tmp_path / "bad.pt").write_bytes(b"no")
    with pytest.raises(SystemExit) as exit:
        evaluate.main(list(map(str, [*command, "--fvd", tmp_path / "bad.pt"])))
    assert exit.value.code == 2 and "should be I3D as a TorchScript file" in capsys.readouterr().err


def test_the_command_prints_a_table_and_writes_json(videos, tmp_path, capsys):
    (tmp_path / "videos.csv").write_text("videos\n001.mp4\n")
    lpips_files(tmp_path)
    command = command_on(videos, tmp_path)
    evaluate.main(list(map(str, command)))
    report = json.loads((tmp_path / "scores.json").read_text())
    assert set(report["videos"]) == {"000.mp4", "001.mp4"} and report["mean"]["frames"] == 48
    table = capsys.readouterr().out
    for name in ("psnr", "ssim"):
        mean = sum(one["frames"] * one[name] for one in report["videos"].values()) / 48
        assert report["mean"][name] == pytest.approx(mean, rel=1e-5)
        assert f"{name:<8}{mean:>9.4f}" in table
    weights = ["--lpips", tmp_path / "vgg.pth", tmp_path / "linear.pth", "--meta-path", tmp_path / "videos.csv"]
    evaluate.main(list(map(str, [*command, *weights])))
    one = json.loads((tmp_path / "scores.json").read_text())
    assert one["mean"]["videos"] == 1 and one["mean"]["psnr"] == report["videos"]["001.mp4"]["psnr"]
    assert one["mean"]["lpips"] > 0
    with pytest.raises(SystemExit) as exit:
        evaluate.main(list(map(str, [*command, "--height", 36])))
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.startswith("evaluate: error: --height and --width must be multiples of 8")


def test_lists_that_cannot_be_right_are_refused(videos, tmp_path):
    (tmp_path / "table.csv").write_text("name\n000.mp4\n")
    with pytest.raises(DataError, match="has no column videos or path"):
        list_videos(videos, tmp_path / "table.csv")
    (tmp_path / "table.csv").write_text("path\n000.mp4\nnone.mp4\n")
    with pytest.raises(DataError, match="1 of 2 videos are missing, the first is .*none.mp4"):
        list_videos(videos, tmp_path / "table.csv")
    with pytest.raises(DataError, match="holds no videos"):
        list_videos(tmp_path)
    (tmp_path / "table.csv").write_text("path\n000.mp4,x\n")
    with pytest.raises(DataError, match="table.csv, line 2: it has 2 cells, the header has 1"):
        list_videos(videos, tmp_path / "table.csv")
    assert [path.name for path in list_videos(videos, videos / "captions.csv")] == ["000.mp4", "001.mp4"]
    (tmp_path / "table.csv").write_text("n;videos\n1;001.mp4\n", encoding="utf-16")
    assert [path.name for path in list_videos(videos, tmp_path / "table.csv")] == ["001.mp4"]
