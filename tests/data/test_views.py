"""The arithmetic of windows, times and boxes, and the two views that come from it."""

import io
import random
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.errors import BadVideo, DataError
from data_tools.video.decode import decode, validate
from data_tools.video.encode import encode_mp4
from data_tools.video.views import (
    Box,
    Placement,
    View,
    cover,
    decoder_view,
    fit_box,
    make_views,
    placements,
    tokeniser_view,
    view_times,
    window,
)
from support.real_clips import CLIPS, needs_shared

COFFEE = CLIPS / "coffee.mp4"


TOKENISER = tokeniser_view(5.0, 6, 336, 336)
DECODER = decoder_view(5.0, 24, 320, 576)


def test_full_windows():
    assert TOKENISER.num_frames == 31
    assert DECODER.num_frames == 121
    assert decoder_view(1.0, 30, 8, 8).num_frames == 29  # 31 frames fit; 4k + 1 leaves 29
    for seconds in (0.0, 0.3, 1.0, 2.5, 5.0):
        assert decoder_view(seconds, 24, 8, 8).num_frames % 4 == 1


def test_the_first_latent_frames_of_a_window_are_its_first_frames(tmp_path):
    """k + 1 latent frames are 4k + 1 frames, no more than the window has; the clip is drawn up to them only."""
    assert [decoder_view(5.0, 24, 8, 8, k).num_frames for k in (1, 2, 31, 99)] == [1, 5, 121, 121]
    clip = make_video(tmp_path / "clip.mp4", np.zeros((48, 64), np.uint8), frames=24, step=8)
    whole = make_views(clip, 1.0, TOKENISER, decoder_view(1.0, 24, 32, 48), 0.0)
    first = make_views(clip, 1.0, TOKENISER, decoder_view(1.0, 24, 32, 48, 3), 0.0)
    assert first.video_valid == 9 and torch.equal(first.video, whole.video[:9])
    assert first.frames_valid == whole.frames_valid and torch.equal(first.frames, whole.frames)


def test_windows_stay_inside_the_clip():
    draw = random.Random(0)
    for _ in range(500):
        duration, seconds = draw.uniform(0.1, 20), draw.uniform(0.1, 8)
        start = window(duration, seconds, draw.random())
        assert 0 <= start <= max(0, duration - seconds)
    assert window(9.0, 5.0, 0.0) == 0.0
    assert window(9.0, 5.0, 0.5) == 2.0
    assert window(3.0, 5.0, 0.9) == 0.0


@pytest.mark.parametrize("frames", [120, 121])
def test_a_five_second_clip_fills_five_second_views(frames):
    times, valid = view_times(TOKENISER, 0.0, frames / 24)
    assert (len(times), valid) == (31, 31)
    times, valid = view_times(DECODER, 0.0, frames / 24)
    assert (len(times), valid) == (121, 121)


def test_counts_of_short_clips():
    draw = random.Random(0)
    for _ in range(500):
        duration = draw.uniform(0.01, 7)
        start = window(duration, 5.0, draw.random())
        for view in (TOKENISER, DECODER):
            times, valid = view_times(view, start, duration)
            assert len(times) == view.num_frames and times[0] == start
            assert np.allclose(np.diff(times), 1 / view.fps)
            assert 1 <= valid <= view.num_frames and valid % view.stride == 1 % view.stride
            assert valid == 1 or times[valid - 1] <= duration + 1e-3
            assert valid == view.num_frames or times[min(valid + view.stride, view.num_frames) - 1] > duration
    assert view_times(TOKENISER, 0.0, 2.0)[1] == 13
    assert view_times(DECODER, 0.0, 2.0)[1] == 49
    assert view_times(DECODER, 0.0, 0.05)[1] == 1


def test_fit_boxes_are_centred_and_undistorted():
    draw = random.Random(0)
    for _ in range(500):
        src_w, src_h, dst_w, dst_h = (draw.randrange(16, 2000) for _ in range(4))
        crop, pad = (fit_box(src_w, src_h, dst_w, dst_h, fit) for fit in ("crop", "pad"))
        assert crop.target == Box(0, 0, dst_w, dst_h) and pad.source == Box(0, 0, src_w, src_h)
        for inner, width, height, aspect in (
            (crop.source, src_w, src_h, dst_w / dst_h),
            (pad.target, dst_w, dst_h, src_w / src_h),
        ):
            assert inner.width == width or inner.height == height
            assert 0 <= width - inner.width - 2 * inner.x <= 1
            assert 0 <= height - inner.height - 2 * inner.y <= 1
            assert inner.width >= 1 and inner.height >= 1
            short = abs(inner.width - inner.height * aspect), abs(inner.height - inner.width / aspect)
            assert min(short) <= 0.5 + 1e-9 or 1 in (inner.width, inner.height)


def test_fit_box_values():
    assert fit_box(1280, 720, 336, 336, "crop") == Placement(Box(280, 0, 720, 720), Box(0, 0, 336, 336))
    assert fit_box(1280, 720, 336, 336, "pad") == Placement(Box(0, 0, 1280, 720), Box(0, 73, 336, 189))
    assert fit_box(1280, 720, 576, 320, "crop").source == Box(0, 4, 1280, 711)
    assert fit_box(1920, 64, 8, 336, "pad").target == Box(0, 167, 8, 1)
    with pytest.raises(DataError, match="crop, pad"):
        fit_box(8, 8, 8, 8, "stretch")


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (640, 480), (1920, 64), (101, 67)])
def test_the_tokeniser_sees_the_centre_of_the_decoders_crop(size):
    seen, drawn = placements(*size, TOKENISER, DECODER, "crop")
    assert seen.source == drawn.source == fit_box(*size, DECODER.width, DECODER.height, "crop").source
    target, view = seen.target, TOKENISER
    assert min(target.width / view.width, target.height / view.height) == 1
    assert 0 <= target.width + 2 * target.x - view.width <= 1 and target.x <= 0
    assert 0 <= target.height + 2 * target.y - view.height <= 1 and target.y <= 0
    short = target.width * drawn.source.height / drawn.source.width - target.height
    assert abs(short) <= max(1, drawn.source.height / drawn.source.width)  # undistorted, to the pixel


def test_without_a_decoder_the_tokenisers_own_aspect_decides():
    (alone,) = placements(720, 1280, TOKENISER, None, "crop")
    assert alone == Placement(Box(0, 0, 720, 1280), Box(0, -130, 336, 597))
    whole = Box(0, 0, 720, 1280)
    assert [placement.source for placement in placements(720, 1280, TOKENISER, DECODER, "pad")] == [whole, whole]


def test_cropped_views_are_aligned(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", ramp(240, 320), frames=12)
    tokeniser, decoder = tokeniser_view(0.5, 6, 64, 64), decoder_view(0.5, 24, 72, 128)
    views = make_views(clip, 0.5, tokeniser, decoder, 0.0)
    seen, drawn = placements(320, 240, tokeniser, decoder, "crop")
    assert seen == Placement(Box(0, 30, 320, 180), Box(-24, 0, 113, 64)) and drawn.source == seen.source
    # A grey level of the ramp is a column of the source, so it tells which part a view shows.
    for picture, placement in ((views.frames[0], seen), (views.video[0], drawn)):
        columns = picture.float().mean((0, 1)) / 255 * 319
        part, place = placement.source, placement.target
        scale = part.width / place.width
        expected = part.x + (torch.arange(picture.shape[-1]) - place.x + 0.5) * scale - 0.5
        assert (columns - expected)[2:-2].abs().max() < 3


def test_padded_views_show_the_whole_frame_on_black(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", np.full((80, 160), 200, np.uint8), frames=12)
    tokeniser, decoder = tokeniser_view(0.5, 6, 64, 64), decoder_view(0.5, 24, 72, 128)
    views = make_views(clip, 0.5, tokeniser, decoder, 0.0, fit="pad")
    assert (views.frames[:, :, :16] == 0).all() and (views.frames[:, :, 48:] == 0).all()
    assert (views.frames[:, :, 16:48].float() - 200).abs().max() < 4
    assert (views.video[:, :, :4] == 0).all() and (views.video[:, :, 4:68] > 190).all()


def test_a_short_clip_repeats_its_last_valid_frame(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", np.zeros((48, 64), np.uint8), frames=24, step=8)
    views = make_views(clip, 1.0, TOKENISER, decoder_view(5.0, 24, 32, 48), 0.0)
    assert views.frames.shape == (31, 3, 336, 336) and views.frames.dtype == torch.uint8
    assert views.video.shape == (121, 3, 32, 48) and views.video.dtype == torch.uint8
    assert (views.frames_valid, views.video_valid) == (7, 25)
    levels = [frame.float().mean().item() / 8 for frame in views.frames]
    assert levels[:7] == pytest.approx([0, 4, 8, 12, 16, 20, 23], abs=0.3)
    for stack, valid in ((views.frames, 7), (views.video, 25)):
        assert all(torch.equal(frame, stack[valid - 1]) for frame in stack[valid:])


def test_two_views_agree_with_one(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", ramp(90, 160), frames=48, step=3)
    tokeniser = tokeniser_view(1.0, 6, 64, 64)
    both = make_views(clip, 2.0, tokeniser, decoder_view(1.0, 24, 45, 80), 0.5)
    alone = make_views(clip, 2.0, tokeniser, None, 0.5)
    assert torch.equal(both.frames, alone.frames)  # 16:9 of 16:9 is the whole frame, so the crops agree
    assert (alone.video, alone.video_valid) == (None, 0)
    assert both.frames_valid == alone.frames_valid == 7 and both.video_valid == 25


def test_each_frame_is_converted_once(tmp_path, monkeypatch):
    clip = make_video(tmp_path / "clip.mp4", ramp(48, 64), frames=24)
    seen = []

    def counting(*arguments):
        for looks, picture in decode(*arguments):
            seen.append(looks)
            yield looks, picture

    monkeypatch.setattr("data_tools.video.views.decode", counting)
    make_views(clip, 1.0, tokeniser_view(1.0, 6, 32, 32), decoder_view(1.0, 24, 32, 48), 0.0)
    assert len(seen) == 24 and sorted(sum(seen, [])) == list(range(7 + 25))


def test_bad_input_says_so(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", ramp(48, 64), frames=4)
    with pytest.raises(DataError, match="unknown fit"):
        make_views(clip, 4 / 24, TOKENISER, None, 0.0, fit="stretch")
    with pytest.raises(DataError, match="unknown decoder"):
        make_views(clip, 4 / 24, TOKENISER, None, 0.0, backend="ffmpeg")
    with pytest.raises(BadVideo, match="not_a_video"):
        make_views(b"not a video at all", 1.0, TOKENISER, None, 0.0)


@needs_shared
def test_backends_give_the_same_views():
    pytest.importorskip("decord")
    view = tokeniser_view(1.0, 6, 112, 112)
    ours, theirs = (make_views(COFFEE, 9.576, view, None, 1.0, backend=name) for name in ("pyav", "decord"))
    assert (ours.frames.float() - theirs.frames.float()).abs().mean() < 1


@needs_shared
@pytest.mark.parametrize("clip", ["coffee.mp4", "keyboard_rot90.mp4", "chaplin.mp4", "carphone_pristine.mp4"])
def test_the_tokeniser_sees_what_clip_s_own_preprocessing_gives(clip):
    clip_pixels = pytest.importorskip("support.reference").clip_pixels
    duration = validate(CLIPS / clip).duration
    views = make_views(CLIPS / clip, duration, tokeniser_view(0.0, 6, 336, 336), None, duration / 2)
    ((_, picture),) = decode(CLIPS / clip, [duration / 2])
    error = (clip_pixels(picture.permute(2, 0, 1), 336) - views.frames[0].int()).abs()
    if min(picture.shape[:2]) < 336:  # enlarged: Pillow's weights have more bits than torch's
        assert error.max() <= 2 and (error > 1).float().mean() < 1e-5
    else:
        assert error.max() <= 1


def ramp(height, width):
    """Grey level rises from 0 at the left edge to 255 at the right."""
    return np.broadcast_to(np.linspace(0, 255, width), (height, width)).astype(np.uint8)


def make_video(path, picture, frames, step=0):
    """24 frames a second; frame n shows `picture` made lighter by n steps."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=24)
        stream.height, stream.width = picture.shape
        stream.pix_fmt, stream.options = "yuv444p", {"crf": "10"}
        for n in range(frames):
            level = np.clip(picture.astype(int) + n * step, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.repeat(level[..., None], 3, axis=2), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 24)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def test_a_view_that_is_skipped_still_has_its_say_in_the_crop(tmp_path):
    """What only needs the tokeniser's view, as a question about a clip does, sees what training sees."""
    clip, views = encode_mp4(pictures(), 8, 20), (View(4, 3, 32, 32), View(8, 5, 32, 96))
    both = make_views(clip, 1.0, *views, 0.0)
    small = make_views(clip, 1.0, *views, 0.0, skip=("video",))
    assert torch.equal(small.frames, both.frames) and small.video is None and small.video_valid == 0
    assert not torch.equal(small.frames, make_views(clip, 1.0, views[0], None, 0.0).frames)
    large = make_views(clip, 1.0, *views, 0.0, skip=("frames",))
    assert torch.equal(large.video, both.video) and large.frames is None
    assert make_views(b"no video", 1.0, *views, 0.0, skip=("frames", "video")).frames_valid == 0


def pictures():
    """Eight noisy frames, taller than wide."""
    return iter(np.random.default_rng(0).integers(0, 256, (8, 128, 96, 3), np.uint8))


@pytest.mark.parametrize("size", [(16000, 1), (1, 16000), (30000, 7), (3, 9001), (1000, 1)])
def test_a_thin_picture_takes_no_more_memory_than_others(size):
    """Of a strip of 16000 x 1 pixels 5 GB were resized, to show its middle."""
    part = cover(Box(0, 0, *size), 336, 224)
    assert part.target.width * part.target.height <= 20 * 336 * 224
    assert part.source.x == (size[0] - part.source.width) // 2 and part.source.y == (size[1] - part.source.height) // 2
    assert 2 * part.source.x + part.source.width == size[0] and 2 * part.source.y + part.source.height == size[1]
    file = io.BytesIO()
    Image.new("RGB", size, (200, 10, 60)).save(file, "PNG")
    views = make_views(file.getvalue(), 0.0, View(1, 1, 224, 336), None, 0.0)
    assert views.frames.shape == (1, 3, 224, 336)
    assert (views.frames == torch.tensor([200, 10, 60], dtype=torch.uint8)[:, None, None]).all()


def test_pictures_that_are_no_strips_are_resized_as_a_whole():
    for size in ((1920, 1080), (576, 320), (1600, 100), (100, 1600), (336, 336), (7, 3), (16, 1)):
        assert cover(Box(5, 6, *size), 336, 336).source == Box(5, 6, *size)


def test_the_middle_of_a_strip_looks_as_it_does_in_the_whole(monkeypatch):
    strip = np.random.default_rng(0).integers(0, 256, (4, 800, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(strip).save(file, "PNG")
    middle = make_views(file.getvalue(), 0.0, View(1, 1, 32, 32), None, 0.0).frames
    monkeypatch.setattr("data_tools.video.views.MOST_VIEWS", 1000)
    whole = make_views(file.getvalue(), 0.0, View(1, 1, 32, 32), None, 0.0).frames
    assert torch.equal(middle, whole)
