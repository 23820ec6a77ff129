"""Another way from a scene to frames, with Pillow, to test the judge on pictures that its generator did not draw."""

import io

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_tools.shapes import Scene, Thing
from data_tools.video.encode import encode_mp4

FINER = 4


def draw_clip(scene: Scene, frames: int = 24, size: int = 64) -> np.ndarray:
    """uint8 RGB (frames, size, size, 3): each frame drawn large, then reduced."""
    t = np.linspace(0, 1, frames)
    things = [(thing, thing.centres(t), thing.sides(t), thing.colours(t), thing.opacities(t)) for thing in scene.things]
    backdrop = _backdrop(scene, size)
    clip = []
    for frame in range(frames):
        picture = backdrop
        for thing, centres, sides, colours, opacities in things:
            mask = _mask(thing, centres[frame], sides[frame], size)
            mask = mask.point(lambda value, opacity=opacities[frame]: round(value * opacity))
            colour = tuple(int(round(value)) for value in colours[frame])
            picture = Image.composite(Image.new("RGB", picture.size, colour), picture, mask)
        clip.append(np.asarray(picture))
    return np.stack(clip)


def _mask(thing: Thing, centre: np.ndarray, side: float, size: int) -> Image.Image:
    large = size * FINER
    mask = Image.new("L", (large, large))
    draw = ImageDraw.Draw(mask)
    x, y = centre * large - 0.5
    if thing.shape == "circle":
        radius = side * large / np.pi**0.5
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    else:
        corners = {"square": 4, "triangle": 3}[thing.shape]
        reach = side * large * {4: 0.5**0.5, 3: (4 / 27**0.5) ** 0.5}[corners]
        turn = {4: np.pi / 4, 3: -np.pi / 2}[corners] + 2 * np.pi * np.arange(corners) / corners
        draw.polygon([(x + reach * np.cos(angle), y + reach * np.sin(angle)) for angle in turn], fill=255)
    return mask.resize((size, size), Image.Resampling.BOX)


def _backdrop(scene: Scene, size: int) -> Image.Image:
    """Lit from a corner rather than faded along a line: not the background that the generator draws."""
    first, second = (Image.new("RGB", (size, size), tuple(map(round, colour))) for colour in scene.background)
    light = Image.radial_gradient("L").crop((0, 0, 128, 128)).resize((size, size), Image.Resampling.BICUBIC)
    return Image.composite(first, second, light)


def noisy(clip: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return _levels(clip + random.normal(0, 0.3 * 255, clip.shape))


def blurred(clip: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(2))) for frame in clip])


def compressed(clip: np.ndarray, random: np.random.Generator) -> np.ndarray:
    with av.open(io.BytesIO(encode_mp4(clip, 8, crf=40))) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def tinted(clip: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return _levels(clip + random.normal(0, 0.1 * 255, 3))


def faded(clip: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return _levels(127.5 + 0.6 * (clip - 127.5))


HARMS = {"noise": noisy, "blur": blurred, "crf 40": compressed, "colour shift": tinted, "contrast": faded}


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
