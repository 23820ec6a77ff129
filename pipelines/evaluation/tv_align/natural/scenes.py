"""Templates with vocabularies of counting, direction, positions, sizes and colours.

A vocabulary holds only what goes with all four answers: things that may be of any number, colour or size, and movers
that may go in each of the four directions.
"""

from pipelines.evaluation.tv_align.natural.quads import RESTING, Quad

# One; several; what one does; what several do; where.
COUNTED = """
sailing boat|sailing boats|crosses|cross|a calm bay
balloon|balloons|drifts|drift|over a wheat field
swan|swans|swims|swim|across a pond at dawn
candle|candles|burns|burn|on a dark table
cyclist|cyclists|rides|ride|along an empty coastal road
dog|dogs|runs|run|along a wet beach
cat|cats|sleeps|sleep|on a sunny windowsill
horse|horses|grazes|graze|on a hillside
duck|ducks|waddles|waddle|across a garden path
child|children|jumps|jump|on a trampoline
skier|skiers|glides|glide|down a white slope
kite|kites|flies|fly|above a beach
goldfish|goldfish|swims|swim|in a round bowl
lantern|lanterns|sways|sway|above a courtyard
surfer|surfers|waits|wait|behind the breaking waves
tractor|tractors|works|work|in a brown field
penguin|penguins|stands|stand|on an ice floe
pigeon|pigeons|sits|sit|on a stone railing
dancer|dancers|turns|turn|on an empty stage
snail|snails|creeps|creep|over a mossy stone
firefighter|firefighters|climbs|climb|up a ladder
cup|cups|steams|steam|on a wooden counter
drone|drones|hovers|hover|above a lake
camel|camels|walks|walk|along a dune
bee|bees|crawls|crawl|over a sunflower
runner|runners|waits|wait|at a starting line
canoe|canoes|floats|float|on a green river
violinist|violinists|plays|play|in a subway hall
deer|deer|drinks|drink|from a forest stream
truck|trucks|stands|stand|in a dusty yard
butterfly|butterflies|rests|rest|on a lavender bush
robot|robots|rolls|roll|through a warehouse
umbrella|umbrellas|lies|lie|on a rainy pavement
paper plane|paper planes|glides|glide|through a classroom
fishing boat|fishing boats|rocks|rock|in a harbour
squirrel|squirrels|sits|sit|on a park bench
lamp|lamps|glows|glow|in a shop window
climber|climbers|hangs|hang|on a red rock face
"""
NUMBERS = ("one", "two", "three", "four", "five", "six")

# Who; how it moves; where.
ON_GROUND = """
red car|drives|on a desert plain
cat|walks|on a flat roof
snail|crawls|on a wet leaf
dog|trots|on an empty beach
tortoise|plods|on a gravel yard
skater|glides|on a frozen lake
robot vacuum|rolls|on a wooden floor
toy train|rolls|on a carpet
cyclist|rides|on a wide square
motorboat|drives|on a calm lake
swan|swims|on a dark pond
horse|gallops|on a meadow
child on a scooter|rides|on a playground
tractor|drives|on a stubble field
crab|scuttles|on a sandbank
beetle|crawls|on a table
woman in a yellow coat|walks|on a snowy field
man with a suitcase|walks|on an airport apron
goat|runs|on a pasture
marble|rolls|on a tray
duckling|paddles|on a canal
snowmobile|drives|on a glacier
fox|runs|on a mown lawn
football|rolls|on a pitch
wheelchair racer|rolls|on a car park
penguin|waddles|on an ice sheet
"""
IN_AIR = """
hot-air balloon|floats|in a clear sky
drone|flies|in front of a white wall
butterfly|flies|in front of a hedge
dragonfly|flies|above a pond
paper lantern|drifts|in the night sky
soap bubble|drifts|in a garden
spider|moves|on its web
goldfish|swims|in a tank
jellyfish|swims|in dark water
climber|moves|on a rock face
window cleaner's platform|moves|on a glass front
ladybird|crawls|on a window pane
"""
GROUND = ("To the left.", "To the right.", "Towards the camera.", "Away from the camera.")
AIR = ("To the left.", "To the right.", "Upwards.", "Downwards.")

# What is asked about; what it is seen from; where both are.
PLACED = """
clock|picture|a white wall
blue sticker|red sticker|a window pane
mirror|poster|a brick wall
mug|radio|a rack of open shelves
star-shaped magnet|round magnet|a fridge door
stamp|postmark|an envelope
keyhole|number plate|a garden gate
window|air vent|a concrete wall
teapot|vase|a cupboard with open shelves
cap|scarf|a wall of coat hooks
moon|church spire|a painted backdrop
photograph|certificate|an office wall
moth|beetle|a curtain
light switch|thermostat|a hallway wall
sun|cloud|a child's drawing
button|badge|a denim jacket
green tile|yellow tile|a bathroom wall
spider|fly|a window
logo|barcode|a cardboard box
shell|starfish|a sandy beach seen from above
spoon|fork|a tablecloth seen from above
lemon|lime|a tray seen from above
canoe|raft|a lake seen from above
red kayak|white buoy|a bay seen from above
coin|key|a desk seen from above
ladybird|ant|a leaf seen from above
tent|campfire|a meadow seen from above
truck|crane|a building site seen from above
chess king|chess queen|a board seen from above
dice|card|a green cloth seen from above
candle|bell|a stand of open shelves
owl|raven|a climbing plant on a wall
diver|turtle|a reef wall
climber|rope bag|a rock face
bird box|ivy branch|a barn wall
sundial|plaque|a tower wall
traffic sign|street lamp|a mural
balloon|kite|a cloudless sky
"""
SIDES = {
    "To its left.": "to the left of", "To its right.": "to the right of", "Above it.": "above", "Below it.": "below",
}  # fmt: skip

# Things of any size and colour, and where they are.
SIZED = """
balloon|balloons|float|in a hall
ball|balls|lie|on a lawn
box|boxes|stand|in a storeroom
cushion|cushions|lie|on a sofa
umbrella|umbrellas|lean|on a wall
vase|vases|stand|on a sideboard
tent|tents|stand|in a meadow
kite|kites|fly|over a beach
fish|fish|swim|in a tank
toy car|toy cars|roll|over a floor
lantern|lanterns|hang|from a tree
bucket|buckets|stand|on a pier
rug|rugs|hang|on a line
suitcase|suitcases|stand|on a platform
bowl|bowls|stand|on a shelf
flag|flags|wave|on a roof
cube|cubes|turn|on a glass table
candle|candles|burn|on a table
flower pot|flower pots|stand|on a step
boat|boats|float|on a pond
bag|bags|lie|on a bench
book|books|lie|on a desk
rubber duck|rubber ducks|float|in a bath
hat|hats|hang|on hooks
bottle|bottles|stand|on a window ledge
barrel|barrels|roll|down a ramp
dinosaur figure|dinosaur figures|stand|in sand
gift box|gift boxes|lie|under a tree
cup|cups|stand|on a tray
drum|drums|stand|on a stage
sail|sails|fill|in the wind
ribbon|ribbons|flutter|on a fence
paper boat|paper boats|drift|on a stream
button|buttons|lie|on a cloth
car|cars|stand|in a car park
robot|robots|walk|across a room
bird figure|bird figures|sit|on a shelf
door|doors|stand|in a row
"""

# What is asked about; what else is there; what both do, and where.
COLOURED = """
umbrella|coat|hang in a hallway
bicycle|door|are seen in a narrow lane
dress|hat|lie on a bed
kettle|stove|are seen in a kitchen
scarf|jumper|dry on a line
tractor|trailer|stand in a farmyard
ball|bucket|float in a pool
mug|teapot|stand on a tray
kite|balloon|fly over a beach
car|van|wait at a crossing
tent|canoe|stand by a lake
sofa|lamp|are seen in a living room
suitcase|trolley|roll through a station
boat|buoy|rock in a harbour
cushion|blanket|lie on a bench
scooter|helmet|stand by a fence
candle|plate|stand on a table
guitar|chair|are seen on a stage
ribbon|box|lie on a counter
glove|shovel|lie in the snow
bus|tram|pass a square
curtain|carpet|are seen in a hotel room
kayak|paddle|lie on a bank
towel|parasol|are seen on a beach
bowl|spoon|lie on a mat
flag|pole|stand on a hill
shirt|tie|hang in a shop window
toy train|tunnel|are seen on a carpet
backpack|bottle|stand on a rock
barrel|crate|stand on a quay
vase|clock|stand on a mantelpiece
hat|bag|lie on a car seat
rug|armchair|are seen in a study
shed|gate|are seen in a garden
drum|microphone|are seen on a platform
lantern|rope|hang on a wall
notebook|pencil|lie on a desk
hammock|tree house|are seen in an orchard
"""
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple")


def rows(table: str) -> list[list[str]]:
    """Returns the cells of a vocabulary's lines."""
    return [line.split("|") for line in table.strip().splitlines()]


def four(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Returns four neighbours of a list, from a place that moves on with the number."""
    return tuple(names[(number + k) % len(names)] for k in range(4))


def a(noun: str) -> str:
    """Returns a noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def counting() -> list[Quad]:
    quads = []
    for number, (one, several, does, do, where) in enumerate(rows(COUNTED)):
        first = number % 3
        who = {word: f"{several} {do}" for word in NUMBERS} | {"one": f"{one} {does}"}
        scenes = {f"{word.capitalize()}.": f"{word} {who[word]} {where}" for word in NUMBERS[first : first + 4]}
        quads.append(Quad(f"How many {several} are there?", scenes))
    return quads


def direction() -> list[Quad]:
    quads = []
    for table, answers in ((ON_GROUND, GROUND), (IN_AIR, AIR)):
        for who, moves, where in rows(table):
            scenes = {answer: f"{a(who)} {moves} {answer[0].lower()}{answer[1:-1]} {where}" for answer in answers}
            quads.append(Quad(f"In the picture, which way does the {who} move?", scenes, RESTING))
    return quads


def relative_position() -> list[Quad]:
    return [
        Quad(
            f"Where in the picture is the {one}, relative to the {other}?",
            {answer: f"{a(one)} is {side} {a(other)} on {where}" for answer, side in SIDES.items()},
            RESTING,
        )
        for one, other, where in rows(PLACED)
    ]


def relative_size() -> list[Quad]:
    quads = []
    for number, (one, several, do, where) in enumerate(rows(SIZED)):
        most = ("largest", "smallest")[number % 2]
        colours = four(COLOURS, number)[:3]
        named = f"{a(colours[0])}, {a(colours[1])} and {a(colours[2])} {one} {do} {where}"
        scenes = {f"The {colour} one.": f"{named}, and the {colour} one is by far the {most}" for colour in colours}
        scenes["They are equally large."] = f"{named}, and all three are equally large"
        quads.append(Quad(f"Which of the three {several} is the {most}?", scenes))
    return quads


def colour() -> list[Quad]:
    quads = []
    for number, (one, other, do) in enumerate(rows(COLOURED)):
        colours = four(COLOURS, number)
        scenes = {
            f"{own.capitalize()}.": f"{a(own)} {one} and {a(colours[(place + 1) % 4])} {other} {do}"
            for place, own in enumerate(colours)
        }
        quads.append(Quad(f"What colour is the {one}?", scenes))
    return quads
