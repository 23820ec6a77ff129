"""Tars of any make: the same files as `tarfile` finds, the same samples as webdataset makes."""

import io
import tarfile

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from data_tools.errors import DataError
from data_tools.shards.tars import BLOCK, groups, mapped, members, plain_file

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "ordner/" + "ä水" * 60 + "/" + "é" * 90
NAMES = ["000.mp4", "000.txt", "a/b/001.mp4", "a/b/001.TXT", "a.dir/002.x.json", ".hidden", "no ending"]


def tar(names, form, mtime=0, **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, **options) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(body(number)), mtime
            archive.addfile(info, io.BytesIO(body(number)))
    return buffer.getvalue()


def body(number):
    return bytes([number + 1]) * (number * 300)


def found(data, at=0):
    return [(m.name, m.offset, data[m.start : m.start + m.size]) for m in members(data, at)]


def by_tarfile(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [(m.name, m.offset, archive.extractfile(m).read()) for m in archive if m.isreg()]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("mtime", [0, 1700000000.25])
def test_the_files_are_those_that_tarfile_finds(form, mtime):
    names = NAMES + ["p" * 90 + "/" + "q" * 90 + ".mp4"] + ([] if form == tarfile.USTAR_FORMAT else [f"{LONG}.mp4"])
    data = tar(names, form, mtime)
    assert found(data) == by_tarfile(data) and [name for name, *_ in found(data)] == names


def test_what_is_no_file_is_stepped_over():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "all"}) as archive:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE), ("link" * 60, tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "x" * 150
            archive.addfile(info)
        info = tarfile.TarInfo("a.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    data = buffer.getvalue()
    assert found(data) == by_tarfile(data) and [name for name, *_ in found(data)] == ["a.txt"]


def test_sizes_past_eight_gigabytes_are_read():
    info = tarfile.TarInfo("big.mp4")
    info.size = 9 << 30
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):  # binary in the header; in a PAX record
        with pytest.raises(DataError, match="ends inside a file"):
            list(members(info.tobuf(form)))


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1), max_size=4))
def test_any_name_is_read_back(names):
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar([name.strip("/") or "x" for name in names], form)
        assert found(data) == by_tarfile(data)


NESTED = ["a/1.mp4", "a/1.txt", "b/1.mp4", "c.x/2.b.mp4", "c.x/2.c.MP4", "__meta__/3.mp4", ".4.mp4", "1", "a/1.json"]


def test_samples_are_those_of_webdataset(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar(NESTED, tarfile.PAX_FORMAT, 0.5))
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False))
    with mapped(path) as data:
        ours = list(groups(members(data)))
        assert (
            [group.key for group in ours] == [sample["__key__"] for sample in theirs] == ["a/1", "b/1", "c.x/2", "a/1"]
        )
        for group, sample in zip(ours, theirs):
            bodies = {ending: data[member.start : member.start + member.size] for ending, member in group.members}
            assert bodies == {name: value for name, value in sample.items() if not name.startswith("__")}
            # The span stands by itself: what a reader gets with one pread.
            (alone,) = groups(members(data[group.offset : group.offset + group.length]))
            assert [ending for ending, _ in alone.members] == [ending for ending, _ in group.members]


def test_damage_is_an_error_with_its_place(tmp_path):
    data = tar(NAMES, tarfile.PAX_FORMAT, 0.5)
    assert list(members(b"")) == [] and list(members(bytes(2 * BLOCK))) == []
    third = list(members(data))[2]
    with pytest.raises(DataError, match=f"byte {third.offset}: no tar header"):
        list(members(data[: third.offset] + b"\1" + data[third.offset + 1 :]))
    with pytest.raises(DataError, match="ends inside a file"):
        list(members(data[: third.start + 1]))
    with pytest.raises(DataError, match="no tar header"):
        list(members(data[: third.offset + 100]))
    with pytest.raises(DataError, match="no tar header.*compressed"):
        list(members(b"\x1f\x8b" + bytes(range(256)) * 4))


def test_a_damaged_pax_record_is_an_error():
    data = tar(["a.mp4"], tarfile.PAX_FORMAT, 0.5)
    for wrong in (b"xx mtime=0.5\n", b"1 mtime=0.5\n", b"12 size=a.5\n"):
        broken = data[:BLOCK] + wrong.ljust(BLOCK, b"\0") + data[2 * BLOCK :]
        with pytest.raises(DataError, match="byte 0: a PAX header"):
            list(members(broken))


def test_an_empty_file_maps_to_nothing(tmp_path):
    (tmp_path / "a.tar").touch()
    with mapped(tmp_path / "a.tar") as data:
        assert data == b""


def test_sparse_files_are_refused():
    """Their body is not the file."""
    info = tarfile.TarInfo("a.mp4")
    info.type = tarfile.GNUTYPE_SPARSE
    pax = tarfile.TarInfo("a.mp4")
    pax.pax_headers = {"GNU.sparse.major": "1"}
    for data in (info.tobuf(tarfile.GNU_FORMAT), pax.tobuf(tarfile.PAX_FORMAT)):
        with pytest.raises(DataError, match="byte 0: a sparse file"):
            list(members(data))


def test_a_walk_may_begin_between_blocks():
    """A reader holds the end of a sample apart, and it begins wherever the video ended."""
    data = tar(NAMES, tarfile.PAX_FORMAT, 0.5)
    shifted = [(name, offset - 7, body) for name, offset, body in found(bytes(7) + data, 7)]
    assert shifted == found(data)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_plain_header_says_what_the_walk_says(form):
    for name in ["000.mp4", "p" * 90 + "/" + "q" * 90, "é.mp4"]:
        data = tar(["", name], form)[BLOCK:]
        told = plain_file(data[:BLOCK])
        first = next(members(data))
        assert told == ((first.name, first.size) if first.start == BLOCK else None)
    assert plain_file(b"\1" + data[1:BLOCK]) is None and plain_file(b"") is None
