"""The words for a scene: its caption, and its question with options."""

from data_tools.draws import Draws
from data_tools.items import Item, shuffled
from data_tools.shapes.scene import Scene, Thing
from data_tools.shapes.vocabulary import CATEGORIES, WAYS, sentence

FRAMINGS = ("{}", "in this clip {}", "in the video {}", "here {}")
OPTIONS = 4


def caption_of(scene: Scene, draws: Draws) -> str:
    """A caption of the scene, in wording that `draws` chooses."""
    category = CATEGORIES[scene.category]
    one, *others = scene.things
    clause = category.clauses[draws.integer("clause", len(category.clauses))]
    label = category.phrases[scene.label]
    if scene.category == "counting":
        label = f"{label} {one.colour} {one.shape}{'s' * (len(scene.things) > 1)}"
    elif scene.category == "state":
        label += f" {one.colour_after}" * (scene.label == "changes")
        if others:
            label += f" next to {' and '.join(map(_a, others))}"
    other = WAYS.get(scene.other_label, "")
    told = clause.format(a=_a(one), b=_a(others[0]) if others else "", label=label, other=other)
    return sentence(FRAMINGS[draws.integer("framing", len(FRAMINGS))].format(told))


def item_of(scene: Scene, draws: Draws, id: str) -> Item:
    """The scene's question with up to `OPTIONS` options; `draws` chooses the wrong ones and the order."""
    category = CATEGORIES[scene.category]
    one, other = scene.things[0], scene.things[-1]
    wrong = sorted(
        (label for label in category.answers if label != scene.label), key=lambda x: draws.seed(f"wrong/{x}")
    )
    if scene.other_label:  # always an option: it tests whether the two things are told apart
        wrong = [scene.other_label, *(label for label in wrong if label != scene.other_label)]
    options = tuple(category.answers[label] for label in [scene.label, *wrong[: OPTIONS - 1]])
    question = category.question.format(a=_the(one), b=_the(other), shape=one.shape)
    answer = category.answers[scene.label]
    return shuffled(Item(id, scene.category, caption_of(scene, draws), question, options, answer), draws.run_seed)


def _a(thing: Thing) -> str:
    return f"a {thing.size + ' ' if thing.size else ''}{thing.colour} {thing.shape}"


def _the(thing: Thing) -> str:
    return f"the {thing.colour} {thing.shape}"
