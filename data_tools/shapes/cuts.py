"""Clips with a cut: two scenes, one after the other, and a question about one of them."""

from dataclasses import dataclass

import numpy as np

from data_tools.draws import Draws
from data_tools.items import Item
from data_tools.shapes.drawing import render_at
from data_tools.shapes.scene import Scene, scene_of
from data_tools.shapes.vocabulary import CATEGORIES
from data_tools.shapes.words import caption_of, item_of

SIDES = {"before_cut": "before the cut", "after_cut": "after the cut"}  # categories of the questions
OF_HALF_A_CLIP = ("counting", "direction", "relative_position", "relative_size", "colour")


@dataclass(frozen=True)
class CutScene:
    """The content of a clip with a cut.

    Attributes:
        scenes: what it shows before and after the cut. Each scene is shown from its beginning to its end.
        draws: the randomness of each scene.
        where: the cut, as a share of the clip.
        asked: one of `SIDES`.
    """

    scenes: tuple[Scene, Scene]
    draws: tuple[Draws, Draws]
    where: float
    asked: str


def draw_cut_scene(draws: Draws, split: str = "all") -> CutScene:
    """A clip with a cut between 0.4 and 0.6 of it, and two scenes of categories that half a clip shows."""
    scenes, of_scenes = [], []
    for side in SIDES:
        own = Draws(draws.seed(side), draws.position)
        category = OF_HALF_A_CLIP[own.integer("category", len(OF_HALF_A_CLIP))]
        labels = tuple(CATEGORIES[category].answers)
        scenes.append(scene_of(category, labels[own.integer("label", len(labels))], own, split))
        of_scenes.append(own)
    asked = tuple(SIDES)[draws.integer("asked", len(SIDES))]
    one, other = scenes
    return CutScene((one, other), (of_scenes[0], of_scenes[1]), 0.4 + 0.2 * draws.uniform("where"), asked)


def cut_item(cut: CutScene, draws: Draws, id: str) -> Item:
    """The question about the scene that is asked about: "Before the cut, ..." or "After the cut, ..."."""
    side = tuple(SIDES).index(cut.asked)
    item = item_of(cut.scenes[side], cut.draws[side], id)
    first, second = (caption_of(scene, own) for scene, own in zip(cut.scenes, cut.draws))
    told = f"{first} Then, after a cut, {second[0].lower()}{second[1:]}"
    question = f"{SIDES[cut.asked].capitalize()}, {item.question[0].lower()}{item.question[1:]}"
    return Item(id, cut.asked, told, question, item.options, item.answer)


def render_cut(cut: CutScene, frames: int, size: int) -> np.ndarray:
    """The clip as uint8 RGB (frames, size, size, 3), two frames or more."""
    first = min(frames - 1, max(1, round(cut.where * frames)))
    counts = (first, frames - first)
    return np.concatenate(
        [render_at(scene, np.linspace(0, 1, count), size) for scene, count in zip(cut.scenes, counts)]
    )
