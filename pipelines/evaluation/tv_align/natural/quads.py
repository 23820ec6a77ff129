"""A quad: one question with four options, and four prompts, each with another one of the options as its answer.

So whoever sees the question and the options alone, and answers by any rule or knowledge, is right once in four.
"""

from dataclasses import dataclass

from data_tools.draws import Draws
from data_tools.items import Item, shuffled

OPTIONS = 4

# Further clauses of a prompt. Where the answer is a direction, a place or a motion in the picture, the camera rests.
RESTING = (
    "", "The camera does not move.", "Static wide shot in soft evening light.", "Still shot. The light is bright.",
    "Fixed camera at eye level, on a grey day.", "Seen from a tripod, in the early morning.",
    "Static shot with a blurred background.",
)  # fmt: skip
MOVING = (
    *RESTING, "The camera slowly moves closer.", "Handheld camera, natural light.", "The camera slowly draws back.",
    "The camera circles the scene slowly.",
)  # fmt: skip


@dataclass(frozen=True)
class Quad:
    """One question about four scenes.

    Attributes:
        question: The question.
        scenes: For each answer the sentence that it follows from, without a full stop.
        cameras: Further clauses that may follow.
    """

    question: str
    scenes: dict[str, str]
    cameras: tuple[str, ...] = MOVING

    def __post_init__(self):
        if len(self.scenes) != OPTIONS or len(set(self.scenes.values())) != OPTIONS:
            raise ValueError(f"a quad has {OPTIONS} answers with different scenes: {self.question}")


def items_of(category: str, quads: list[Quad], seed: int) -> list[Item]:
    """Returns the items of a category. The four of a quad have the same options in the same, drawn, order."""
    items = []
    for number, quad in enumerate(quads):
        draws, options = Draws(seed, number), tuple(quad.scenes)
        first = Item(f"{category}-{number}", category, "x", quad.question, options, options[0])
        options = shuffled(first, seed).options
        for place, (answer, scene) in enumerate(quad.scenes.items()):
            camera = quad.cameras[draws.integer(f"camera/{category}/{place}", len(quad.cameras))]
            prompt = f"{scene[0].upper()}{scene[1:]}. {camera}".strip()
            id = f"natural-{category}-{OPTIONS * number + place:03d}"
            items.append(Item(id, category, prompt, quad.question, options, answer))
    return items
