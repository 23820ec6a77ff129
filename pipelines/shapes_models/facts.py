"""Expresses the facts of a caption as classes. They cover all questions of the pixel judge."""

import torch
import torch.nn.functional as F
from torch import Tensor

from data_tools.shapes import CATEGORIES, COLOURS, SHAPES, Scene, Thing
from data_tools.shapes.scene import SIDES

LABELS = [(category, label) for category, about in CATEGORIES.items() for label in about.answers]
COLOURED, SHAPED, SIZED = ("", *COLOURS), ("", *SHAPES), ("", *SIDES)
TOLD = 3  # things, at most
THING = (SHAPED, COLOURED, SIZED)
CLASSES = (LABELS, ("", *CATEGORIES["two_movers"].answers), COLOURED, *TOLD * THING)
LOGITS = sum(map(len, CLASSES))


def facts_of(scene: Scene) -> list[int]:
    """Returns the index in each of ``CLASSES`` that the scene's caption tells, or 0 if it tells none."""
    things = [scene.things[0]] if scene.category == "counting" else list(scene.things)
    other = scene.other_label if scene.category == "two_movers" else ""
    told = [(scene.category, scene.label), other, things[0].colour_after]
    for place in range(TOLD):
        told += looks(things[place]) if place < len(things) else ("", "", "")
    return [list(names).index(name) for names, name in zip(CLASSES, told)]


def looks(thing: Thing) -> tuple[str, str, str]:
    """Returns the shape, the colour and the size of a thing in a caption. Without a size it is ``""``."""
    return thing.shape, thing.colour, thing.size


def facts_loss(logits: Tensor, facts: Tensor) -> Tensor:
    """Returns the cross-entropy of logits (n, LOGITS), summed over the facts (n, len(CLASSES)), a scalar."""
    return torch.stack([F.cross_entropy(one, fact) for one, fact in zip(parts(logits), facts.unbind(1))]).sum()


def all_right(logits: Tensor, facts: Tensor) -> Tensor:
    """Returns whether each row of logits (n, LOGITS) gets every fact (n, len(CLASSES)) right, (n,)."""
    told = torch.stack([one.argmax(-1) for one in parts(logits)], dim=1)
    return (told == facts).all(1)


def parts(logits: Tensor) -> tuple[Tensor, ...]:
    """Splits logits (n, LOGITS) into one tensor for each of ``CLASSES``."""
    return logits.split([len(names) for names in CLASSES], dim=-1)
