"""Moving shapes: the pixels do what the caption says, and nothing but watching tells it."""

from collections import Counter
from itertools import product

import av
import numpy as np
import pytest

from data_tools.draws import Draws
from data_tools.errors import DataError
from data_tools.shapes import COLOURS, MOTIONS, SHAPES, SIZES, describe, draw_scene, render, render_clips

SCENES = [draw_scene(Draws(1, number)) for number in range(1500)]


def centres(scene, frames=9, size=64):
    """The shape's centre in each frame, found from the pixels: (frames, 2) as x, y in shares of the picture."""
    clip = render(scene, frames, size).astype(np.float32)
    shape = np.abs(clip - np.float32(COLOURS[scene.colour])).sum(axis=-1) < 30
    return np.array([(np.argwhere(mask).mean(axis=0)[::-1] + 0.5) / size for mask in shape])


@pytest.mark.parametrize("motion, direction", [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1))])
def test_shapes_move_as_captioned(motion, direction):
    for scene in [scene for scene in SCENES if scene.motion == motion][:8]:
        found = centres(scene)
        assert np.allclose(found[-1] - found[0], 0.2 * np.array(direction), atol=0.02)


def test_still_and_circling_shapes_end_where_they_began():
    for scene in [scene for scene in SCENES if scene.motion in ("still", "circle")][:12]:
        found = centres(scene)
        assert np.allclose(found[0], found[-1], atol=0.02)
        assert np.ptp(found, axis=0).max() == pytest.approx(0 if scene.motion == "still" else 0.2, abs=0.03)


def test_shapes_stay_in_the_picture():
    for scene in SCENES[:150]:
        clip = render(scene, 5, 64).astype(int)
        shape = np.abs(clip - COLOURS[scene.colour]).sum(axis=-1) < 30
        assert not (shape[:, [0, -1]].any() or shape[:, :, [0, -1]].any())


def test_large_shapes_are_larger():
    def area(scene):
        return (np.abs(render(scene, 1, 64).astype(int) - COLOURS[scene.colour]).sum(axis=-1) < 30).sum()

    for shape in SHAPES:
        areas = {size: [area(s) for s in SCENES if (s.shape, s.size) == (shape, size)][:5] for size in SIZES}
        assert max(areas["small"]) < min(areas["large"])


@pytest.mark.parametrize("attribute", ["shape", "colour", "size"])
def test_nothing_seen_in_one_frame_tells_the_motion(attribute):
    counts = Counter((getattr(scene, attribute), scene.motion) for scene in SCENES)
    values = {getattr(scene, attribute) for scene in SCENES}
    expected = len(SCENES) / len(values) / len(MOTIONS)
    for pair in product(values, MOTIONS):
        assert abs(counts[pair] - expected) < 4.5 * expected**0.5


def test_the_start_does_not_tell_the_motion():
    for motion in MOTIONS:
        starts = np.array([scene.start for scene in SCENES if scene.motion == motion])
        assert np.abs(starts.mean(axis=0) - 0.5).max() < 0.025


def test_caption_question_and_answer_fit_the_scene():
    for number, scene in enumerate(SCENES[:200]):
        caption, question, answer = describe(scene, Draws(1, number))
        assert {scene.colour, scene.shape, scene.size} <= set(caption.replace(".", "").split())
        assert MOTIONS[scene.motion][0] in caption
        if "Which way" in question:
            assert answer == MOTIONS[scene.motion][1]
        assert question.endswith("?") and answer.endswith(".")
    assert len({describe(SCENES[0], Draws(1, number))[0] for number in range(30)}) == 4


def test_clips_are_written_whole_and_alike(tmp_path):
    for name in ("first", "again"):
        render_clips(tmp_path / name, 4, seed=7, frames=12, fps=6, size=48)
    render_clips(tmp_path / "other", 4, seed=8, frames=12, fps=6, size=48)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()
    with av.open(str(tmp_path / "first" / "003.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 6
    assert np.shape(frames) == (12, 48, 48, 3)
    drawn = render(draw_scene(Draws(7, 3)), 12, 48)
    assert np.abs(np.array(frames, int) - drawn).mean() < 6


def test_a_folder_in_use_and_no_clips_are_refused(tmp_path):
    render_clips(tmp_path, 1, seed=0)
    with pytest.raises(DataError, match="already holds clips"):
        render_clips(tmp_path, 1, seed=0)
    with pytest.raises(DataError, match="at least 1"):
        render_clips(tmp_path / "none", 0, seed=0)
