"""Write some samples of a dataset with their pictures to one self-contained page."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.errors import BadVideo, DataError
from data_tools.inspect.page import Card, Picture, page
from data_tools.shards import RawSample, ShardReader, atomic_write
from data_tools.video.decode import decode, validate

STRIP_FRAMES = 8
KEY_FRAME_SIZE = (640, 400)  # bounding box in pixels: twice the size on the page, for high-density displays
STRIP_SIZE = (240, 160)
JPEG_QUALITY = 82


def write_report(folder: str | Path, html: str | Path, samples: int = 24) -> int:
    """Write a page with evenly spaced samples. A sample that cannot be read is shown with the reason.

    Args:
        folder: of the dataset.
        html: file to write.
        samples: number of samples at most.

    Returns:
        The number of samples on the page.

    Raises:
        DataError: there is no finished dataset, or an argument is unusable.
    """
    if samples < 1:
        raise DataError(f"the number of samples must be at least 1, not {samples}")
    reader, html = ShardReader(folder), Path(html)
    if not html.parent.is_dir():
        raise DataError(f"{html.parent} is not a folder: the page cannot be written there")
    rows = spread(len(reader), samples)
    cards = (_card(reader, row) for row in rows)
    about = f"{len(rows)} of {len(reader):,} clips, manifest {reader.manifest_hash[:12]}"
    with atomic_write(html) as file:
        for piece in page(Path(folder).resolve().name, about, cards):
            file.write(piece.encode("utf-8", "replace"))
    return len(rows)


def spread(rows: int, samples: int) -> list[int]:
    """At most `samples` evenly spaced numbers in [0, rows), the first and last included."""
    return sorted(set(np.linspace(0, rows - 1, min(samples, rows)).round().astype(int).tolist()))


def _card(reader: ShardReader, row: int) -> Card:
    shard = reader.shard_names[reader.rows["shard"][row]]
    try:
        sample = reader.read(row)
    except BadVideo as problem:
        return Card(row, reader.key(row), shard, problem=str(problem))
    meta = sample.meta
    captions = meta.get("captions") or [meta["caption"]]
    pairs = meta.get("conversations") or [(meta.get("question") or "", meta.get("answer") or "")]
    card = Card(row, sample.key, shard, captions, pairs)
    try:
        if not sample.extension:
            return replace(card, facts={"kind": "text", "source": meta["path"]})
        key_frame, strip = _pictures(sample)
        return replace(card, key_frame=key_frame, strip=strip, facts=_facts(sample))
    except BadVideo as problem:
        return replace(card, problem=str(problem))


def _pictures(sample: RawSample) -> tuple[Picture, list[Picture]]:
    """The key frame, and the strip from the first frame to the last; of several media their first frames.

    Raises:
        BadVideo: the sample cannot be decoded.
    """
    if sample.others:
        images = [_first_frame(body) for body in (sample.video, *sample.others)]
        strip = [Picture(_jpeg(image, STRIP_SIZE), str(n)) for n, image in enumerate(images, 1)]
        return Picture(_jpeg(images[0], KEY_FRAME_SIZE), "first medium"), strip
    facts = sample.meta["facts"]
    times = np.linspace(0, facts["duration"], min(facts["frames"], STRIP_FRAMES)).tolist()
    frames = {}
    for indices, frame in decode(sample.video, times, entry=facts.get("entry")):
        image = Image.fromarray(frame.numpy())
        for index in indices:
            frames[index] = image
    strip = [Picture(_jpeg(frames[n], STRIP_SIZE), f"{time:.2f} s") for n, time in enumerate(times)]
    return Picture(_jpeg(frames[0], KEY_FRAME_SIZE), "key frame"), strip


def _first_frame(medium: bytes) -> Image.Image:
    """The first frame of a video, or an image. Raises BadVideo."""
    ((_, frame),) = decode(medium, [0.0])
    return Image.fromarray(frame.numpy())


def _jpeg(image: Image.Image, size: tuple[int, int]) -> bytes:
    """The image, scaled down to fit into `size`."""
    small = image.copy()
    small.thumbnail(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _facts(sample: RawSample) -> dict[str, str]:
    """The facts on the page, from a new decode: the json of other tools may lack some. Raises BadVideo."""
    if sample.others:
        return {"kind": ", ".join(medium["member"] for medium in sample.meta["media"]), "source": sample.meta["path"]}
    facts = validate(sample.video)
    rotated = f", rotated by {facts.rotation}°" if facts.rotation else ""
    return {
        "size": f"{facts.width} × {facts.height}{rotated}",
        "rate": f"{facts.fps:.2f} fps",
        "length": f"{facts.duration:.2f} s, {facts.frames} frames",
        "codec": f"{facts.codec}, {facts.pix_fmt}",
        "file": f"{sample.extension}, {len(sample.video) / 1e3:,.0f} kB",
        "source": sample.meta["path"],
    }
