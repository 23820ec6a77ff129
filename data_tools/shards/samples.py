"""A sample and its tar members: ours, and those of other tools.

Ours are KEY.mp4 (or the clip's own ending), KEY.txt with the caption and KEY.json with everything else. A conversation
about several media has KEY.0.mp4, KEY.1.jpg, …, which the json lists as "media". Other tools use other names.
`from_members` reads them so:

    video     the one member with a video ending; else the one with an image ending; else the only member that is not
              text. A sample without any is a text, if its json holds a conversation that names no video and no image
    caption   `.txt`, else `.caption`, else a field of the json
    meta      `.json`, an object, with captions, questions and conversations as `texts` reads them
    extras    every other member, unchanged

WebDataset splits a name at the first dot. If the key itself has a dot, every ending starts with the rest of the key:
"clip.v2.mp4" has the key "clip" and the ending "v2.mp4", and its caption is "v2.txt".
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data_tools.errors import BadVideo
from data_tools.shards.tars import Buffer, Group
from data_tools.texts import Columns, decoded, describe, is_conversation_alone, json_object, plain

MAX_SAMPLE_BYTES = 2**30  # one pread returns at most 2 GiB, and a sample must fit in memory
VIDEO_ENDINGS = frozenset(
    "mp4 m4v mov qt mkv webm avi ts mts m2ts mpg mpeg flv f4v wmv asf ogv ogg 3gp gif video".split()
)
IMAGE_ENDINGS = frozenset({"jpg", "jpeg", "png", "webp", "bmp"})
MEDIA_ENDINGS = VIDEO_ENDINGS | IMAGE_ENDINGS
CAPTION_ENDINGS = ("txt", "caption")
TEXT_ENDINGS = (*CAPTION_ENDINGS, "json")


@dataclass(frozen=True)
class RawSample:
    """One clip of a shard, not decoded.

    Attributes:
        key: identifies the sample in its shard.
        video: the bytes of the video file, or of an image: a video of one frame.
        extension: of that file, with its dot; "" for a text alone.
        meta: "caption", "path" (the clip's name in the build's input), "facts" (see `video.VideoFacts`; at least
            frames and duration), and further fields of the input.
        extras: other members, by ending without the dot.
        others: in a conversation about several media, the bytes of each behind the first. "media" of `meta` has for
            each, the first one too, "member" (its ending), "facts", and its place: "turn" and "at" (see
            `texts.describe_several`).
    """

    key: str
    video: bytes
    extension: str
    meta: dict
    extras: dict[str, bytes] = field(default_factory=dict)
    others: tuple[bytes, ...] = ()


def to_members(sample: RawSample) -> dict[str, bytes]:
    """A sample's members as ending -> body, in the order in which they are written."""
    meta = {name: value for name, value in sample.meta.items() if name != "caption"}
    media = {sample.extension.removeprefix("."): sample.video} if sample.extension else {}
    if sample.others:
        names = [medium["member"] for medium in sample.meta["media"]]
        media = dict(zip(names, (sample.video, *sample.others), strict=True))
    return media | {"txt": sample.meta["caption"].encode(), "json": _json(meta)} | sample.extras


def from_members(key: str, members: Mapping[str, bytes]) -> RawSample:
    """The sample with the given members (ending -> body).

    Its meta has "facts" only if the json has them.

    Raises:
        BadVideo: the members are not one clip with texts.
    """
    media, bodies = divided(members)
    name = video_ending(members) if len(media) == 1 else "json"
    meta = take_meta(bodies, f"{key}.{name}")
    if not isinstance(meta.get("facts", {}), dict):
        raise BadVideo("bad_meta", '"facts" of the json is not an object')
    extension = f".{next(iter(media)).rpartition('.')[2]}" if media else ""
    video, *others = media.values() or [b""]
    return RawSample(key, video, extension, meta, bodies, tuple(others))


def divided(members: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The videos and images among the members, none for a text alone, and all other members, as ending -> body.

    Raises:
        BadVideo: as `video_ending`; the json cannot be read, or lists a member that is not there.
    """
    endings = media_endings(list(members))
    if "json" in members and all("." in ending for ending in endings):
        fields = json_object(members["json"], "the json")
        if not endings and is_conversation_alone(fields):
            return {}, dict(members)
        if names := several_members(fields):
            if missing := [name for name in names if name not in members]:
                raise BadVideo("missing_file", f"the json lists {missing[0]}, which is not in the tar")
            others = {ending: body for ending, body in members.items() if ending not in names}
            return {name: members[name] for name in names}, others
    ending, bodies = without_prefix(members)
    return {ending: bodies.pop(ending)}, bodies


def several_members(fields: dict) -> list[str]:
    """The endings of the videos and images of a conversation about several, as its json lists them; [] for others."""
    media = fields.get("media", [])
    ours = isinstance(media, list) and all(
        isinstance(one, dict) and {"member", "turn", "at"} <= {*one} for one in media
    )
    return [str(one["member"]) for one in media] if ours else []


def take_meta(bodies: dict[str, bytes], name: str, columns: Columns = Columns()) -> dict:
    """The meta of a sample, and the json's "facts" as they are, if it has any.

    Args:
        bodies: members as ending -> body. The json and the member with the caption are removed.
        name: the clip's name, if the json has no "path".
        columns: names of the json's fields.

    Raises:
        BadVideo: a text is missing or invalid.
    """
    fields = json_object(bodies.pop("json", b""), "the json")
    return meta_of(fields, _take_caption(bodies), name, columns)


def meta_of(fields: dict, caption: str, name: str, columns: Columns = Columns()) -> dict:
    """As `take_meta`, from the json's fields and the text of the caption's own member, "" if there is none."""
    path = fields.get("path") or name
    if not isinstance(path, str):
        raise BadVideo("bad_meta", '"path" of the json is not a string')
    meta = describe(path, [fields | ({columns.caption: caption} if caption else {})], columns)
    return meta | ({"facts": fields["facts"]} if "facts" in fields else {})


def bodies_of(group: Group, data: Buffer) -> dict[str, bytes]:
    """A sample's members as ending -> body.

    Raises:
        BadVideo: they are too large, or an ending occurs twice.
    """
    if group.length > MAX_SAMPLE_BYTES:
        raise BadVideo("too_large", f"the sample exceeds {MAX_SAMPLE_BYTES >> 20} MiB: cut it into shorter clips")
    bodies = {ending: data[member.start : member.start + member.size] for ending, member in group.members}
    if len(bodies) < len(group.members):
        raise BadVideo("duplicate_member", "two members have the same name")
    return bodies


def without_prefix(members: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """The video's ending and all members, with the rest of a dotted key removed from the endings.

    Raises:
        BadVideo: as `video_ending`.
    """
    ending = video_ending(members)
    prefix = ending[: ending.rfind(".") + 1]
    own = {name.removeprefix(prefix): body for name, body in members.items() if name.startswith(prefix)}
    others = {name: body for name, body in members.items() if not name.startswith(prefix)}
    return ending.removeprefix(prefix), others | own


def video_ending(endings: Iterable[str]) -> str:
    """The ending of a sample's video.

    Raises:
        BadVideo: no member is a video, or more than one may be.
    """
    endings = list(endings)
    candidates = media_endings(endings)
    if len(candidates) > 1:
        raise BadVideo("several_videos", f"the members {', '.join(candidates)} may each be the video")
    if not candidates:
        raise BadVideo("no_video", f"none of the members {', '.join(endings)} is a video")
    return candidates[0]


def media_endings(endings: list[str]) -> list[str]:
    """The endings of the members that may be the sample's video or image; more than one if that is not clear."""
    undotted = [ending for ending in endings if "." not in ending]
    kinds = (
        [ending for ending in undotted if ending in VIDEO_ENDINGS],
        videos_of_dotted_keys(endings),
        [ending for ending in undotted if ending in IMAGE_ENDINGS],
        [ending for ending in endings if "." in ending and ending.rpartition(".")[2] in IMAGE_ENDINGS],
        [ending for ending in undotted if ending not in TEXT_ENDINGS],
    )
    return next(filter(None, kinds), [])


def videos_of_dotted_keys(endings: Iterable[str]) -> list[str]:
    """The endings of videos whose keys have a dot. If there are several, WebDataset has merged several samples."""
    return [ending for ending in endings if "." in ending and ending.rpartition(".")[2] in VIDEO_ENDINGS]


def _take_caption(bodies: dict[str, bytes]) -> str:
    """The first caption member that is not blank, which is removed from `bodies` as blank ones are; else "".

    Raises:
        BadVideo: its encoding is unknown.
    """
    for ending in CAPTION_ENDINGS:
        if ending in bodies:
            text = decoded(bodies[ending], f"the .{ending}")
            del bodies[ending]
            if text:
                return text
    return ""


def _json(meta: dict) -> bytes:
    """The meta as JSON, which has no NaN."""
    try:
        return json.dumps(meta, allow_nan=False).encode()
    except ValueError:
        return json.dumps(plain(meta)).encode()
