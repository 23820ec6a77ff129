"""`--data_root`: clips are packed once, and again when they or their texts have changed."""

import os

import pytest

from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from pipelines.engine.outputs import shards_of, state_of
from vtok.config import ConfigError


def test_an_output_among_the_clips_is_refused(tmp_path):
    """Its files changed the state of the clips, so each start packed them again."""
    clips = tmp_path / "clips"
    render_clips(clips, 2, seed=0, frames=8, size=32)
    for output in (clips, clips / "runs" / "a", tmp_path / "runs" / ".." / "clips" / "a"):
        with pytest.raises(
            ConfigError, match="lies in data.root, where its files would be taken for clips: choose anoth"
        ):
            shards_of(str(clips), output)
    assert sorted(path.name for path in clips.iterdir()) == ["000.mp4", "001.mp4", "captions.csv", "items.jsonl"]


def test_another_video_under_a_table_s_name_is_noticed(tmp_path):
    """A table may name files outside its folder."""
    clips, table = tmp_path / "clips", tmp_path / "tables" / "captions.csv"
    render_clips(clips, 2, seed=0, frames=8, size=32)
    table.parent.mkdir()
    table.write_text("path,caption\n../clips/000.mp4,One.\n")
    for place in (table, table.parent):
        before = state_of(place)
        assert state_of(place) == before
        os.utime(clips / "000.mp4", ns=(0, hash(place) % 10**9))
        assert state_of(place) != before


def test_a_corrected_caption_is_noticed(tmp_path, capsys):
    clips, output = tmp_path / "clips", tmp_path / "runs" / "a"
    render_clips(clips, 2, seed=0, frames=8, size=32)
    first = shards_of(str(clips), output)
    assert shards_of(str(clips), output) == first and "has changed" not in capsys.readouterr().out

    table = clips / "captions.csv"
    before = table.stat()
    table.write_text("path,caption\n000.mp4,Corrected.\n001.mp4,Corrected.\n")
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = shards_of(str(clips), output)
    assert second != first and "has changed since it was packed" in capsys.readouterr().out
    assert ShardReader(second).read(0).meta["caption"] == "Corrected."
    assert ShardReader(first).read(0).meta["caption"] != "Corrected."  # an earlier run can go on
