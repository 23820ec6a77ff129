"""Damage in an FLV file, which repeats the size of each tag behind it. FFmpeg 8 reads on where the two differ."""

from data_tools.errors import BadVideo
from data_tools.video.container import Source, content

HEAD = 11  # bytes of a tag before its body
REPEATED = 4  # bytes of the size behind a tag


def check_tags(source: Source) -> None:
    """Raise BadVideo if a tag's size is not that of the field after it, which may exclude the head, as in FFmpeg."""
    data = content(source)
    at = int.from_bytes(data[5:9]) + REPEATED
    while (end := at + HEAD + int.from_bytes(data[at + 1 : at + 4])) + REPEATED <= len(data):
        told = int.from_bytes(data[end : end + REPEATED])
        if told not in (end - at, end - at - 1, end - at - HEAD, 0):
            raise BadVideo(
                "corrupt", f"the FLV tag at byte {at} has {end - at} bytes, but the size field after it says {told}"
            )
        at = end + REPEATED
