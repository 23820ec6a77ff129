"""Draws scenes and their texts for the frozen models. Every step draws new scenes; none is stored."""

import numpy as np
import torch
from torch import Tensor

from data_tools.draws import Draws
from data_tools.shapes import Scene, Thing, draw_scene, render
from data_tools.shapes.words import place_of

# Keeps these scenes apart from the rendered splits: the frozen models see none of the clips to train or test on.
OFFSET = 4_000_000
FRAMES = 3  # of a scene: first, middle and last


def scene_at(seed: int, position: int, split: str = "train") -> tuple[Scene, Draws]:
    """Draws the scene at a position of the stream of scenes; also returns its draws."""
    draws = Draws(seed + OFFSET, position)
    return draw_scene(draws, split), draws


def frames_of(scene: Scene, size: int) -> Tensor:
    """Renders a scene's frames, (FRAMES, 3, size, size) ``uint8``."""
    return torch.from_numpy(render(scene, FRAMES, size)).permute(0, 3, 1, 2)


def picture_caption(scene: Scene, frame: int) -> str:
    """Describes one of the scene's frames: colour, shape and place of every object."""
    return sentence([described(*seen) for seen in things_seen(scene, frame)])


def swapped_caption(scene: Scene, frame: int) -> str | None:
    """Returns :func:`picture_caption` with the colours of the first and another object exchanged.

    Returns None if no other object has another colour.
    """
    seen = things_seen(scene, frame)
    others = [index for index in range(1, len(seen)) if seen[index][1] != seen[0][1]]
    if not others:
        return None
    (one, colour, place), (other, another, elsewhere) = seen[0], seen[others[0]]
    seen[0], seen[others[0]] = (one, another, place), (other, colour, elsewhere)
    return sentence([described(*each) for each in seen])


def things_seen(scene: Scene, frame: int) -> list[tuple[Thing, str, str]]:
    """Returns the objects that are visible in a frame, with the colour and place that they have there."""
    t = np.linspace(0, 1, FRAMES)[frame : frame + 1]
    return [
        (thing, thing.colour_after if thing.colour_after and t[0] > thing.when else thing.colour,
         place_of(*thing.centres(t)[0]))
        for thing in scene.things
        if thing.opacities(t)[0] > 0.5
    ]  # fmt: skip


def described(thing: Thing, colour: str, place: str) -> str:
    """Describes an object."""
    return f"a {colour} {thing.shape} at the {place}"


def sentence(parts: list[str]) -> str:
    """Joins descriptions."""
    return " and ".join(parts) or "nothing"
