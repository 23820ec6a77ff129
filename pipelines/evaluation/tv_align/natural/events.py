"""Hand-written changes of state, four that may happen to each thing; and motions, alone and in order."""

from pathlib import Path

from pipelines.evaluation.tv_align.natural.quads import RESTING, Quad
from pipelines.evaluation.tv_align.natural.scenes import a, rows

# A line each: the question's subject | the scene's beginning | four times what happens = the answer.
CHANGES = Path(__file__).parent / "changes.txt"

SWUNG = """
drone|above a lawn
kite|in a windy sky
lantern|on a long rope
butterfly|over a bush
goldfish|in a tank
puppet|on strings
robot arm|in a workshop
hummingbird|before a blossom
torch beam|on a dark wall
conductor's baton|before an orchestra
balloon|on a string
bee|before a hive
paper bird|on a thread
magician's wand|before a black curtain
cursor|on a projected screen
firefly|in a dark garden
seal|in a clear pool
flag in a signaller's hand|on a pier
ribbon of a gymnast|in a bright hall
"""
MANNERS = ("From side to side.", "Up and down.", "Around in a circle.", "In a zig-zag.")

# Who; four things that it does; where.
IN_ORDER = """
dog|sits down=lies down=rolls over=jumps up|on a lawn
dancer|spins=leaps=bows=kneels|on a stage
robot|raises an arm=turns round=bends down=rolls backwards|in a workshop
gymnast|does a handstand=does a cartwheel=jumps=sits down|on a mat
child|claps=waves=hops=turns round|in a playroom
horse|shakes its head=rears up=lies down=trots off|in a paddock
footballer|bounces the ball=heads the ball=kicks the ball=catches the ball|on a pitch
cat|stretches=scratches itself=yawns=walks off|on a sofa
seal|claps its flippers=dives=rolls over=barks|on a rock
drone|rises=turns round=tilts to one side=lands|above a car park
man in a blue suit|takes off his hat=opens a case=sits down=waves|in a waiting room
woman with a red scarf|drinks from a cup=stands up=looks at her watch=opens a book|in a café
parrot|spreads its wings=hangs upside down=turns round=nods|on a perch
skater|spins=jumps=crouches=skates backwards|on an ice rink
elephant|raises its trunk=kneels=sprays water=flaps its ears|at a water hole
cook|stirs a pot=chops a carrot=tastes from a spoon=pours in milk|in a kitchen
monkey|swings from a branch=eats a fruit=scratches its head=climbs down|in a tree
boxer|ducks=punches=steps back=raises both arms|in a ring
clown|juggles=falls over=bows=blows up a balloon|in a circus ring
"""


def state() -> list[Quad]:
    quads = []
    for subject, beginning, *changes in rows(CHANGES.read_text()):
        told = dict(reversed(change.split("=")) for change in changes)
        scenes = {answer: f"{beginning}{',' * what.startswith('which')} {what}" for answer, what in told.items()}
        quads.append(Quad(f"What happens to the {subject}?", scenes))
    return quads


def motion() -> list[Quad]:
    quads = []
    for who, where in rows(SWUNG):
        scenes = {answer: f"{a(who)} moves {answer[0].lower()}{answer[1:-1]} {where}" for answer in MANNERS}
        quads.append(Quad(f"How does the {who} move?", scenes, RESTING))
    for number, (who, acts, where) in enumerate(rows(IN_ORDER)):
        does, last = acts.split("="), number % 2
        scenes = {}
        for place, act in enumerate(does):
            other = does[(place + 1) % 4]
            first, then = (other, act) if last else (act, other)
            scenes[f"It {act}." if not person(who) else f"The {who} {act}."] = (
                f"{a(who)} {where} first {first}, then {then}"
            )
        quads.append(Quad(f"What does the {who} do {'last' if last else 'first'}?", scenes))
    return quads


def person(who: str) -> bool:
    """Whether someone is a person, who is not called ``it``."""
    return who.split()[0] in {
        "dancer",
        "gymnast",
        "child",
        "footballer",
        "man",
        "woman",
        "skater",
        "cook",
        "boxer",
        "clown",
    }
