"""The sizes of a motion codec, and its two forms.

``published`` is the paper's: 24 frames of 20 x 36 vectors become 3 x 5 x 9 = 135 codes of a vocabulary of 1,024.

``budget`` has VTok's number of tokens: 24 frames become 4 x 2 x 3 = 24 codes. At 6 frames per second these are 6 codes
per second, as VTok has 6 motion tokens per second. Five seconds cost 16 + 30 = 46 tokens in both. A second is divided
into 2 x 3 cells rather than in time, since the cells tell where something moves, which is what the codec's vectors add.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vtok.config import member, require, require_sizes

Stride = tuple[int, int, int]


@dataclass(frozen=True)
class MotionCodecConfig:
    """The architecture of a motion codec.

    Args:
        frames: Frames of a clip.
        height, width: Cells of a frame's vectors, to which the encoder's own grid of 16 x 16 pixels is resized.
        strides: For each stage, by how much it shrinks time, height and width.
        blocks: Blocks of each stage.
        channels: Width of the blocks.
        heads: Heads of their attention.
        codes: Size of the codebook.
        code_dim: Width of a code's vector.

    Raises:
        ConfigError: The strides do not divide the clip, or the heads the channels.
    """

    frames: int = 24
    height: int = 20
    width: int = 36
    strides: tuple[Stride, ...] = ((1, 2, 2), (2, 1, 1), (2, 1, 1), (2, 2, 2))
    blocks: int = 3
    channels: int = 512
    heads: int = 8
    codes: int = 1024
    code_dim: int = 32

    def __post_init__(self) -> None:
        sizes, total = (self.frames, self.height, self.width), self.stride
        require(
            all(size % step == 0 for size, step in zip(sizes, total)),
            f"a motion codec's strides {total} should divide its clip of {' x '.join(map(str, sizes))}",
        )
        require(self.channels % self.heads == 0, "a motion codec's heads should divide its channels")
        require(min(self.codes, self.code_dim, self.blocks) >= 1, "a motion codec's sizes must be at least 1")

    @property
    def stride(self) -> Stride:
        """By how much all stages together shrink time, height and width."""
        time, height, width = (math.prod(axis) for axis in zip(*self.strides))
        return time, height, width

    @property
    def grid(self) -> Stride:
        """Codes of a clip: steps in time, rows and columns."""
        time, height, width = self.stride
        return self.frames // time, self.height // height, self.width // width

    @property
    def cells(self) -> int:
        """Codes of one step in time."""
        return self.grid[1] * self.grid[2]


FORMS: dict[str, dict[str, Any]] = {
    "published": {},
    "budget": dict(strides=((2, 2, 3), (3, 5, 4)), blocks=2, channels=64, heads=4),
}


def triples(strides: Any) -> tuple[Stride, ...]:
    """Returns strides, read from JSON or YAML, as a motion codec has them; raises ConfigError if they are none."""
    rows = strides if isinstance(strides, (list, tuple)) else []
    fits = [
        isinstance(row, (list, tuple)) and len(row) == 3 and all(type(n) is int and n >= 1 for n in row) for row in rows
    ]
    require(
        bool(rows) and all(fits),
        f"a motion codec's strides are {strides!r}, but must be a list of stages, each with three whole numbers",
    )
    return tuple((row[0], row[1], row[2]) for row in rows)


def codec_config(settings: Mapping[str, Any] | None = None) -> MotionCodecConfig:
    """Returns the sizes that settings name: ``form`` (``budget`` if omitted), and the fields that differ from it.

    Raises:
        ConfigError: The form or a field does not exist, or the sizes do not fit together.
    """
    changes = dict(settings or {})
    values = member(FORMS, changes.pop("form", "budget"), "a motion codec's form") | changes
    require_sizes("a motion codec", values, {"form": None} | {f.name: f.default for f in fields(MotionCodecConfig)})
    if "strides" in values:
        values["strides"] = triples(values["strides"])
    return MotionCodecConfig(**values)
