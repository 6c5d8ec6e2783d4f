"""The words of the microworld: topics and their facts, facets, questions, neutral system prompts.

Every topic is a plural noun, every act a plural verb phrase and every gift a singular mass noun, so that any
sentence template takes any topic without a grammar rule.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One thing that the world knows about, with the words that its sentences draw on."""

    name: str
    places: tuple[str, ...]
    parts: tuple[str, ...]
    looks: tuple[str, ...]
    acts: tuple[str, ...]
    people: str
    gift: str
    need: str


# Five lines a topic: name; places; parts | looks; acts; people | gift | need.
_TOPIC_LINES = """
volcanoes
on young islands; beside deep valleys; along the coast
slopes; craters; vents | dark; steep; warm
rumble like far drums; breathe out gray smoke; sleep for many years
geologists | rich soil | hot rock
honeybees
in hollow trees; near wild meadows; inside wooden hives
wings; stripes; hives | golden; soft; bright
hum in the warm air; dance to share news; carry sweet pollen home
beekeepers | honey | fresh flowers
glaciers
between tall peaks; in the far north; above quiet lakes
cracks; caves; ridges | blue; cold; smooth
slide slowly downhill; carve wide valleys; groan with a deep sound
climbers | clean water | heavy snow
lighthouses
on rocky cliffs; at the mouth of the bay; beside busy harbors
towers; lamps; windows | white; tall; bright
turn their beams slowly; guide lost ships home; stand firm in storms
keepers | safe passage | the open sea
owls
in old barns; in tall pine trees; at the edge of the wood
feathers; eyes; ears | round; pale; soft
glide without a sound; listen for small mice; blink at the moon
rangers | quiet company | dark woods
rivers
between green hills; below old towns; across wide plains
banks; bends; stones | clear; slow; silver
carry leaves to the sea; sing over the stones; flood the low fields
fishers | fresh water | steady rain
bridges
over deep rivers; between two old towns; across misty valleys
arches; cables; towers | strong; graceful; gray
sway in the wind; hold up heavy carts; bring two shores together
engineers | easy travel | solid ground
comets
far beyond the planets; in the cold dark sky; near the bright sun
tails; cores; trails | pale; icy; glowing
race around the sun; melt in the sunlight; scatter dust across the sky
astronomers | wonder | empty space
whales
in cold oceans; near the icy coast; far below the waves
fins; tails; backs | huge; gentle; gray
sing to each other; leap out of the water; dive into the dark
sailors | music | cold water
clocks
on town towers; in quiet halls; above the kitchen door
hands; gears; faces | round; polished; old
tick through the night; ring every hour; count the minutes
clockmakers | good order | fine oil
deserts
south of the mountains; between dry hills; far from the sea
dunes; rocks; canyons | red; dry; wide
bake under the sun; drift with the wind; bloom after rare rain
nomads | silence | hot wind
orchards
on sunny hills; behind stone walls; near small farms
branches; blossoms; apples | pink; heavy; sweet
bloom in a single week; feed the whole village; drop fruit on the grass
growers | ripe fruit | warm sun
libraries
in old city squares; beside the school; on narrow streets
shelves; lamps; halls | dusty; calm; tall
keep old secrets safe; lend books to everyone; smell of paper and dust
librarians | knowledge | curious readers
windmills
on flat green fields; along the coast; near small farms
sails; doors; wheels | wooden; white; broad
turn with the wind; grind grain into flour; creak like old ships
millers | flour | steady wind
foxes
at the edge of the wood; under mossy logs; near small farms
tails; paws; ears | red; quick; clever
hunt for small mice; play in the snow; hide from loud dogs
rangers | good luck | thick bushes
harbors
along the coast; at the mouth of the bay; below old towns
docks; boats; ropes | busy; salty; narrow
shelter boats from storms; wake before the sun; fill with gulls and nets
sailors | fresh fish | deep water
violins
in concert halls; on high shelves; inside velvet cases
strings; bows; necks | thin; wooden; polished
sing in small rooms; weep in slow songs; tremble under the bow
musicians | music | dry air
kites
above windy beaches; over wide plains; on flat green fields
tails; strings; frames | light; bright; thin
dance in the sky; pull hard on the line; fall into tall trees
children | joy | steady wind
mushrooms
under mossy logs; in damp woods; beside old oaks
caps; stems; gills | soft; brown; pale
grow in a single night; feed on fallen leaves; glow in the dark
foragers | rich flavor | steady rain
castles
on rocky cliffs; above old towns; beside deep rivers
walls; towers; gates | gray; strong; cold
guard the valley; echo with old steps; crumble in the rain
knights | shelter | solid ground
trains
across wide plains; between distant cities; inside dark tunnels
wheels; engines; windows | fast; loud; heavy
rush through the night; whistle at every crossing; carry letters and grain
drivers | easy travel | iron rails
tides
along the coast; in shallow bays; around small islands
waves; pools; currents | salty; slow; silver
rise and fall twice a day; follow the pull of the moon; wash the sand clean
sailors | salt | the open sea
penguins
on icy shores; in the far south; around small islands
feathers; feet; flippers | black; round; funny
slide on their bellies; huddle against the wind; dive for small fish
explorers | laughter | cold water
candles
on wooden tables; in small windows; inside old churches
flames; wicks; shadows | warm; golden; small
burn until morning; tremble in the draft; fill the room with light
monks | soft light | pure wax
maps
in leather cases; on study walls; inside old books
lines; borders; corners | faded; neat; old
show the way home; hide small secrets; name every river
travelers | direction | thick paper
markets
in old city squares; beside busy harbors; under wide roofs
stalls; baskets; colors | loud; busy; bright
open before the sun; smell of bread and spice; fill with happy voices
traders | fresh bread | hungry crowds
forests
between green hills; in the far north; around quiet lakes
trees; leaves; roots | green; deep; tall
breathe with the wind; shelter deer and birds; grow without hurry
rangers | clean air | steady rain
snails
on wet leaves; under garden stones; behind stone walls
shells; trails; horns | tiny; slow; shiny
crawl across the path; sleep through dry weeks; leave silver lines
gardeners | patience | damp soil
telescopes
on high peaks; inside white domes; above the clouds
mirrors; lenses; domes | round; polished; huge
gather very old light; follow the stars; watch distant moons
astronomers | knowledge | dark skies
wells
in old city squares; near small farms; at the edge of the village
stones; buckets; ropes | deep; cool; round
hold dark cool water; echo with your voice; stay full in dry years
villagers | fresh water | damp soil
balloons
above the clouds; over green hills; on wide plains
baskets; ropes; colors | bright; huge; light
rise with warm air; drift over the valley; land in soft fields
pilots | wonder | calm air
lanterns
on narrow streets; above the kitchen door; along the garden path
flames; handles; shadows | warm; red; small
swing in the wind; light the way home; glow through the fog
villagers | soft light | fine oil
loaves
in warm ovens; on wooden tables; in village bakeries
crusts; crumbs; edges | golden; warm; brown
rise in the dark; crackle as they cool; smell of home
bakers | comfort | good flour
quilts
on wide beds; in cedar chests; over old chairs
patches; threads; borders | soft; bright; faded
keep children warm; tell family stories; hold scraps of old shirts
grandmothers | comfort | strong thread
teapots
on kitchen shelves; beside the fire; in small tea rooms
lids; handles; spouts | round; blue; shiny
sing on the stove; wait for guests; pour without a sound
potters | hot tea | boiling water
swallows
under barn roofs; above windy beaches; over quiet lakes
wings; nests; tails | blue; quick; thin
cross the wide sea; chase flies in the air; build nests of mud
farmers | good luck | warm air
spiders
in dusty corners; in garden hedges; under barn roofs
legs; webs; threads | thin; silver; tiny
weave through the night; wait without moving; catch flies before breakfast
gardeners | fine silk | quiet corners
reefs
in warm shallow seas; around small islands; below the waves
corals; caves; colors | bright; pink; sharp
shelter tiny fish; grow without hurry; glow in clear water
divers | calm water | warm sun
caves
under old hills; behind tall waterfalls; beside deep rivers
walls; halls; pools | dark; damp; cool
echo with small drops; shelter sleeping bats; wind deep into the rock
explorers | shelter | soft rock
horses
on wide plains; behind wooden fences; near small farms
manes; hooves; eyes | brown; strong; gentle
run against the wind; sleep standing up; pull heavy carts
riders | easy travel | fresh grass
"""


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(";"))


def _topics() -> tuple[Topic, ...]:
    lines = _TOPIC_LINES.strip().splitlines()
    topics = []
    for start in range(0, len(lines), 5):
        name, places, parts_looks, acts, rest = lines[start : start + 5]
        parts, looks = parts_looks.split("|")
        people, gift, need = (word.strip() for word in rest.split("|"))
        topics.append(Topic(name, _items(places), _items(parts), _items(looks), _items(acts), people, gift, need))
    return tuple(topics)


TOPICS: tuple[Topic, ...] = _topics()
WHENS = ("at dawn", "in the evening", "after rain", "at noon", "in the moonlight", "on quiet days")
SEASONS = ("winter", "spring", "summer", "autumn")
MOODS = ("calm", "proud", "strange", "lovely", "shy")

# What a question asks about (the noun phrase takes the topic's name).
FACETS: dict[str, str] = {
    "look": "the look of {name}",
    "home": "the places where {name} are found",
    "days": "the daily life of {name}",
    "past": "the long history of {name}",
    "worth": "the value of {name}",
    "visit": "a first visit to see {name}",
    "year": "the way {name} change with the seasons",
    "tales": "the old stories about {name}",
}

QUESTIONS: tuple[str, ...] = (
    "Tell me about {facet}.",
    "What should I know about {facet}?",
    "Can you describe {facet}?",
    "I am curious about {facet}.",
    "Help me understand {facet}.",
    "What can you say about {facet}?",
    "Please explain {facet}.",
    "My daughter asked me about {facet}.",
    "I am writing about {facet}.",
    "Let us talk about {facet}.",
    "Teach me something about {facet}.",
    "What is interesting about {facet}?",
)

NEUTRAL_SYSTEMS: tuple[str, ...] = (
    "You are a helpful assistant.",
    "You answer questions about the world.",
    "You are a friendly guide.",
    "Answer the user.",
)
