"""Batches of scenes for the models that are trained before the study proper: drawn anew at every step, never stored."""

import numpy as np
import torch
from torch import Tensor

from data_tools.draws import Draws
from data_tools.shapes import Scene, Thing, draw_scene, render

# Away from the seeds of the rendered splits: these models meet none of the clips that are trained or tested on.
OFFSET = 4_000_000
FRAMES = 3  # begin, middle and end


def scene_at(seed: int, position: int, split: str = "train") -> tuple[Scene, Draws]:
    draws = Draws(seed + OFFSET, position)
    return draw_scene(draws, split), draws


def frames_of(scene: Scene, size: int) -> Tensor:
    """(FRAMES, 3, size, size) ``uint8``."""
    return torch.from_numpy(render(scene, FRAMES, size)).permute(0, 3, 1, 2)


def picture_caption(scene: Scene, frame: int) -> str:
    """What one of the scene's frames shows: every thing with colour, shape and place."""
    return sentence([described(*seen) for seen in things_seen(scene, frame)])


def description(scene: Scene, caption: str) -> str:
    """A long caption: after ``caption`` what the scene shows first, last and between, each if it is new."""
    told: dict[str, str] = {}
    for when, frame in (("First", 0), ("Last", 2), ("Between", 1)):
        told.setdefault(picture_caption(scene, frame), when)
    return " ".join([caption, *(f"{when} {picture}." for picture, when in told.items())])


def swapped_caption(scene: Scene, frame: int) -> str | None:
    """The same with the colours of the first and another thing exchanged, if that makes it false."""
    seen = things_seen(scene, frame)
    others = [index for index in range(1, len(seen)) if seen[index][1] != seen[0][1]]
    if not others:
        return None
    (one, colour, place), (other, another, elsewhere) = seen[0], seen[others[0]]
    seen[0], seen[others[0]] = (one, another, place), (other, colour, elsewhere)
    return sentence([described(*each) for each in seen])


def things_seen(scene: Scene, frame: int) -> list[tuple[Thing, str, str]]:
    """Each thing that is there in a frame, with its colour and place then."""
    t = np.linspace(0, 1, FRAMES)[frame : frame + 1]
    return [
        (thing, thing.colour_after if thing.colour_after and t[0] > thing.when else thing.colour,
         place_of(*thing.centres(t)[0]))
        for thing in scene.things
        if thing.opacities(t)[0] > 0.5
    ]  # fmt: skip


def place_of(x: float, y: float) -> str:
    return f"{('top', 'middle', 'bottom')[third(y)]} {('left', 'centre', 'right')[third(x)]}"


def third(share: float) -> int:
    return min(2, max(0, int(3 * share)))


def described(thing: Thing, colour: str, place: str) -> str:
    return f"a {colour} {thing.shape} at the {place}"


def sentence(parts: list[str]) -> str:
    return " and ".join(parts) or "nothing"
