"""All natural items: the quads of the seven categories, each question with each of its answers once."""

from data_tools.items import Item
from pipelines.evaluation.tv_align.natural import events, scenes
from pipelines.evaluation.tv_align.natural.quads import items_of

CATEGORIES = {
    "counting": scenes.counting,
    "direction": scenes.direction,
    "relative_position": scenes.relative_position,
    "relative_size": scenes.relative_size,
    "colour": scenes.colour,
    "state": events.state,
    "motion": events.motion,
}


def natural_items(seed: int = 0) -> list[Item]:
    """Returns the items. The seed draws the order of the options and the camera's clauses."""
    return [item for category, quads in CATEGORIES.items() for item in items_of(category, quads(), seed)]
