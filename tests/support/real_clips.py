"""Real and damaged clips, in the folder that lies beside the repository."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
CLIPS, BAD_CLIPS = SHARED / "clips", SHARED / "bad_clips"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no folder of real clips beside the repository")

DAMAGED = {  # clips of BAD_CLIPS that are refused, with the reason; the others there are sound
    "zero_byte.mp4": "empty_file",
    "text_not_video.mp4": "not_a_video",
    "truncated_no_moov.mp4": "truncated",
    "truncated_mdat_half.mp4": "truncated",
    "decord_corrupted.mp4": "corrupt",
    "audio_only.mp4": "no_video_stream",
    "single_frame.mp4": "too_few_frames",
}
