"""Small videos by the encoders of the `ffmpeg` program, and what that program shows of a video."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")

PATTERN = "testsrc2=s=96x64:r=24:d=2.5,noise=alls=12:allf=t"
X264 = "-c:v libx264 -g 24 -pix_fmt yuv420p"
X265 = "-c:v libx265 -x265-params log-level=none:keyint=24"

KINDS = {  # file name -> (options of ffmpeg, where reading may begin)
    "h264_b_frames.mp4": (X264 + " -bf 3", "key_frames"),
    "h264_b_frames.ts": (X264 + " -bf 3", "key_frames"),
    "h264_b_frames.flv": (X264 + " -bf 3", "key_frames"),
    "h264_b_frames.avi": (X264 + " -bf 3", "start"),
    "h264_open_gop.mp4": (X264 + " -x264-params open-gop=1:bframes=3:scenecut=0", "key_frames"),
    "h264_intra_refresh.mp4": (X264 + " -x264-params intra-refresh=1", "start"),
    "h264_interlaced.mp4": (X264 + " -flags +ilme+ildct -x264-params tff=1", "start"),
    "h264_444.mp4": ("-c:v libx264 -g 24 -pix_fmt yuv444p", "key_frames"),
    "h264_intra_only.mov": ("-c:v libx264 -g 1 -pix_fmt yuv420p", "key_frames"),
    "hevc.mp4": (X265, "key_frames"),
    "hevc_open_gop.mkv": (X265 + ":open-gop=1:bframes=4", "key_frames"),
    "hevc_two_layers.mp4": (X265 + ":temporal-layers=1:bframes=4", "key_frames"),
    "av1_aom.mp4": ("-c:v libaom-av1 -cpu-used 8 -g 24 -lag-in-frames 19 -b:v 80k", "key_frames"),
    "av1_svt.mp4": ("-c:v libsvtav1 -preset 12 -g 24", "key_frames"),
    "vp8_hidden.webm": ("-c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -g 24 -b:v 60k -cpu-used 5", "key_frames"),
    "vp9_hidden.webm": ("-c:v libvpx-vp9 -auto-alt-ref 1 -lag-in-frames 16 -g 24 -b:v 60k -cpu-used 5", "key_frames"),
    "xvid_packed.avi": ("-c:v libxvid -bf 2 -g 24 -b:v 200k", "start"),
    "mpeg4_b_frames.mp4": ("-c:v mpeg4 -bf 2 -g 24 -b:v 200k", "key_frames"),
    "mpeg2_b_frames.mpg": ("-c:v mpeg2video -bf 2 -g 24 -b:v 400k", "key_frames"),
    "mpeg2_interlaced.ts": ("-c:v mpeg2video -bf 2 -g 24 -b:v 800k -flags +ilme+ildct", "start"),
    "mpeg1.mpg": ("-c:v mpeg1video -bf 2 -g 24 -b:v 400k", "key_frames"),
    "wmv2.wmv": ("-c:v wmv2 -g 24 -b:v 200k", "key_frames"),
    "theora.ogv": ("-c:v libtheora -g 24 -b:v 200k", "key_frames"),
    "mjpeg.avi": ("-c:v mjpeg -q:v 6 -pix_fmt yuvj420p", "key_frames"),
    "prores.mov": ("-c:v prores_ks", "key_frames"),
    "ffv1.mkv": ("-c:v ffv1 -g 24", "key_frames"),
}


def ffmpeg(*options: str | Path) -> bytes:
    """Run the program; returns what it writes to standard output."""
    return subprocess.run(["ffmpeg", "-v", "quiet", "-y", *map(str, options)], check=True, capture_output=True).stdout


def encode(path: Path, options: str, pattern: str = PATTERN) -> Path:
    """A test pattern, encoded with the options."""
    ffmpeg("-f", "lavfi", "-i", pattern, "-threads", "1", *options.split(), path)
    return path


def shown_by_ffmpeg(
    path: Path, filters: str = "yadif=deint=interlaced", size: tuple[int, int] | None = None
) -> np.ndarray:
    """All frames in order, uint8 RGB (F, H, W, 3). `size`, (H, W), is found if it is not given."""
    begin = ("-i", path, "-map", "0:v:0", "-vf", filters)
    if size is None:
        image = ffmpeg(*begin, "-frames:v", "1", "-f", "image2pipe", "-c:v", "ppm", "-")
        width, height = map(int, image.split(maxsplit=3)[1:3])
    else:
        height, width = size
    data = ffmpeg(*begin, "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)


def best_effort(path: Path) -> list[int | None]:
    """The timestamps that ffprobe gives for the frames, in order."""
    options = ["-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp", "-of", "json"]
    told = subprocess.run(["ffprobe", "-v", "quiet", *options, str(path)], check=True, capture_output=True).stdout
    return [frame.get("best_effort_timestamp") for frame in json.loads(told)["frames"]]
