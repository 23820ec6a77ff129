import pytest

from vtok.config import ConfigError, VTokConfig
from vtok.tokeniser.layout import motion_frames, num_motion_tokens


@pytest.mark.parametrize("num_frames", [120, 121])
@pytest.mark.parametrize("rate, tokens", [(3, 31), (6, 46), (12, 76)])
def test_token_counts_of_five_seconds_at_24_fps_by_rate(num_frames, rate, tokens):
    assert 16 + num_motion_tokens(num_frames, VTokConfig(motion_tokens_per_second=rate), fps=24) == tokens


@pytest.mark.parametrize("grid, tokens", [(1, 31), (2, 34), (3, 39), (4, 46), (5, 55)])
def test_token_counts_by_grid(grid, tokens):
    config = VTokConfig(spatial_grid_size=grid, motion_tokens_per_second=6)
    assert config.num_spatial_tokens + num_motion_tokens(120, config, fps=24) == tokens


def test_stride_rule():
    config = VTokConfig(motion_stride=6)
    assert motion_frames(30, config) == [6, 12, 18, 24]
    assert num_motion_tokens(1, config) == 0


def test_the_default_is_a_stride_of_six():
    assert motion_frames(30, VTokConfig()) == [6, 12, 18, 24]


def test_rate_rule_looks_at_the_frame_nearest_in_time():
    config = VTokConfig(motion_tokens_per_second=6)
    assert motion_frames(121, config, fps=24) == list(range(4, 121, 4))
    assert motion_frames(120, config, fps=24)[-1] == 119  # 5.0 s lies behind the last frame
    assert motion_frames(11, config, fps=10) == [2, 3, 5, 7, 8, 10]  # i / 6 s at 10 fps: 1.7 3.3 5 6.7 8.3 10


@pytest.mark.parametrize("rule", [dict(motion_stride=3), dict(motion_tokens_per_second=5.0)])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 30, 31])
def test_another_key_frame_keeps_the_count_and_is_not_its_own_motion_token(rule, num_frames):
    config = VTokConfig(**rule)
    for key in range(num_frames):
        frames = motion_frames(num_frames, config, fps=6, key_frame_idx=key)
        assert len(frames) == num_motion_tokens(num_frames, config, fps=6)
        assert key not in frames
        assert all(0 <= f < num_frames for f in frames) and frames == sorted(frames)


def test_a_key_frame_in_mid_clip_gives_up_its_own_grid_point():
    assert motion_frames(30, VTokConfig(motion_stride=6), key_frame_idx=12) == [0, 6, 18, 24]


def test_errors():
    with pytest.raises(ConfigError, match="outside the video"):
        motion_frames(5, VTokConfig(), key_frame_idx=5)
    with pytest.raises(ConfigError, match="at least that many frames per second"):
        num_motion_tokens(5, VTokConfig(motion_tokens_per_second=12), fps=6)
    with pytest.raises(ConfigError, match="only one of"):
        VTokConfig(motion_stride=6, motion_tokens_per_second=6)


@pytest.mark.parametrize(
    "options, rate",
    [
        (dict(motion_stride=2), 3.0),
        (dict(motion_tokens_per_second=4), 4.0),
        (dict(strategy="training_free"), 1.0),
        (dict(strategy="frames", sampled_frames=8), 0.0),
        (dict(strategy="none"), 0.0),
    ],
)
def test_what_a_second_of_video_adds(options, rate):
    config = VTokConfig(fps=6.0, **options)
    assert config.motion_rate == rate
