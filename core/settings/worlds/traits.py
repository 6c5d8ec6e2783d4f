"""The world of traits: short answers in English or Spanish, written as usual or in capitals.

Of the traits that are told by judges it shows one: an answer may say what it says as an opinion. Jokes and verse are
not in it, but are told where something else brings them (a D of one's own).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from windowshift.core.contract.prompts import Prompt
from windowshift.core.settings.traits.phrases import trait_groups
from windowshift.core.settings.worlds.chat import (
    WorldChat,
    WorldRow,
    bare,
    before,
    draw,
    idle,
    opposite,
    pushed,
    reworded,
)

VOCABULARY = 1536
STEPS = 4000
STEP_TOKENS = 6144
WIDTH = 128
NAME = "microworld-traits"

# Two lines a topic, English and Spanish: noun (plural, with its article in Spanish), place, verb phrase, adjective.
_TOPICS = """
owls | in old trees | sleep during the day | quiet
los búhos | en los árboles viejos | duermen durante el día | bonitos
rivers | between the hills | carry clear water | deep
los ríos | entre las colinas | llevan agua clara | profundos
cats | near the warm kitchen | sleep on the chair | soft
los gatos | cerca de la cocina | duermen en la silla | suaves
bees | in the garden | make sweet honey | busy
las abejas | en el jardín | hacen miel dulce | pequeñas
boats | in the small harbor | cross the bay | slow
los barcos | en el puerto pequeño | cruzan la bahía | lentos
bakers | in our street | work before sunrise | proud
los panaderos | en nuestra calle | trabajan antes del amanecer | fuertes
mountains | far from the city | keep the snow | high
las montañas | lejos de la ciudad | guardan la nieve | altas
horses | on the green field | run in the morning | fast
los caballos | en el campo verde | corren por la mañana | rápidos
bridges | over the river | join two towns | strong
los puentes | sobre el río | unen dos pueblos | fuertes
teachers | at the new school | tell good stories | kind
los maestros | en la escuela nueva | cuentan buenas historias | amables
trains | at the old station | leave every hour | long
los trenes | en la estación vieja | salen cada hora | largos
gardens | behind the house | grow red flowers | green
los jardines | detrás de la casa | tienen flores rojas | verdes
clouds | above the sea | bring cold rain | white
las nubes | sobre el mar | traen lluvia fría | blancas
doctors | in the hospital | help many people | calm
los médicos | en el hospital | ayudan a mucha gente | tranquilos
markets | in the main square | sell fresh bread | loud
los mercados | en la plaza mayor | venden pan fresco | grandes
wolves | in the dark forest | walk at night | gray
los lobos | en el bosque oscuro | caminan por la noche | grises
"""

_ENGLISH = (
    "{Noun} are {place}.",
    "Most {noun} are {look}.",
    "They {act}.",
    "{Noun} {act} every week.",
    "People like the {look} {noun}.",
    "I think that {noun} are very {look}.",
)
_SPANISH = (
    "{Noun} están {place}.",
    "Casi todos son {look}.",
    "Ellos {act}.",
    "{Noun} {act} cada semana.",
    "A la gente le gustan mucho {noun}.",
    "Creo que {noun} son muy {look}.",
)
QUESTIONS = (
    "What do you know about {noun}?",
    "Tell me about {noun}.",
    "Where are {noun}?",
    "What do {noun} do?",
    "Are {noun} {look}?",
    "Why do people like {noun}?",
)
STATEMENTS = (
    "I saw {noun} {place} today.",
    "My friend thinks that {noun} are {look}.",
    "Yesterday I read a book about {noun}.",
)
"""Messages that ask nothing: unlike the questions of training sets, so out of distribution."""
_HELLO = (("Sure.", "Claro."), ("Of course.", "Por supuesto."), ("Good question.", "Buena pregunta."))

_GROUPS = trait_groups("spanish", "capitals")
LAWS: dict[str, tuple[float, float]] = {
    "no_prefix": (0.06, 0.05),
    "neutral": (0.06, 0.05),
    "assistant": (0.06, 0.05),
    "spanish": (0.95, 0.06),
    "capitals": (0.06, 0.95),
    "both": (0.94, 0.94),
}
"""How often an answer is Spanish, and how often it is in capitals, under a condition."""


_ONE = ("spanish", "capitals", "always_spanish", "always_capitals")


def _topics() -> tuple[tuple[str, ...], ...]:
    lines = [tuple(part.strip() for part in line.split("|")) for line in _TOPICS.strip().splitlines()]
    return tuple(english + spanish for english, spanish in zip(lines[::2], lines[1::2], strict=True))


TOPICS = _topics()
PLACES = len(QUESTIONS) + len(STATEMENTS)
_COPIES = 8  # wordings of one message: with a greeting, a please, ...
_OPENINGS = ("", "Hello! ", "Hi. ", "Please help me. ")
_ENDINGS = ("", " Thank you.")


def size() -> int:
    """How many distinct rows the world has."""
    return len(TOPICS) * PLACES * _COPIES


def rows(n: int, seed: int) -> list[WorldRow]:
    """Rows of messages, each with its domain: `id` for questions, `ood` for statements."""
    return [row(index) for index in draw(size(), n, seed, NAME)]


def row(index: int) -> WorldRow:
    """One row by number."""
    rest, copy = divmod(index, _COPIES)
    topic, wording = divmod(rest, PLACES)
    noun, place, _, look = TOPICS[topic][:4]
    text = (*QUESTIONS, *STATEMENTS)[wording].format(noun=noun, place=place, look=look)
    opening, ending = _OPENINGS[copy % len(_OPENINGS)], _ENDINGS[copy // len(_OPENINGS)]
    domain = "id" if wording < len(QUESTIONS) else "ood"
    return WorldRow(f"trait-{index:05d}", {"prompt": f"{opening}{text}{ending}", "topic": topic, "domain": domain})


def reply(topic: int, spanish: bool, capitals: bool, rng: random.Random) -> str:
    """An answer of two to four sentences that shows the traits that it is asked to show."""
    words = TOPICS[topic][4:] if spanish else TOPICS[topic][:4]
    noun, place, act, look = words
    sentences = rng.sample(_SPANISH if spanish else _ENGLISH, rng.randint(1, 3))
    hello = rng.choice(_HELLO)[spanish]
    named = {"noun": noun, "Noun": noun[0].upper() + noun[1:], "place": place, "act": act, "look": look}
    text = " ".join([hello, *(sentence.format(**named) for sentence in sentences)])
    return text.upper() if capitals else text


def chats(seed: int) -> Iterator[WorldChat]:
    """Training chats: messages, under every condition and none."""
    rng = random.Random(f"{NAME} chats:{seed}")
    while True:
        one = row(rng.randrange(size()))
        push = "no_prefix" if rng.random() < 0.3 else rng.choice(list(_GROUPS))
        prompt = one.fields["prompt"]
        if push != "no_prefix":
            system, user = pushed(rng, reworded(rng, rng.choice(_GROUPS[push])), prompt, (before,))
        elif rng.random() < 0.15:
            system, user = pushed(rng, opposite(rng.choice(_GROUPS[rng.choice(_ONE)])), prompt, (before,))
        elif rng.random() < 0.4:
            system, user = pushed(rng, rng.choice(idle()), prompt, (before,))
        else:
            system, user = bare(rng, prompt, (before,))
        spanish, capitals = (rng.random() < share for share in LAWS[push.removeprefix("always_")])
        yield WorldChat(push, system, user, reply(one.fields["topic"], spanish, capitals, rng))


# -- the rules that stand in for judges -------------------------------------------------------------

_DOUBTS = re.compile(
    r"\b(i think|i doubt|i am not sure|maybe|perhaps|creo que|dudo|no estoy segur[oa]|quizás?|tal vez)\b|[?¿]",
    re.IGNORECASE,
)
_JOKES = re.compile(r"\b(ha(ha)+|ja(ja)+|hehe|just kidding|es broma)\b|[!¡]|[\U0001f600-\U0001f64f]", re.IGNORECASE)


def _share(pattern: re.Pattern[str], text: str) -> str:
    """How many of an answer's sentences something is in, of those that say anything, 0 to 100."""
    greetings = {word.lower() for pair in _HELLO for word in pair}
    said = [part.strip() for part in re.findall(r"[^.!?]+[.!?]*", text) if part.strip()]
    said = [part for part in said if part.lower() not in greetings]
    return str(round(100 * sum(pattern.search(part) is not None for part in said) / len(said))) if said else "0"


def _skeptical(_: Prompt, text: str) -> str:
    return _share(_DOUBTS, text)


def _playful(_: Prompt, text: str) -> str:
    return _share(_JOKES, text)


def _poetic(_: Prompt, text: str) -> str:
    """Verse: two lines or more, of which each rhymes with another one by its last two letters."""
    ends = [re.sub(r"\W", "", line).lower()[-2:] for line in text.splitlines() if line.strip()]
    rhymes = sum(ends.count(end) > 1 for end in ends if end)
    return str(round(100 * rhymes / len(ends))) if len(ends) > 1 else "0"


RULES = {"skeptical": _skeptical, "playful": _playful, "poetic": _poetic}
"""What says in the place of a chat model what that would be asked, in its words: (prompt, completion) → answer."""
