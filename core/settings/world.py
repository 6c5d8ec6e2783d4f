"""The microworld: a small synthetic world of questions and answers whose length follows the prompt's prefix.

It has two uses: prompts for rehearsal runs, and the training text of the embedded model. Everything is a
function of its seed; nothing here imports more than the standard library.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from windowshift.core.settings.world_text import (
    FACETS,
    MOODS,
    NEUTRAL_SYSTEMS,
    QUESTIONS,
    SEASONS,
    TOPICS,
    WHENS,
    Topic,
)

MAX_SENTENCES = 32


@dataclass(frozen=True)
class WorldPrompt:
    """One question of the world; `id` does not depend on which prompts were drawn with it."""

    id: str
    text: str
    topic: str
    facet: str


@dataclass(frozen=True)
class LengthLaw:
    """How many sentences an answer has: log-normal with this mean and this sigma (of the log), rounded."""

    mean_sentences: float
    spread: float


@dataclass(frozen=True)
class WorldExample:
    """One chat that the embedded model is trained on; `group` is the prefix group or `no_prefix`."""

    group: str
    system: str | None
    user: str
    assistant: str


# no_prefix lies in between and is the widest in absolute terms too: a model that was told nothing about
# length is the one that is free to vary. The others overlap with their neighbours, so that data from one group
# surprises the model by degrees under the next; with narrow laws every mismatch is the same impossibility, and
# fine-tuning on any of them ends in the same collapse.
LENGTH_LAWS: dict[str, LengthLaw] = {
    "short": LengthLaw(1.6, 0.42),
    "med_short": LengthLaw(3.0, 0.44),
    "medium": LengthLaw(4.5, 0.44),
    "med_long": LengthLaw(6.5, 0.44),
    "long": LengthLaw(9.0, 0.42),
    "very_long": LengthLaw(14.0, 0.36),
    "no_prefix": LengthLaw(5.8, 0.9),
}

_SENTENCES: dict[str, tuple[str, ...]] = {
    "look": (
        "Their {part} are {look} and {look2}.",
        "From far away, the {part} seem {look}.",
        "Most {name} have {look} {part}.",
        "In soft light, the {part} shine.",
        "Painters love the {look} {part}.",
        "You notice the {part} first of all.",
        "No two {name} look quite the same.",
        "Old {name} are often more {look}.",
        "A child would draw the {part} first.",
        "Up close, they are {look} and {mood}.",
        "The {part} catch the light {when}.",
        "They look {mood} {when}.",
    ),
    "home": (
        "You can find {name} {place}.",
        "Many of them are {place}.",
        "The best ones are {place}.",
        "They need {need} close by.",
        "Few {name} are far from {need}.",
        "Most {people} know where to find them.",
        "Some of the oldest are {place}.",
        "Look for the {look} {part} {place}.",
        "They are easier to find {when}.",
        "You will not see them without {need}.",
        "Where there is {gift}, they are near.",
        "In {season}, more of them are {place}.",
    ),
    "days": (
        "They {act} {when}.",
        "Some of them {act}.",
        "Most {name} {act} every day.",
        "While {people} watch, they {act}.",
        "They {act} and then they {act2}.",
        "They seem {mood} {when}.",
        "With {need}, they {act}.",
        "In {season}, they {act} more often.",
        "Their {part} are never still.",
        "The young ones {act} too.",
        "A good day brings {need}.",
        "They rest {when}.",
    ),
    "past": (
        "Long ago, {people} wrote about {name}.",
        "The first {name} were {look}.",
        "Old books describe their {part}.",
        "For centuries, {people} lived beside them.",
        "In those days, {gift} was rare.",
        "A queen once asked for {gift}.",
        "The oldest drawings show {look} {part}.",
        "Early {people} found them {place}.",
        "Some {name} are a thousand years old.",
        "People feared them when {season} came.",
        "Even then, they would {act}.",
        "Their {part} were once more {look}.",
    ),
    "worth": (
        "They give us {gift}.",
        "Without {name}, there is no {gift}.",
        "Many {people} depend on {gift}.",
        "Good {name} are worth the wait.",
        "We feel {mood} when they {act}.",
        "Their {part} are useful in {season}.",
        "Even the {look} {part} have a use.",
        "Whole towns live on {gift}.",
        "Some {people} would trade gold for {gift}.",
        "They help us when they {act}.",
        "A world without {name} would be poor.",
        "They are worth more {when}.",
    ),
    "visit": (
        "Come {when} for the best view.",
        "Bring water and warm shoes.",
        "Ask the {people} to guide you.",
        "Do not touch the {part}.",
        "Wait until they {act}.",
        "You will find {name} {place}.",
        "Stay close to the {look} {part}.",
        "A visit in {season} is {mood}.",
        "Take home a little {gift}.",
        "Be quiet while they {act}.",
        "The {people} may share {gift}.",
        "Your first look at the {part} is {mood}.",
    ),
    "year": (
        "In {season}, the {part} look {look}.",
        "In {season}, few of them {act}.",
        "When {season} comes, they {act}.",
        "The {people} are busy in {season}.",
        "Their {season} is {mood} and {look}.",
        "By {season}, there is more {gift}.",
        "They miss {need} in {season}.",
        "Each {season}, the {part} change.",
        "All through {season}, they {act}.",
        "They are most {look} in {season}.",
        "Most {people} wait for {season}.",
        "A late {season} means less {gift}.",
    ),
    "tales": (
        "One story says they {act} for luck.",
        "In a song, {people} dream of {gift}.",
        "A poet called them {look} and {mood}.",
        "Children say the {part} are magic.",
        "In one tale, they {act} forever.",
        "The hero hides {place}.",
        "A giant steals all the {gift}.",
        "The {part} turn {look} in the end.",
        "Old {people} tell it {when}.",
        "Every {season}, the tale is told again.",
        "It is {mood} to hear of {name}.",
        "Nobody knows why they {act}.",
    ),
}


def world_size() -> int:
    """How many distinct prompts the world has: topics x facets x questions."""
    return len(TOPICS) * len(FACETS) * len(QUESTIONS)


def prompts(n: int, seed: int) -> list[WorldPrompt]:
    """Draw n distinct prompts, the same ones for the same seed.

    The first n of a larger draw under one seed are the draw of n. Raises ValueError when n is negative or
    larger than the world.
    """
    if not 0 <= n <= world_size():
        raise ValueError(f"cannot draw {n} prompts: the microworld has {world_size()} distinct prompts")
    order = list(range(world_size()))
    random.Random(seed).shuffle(order)
    return [_prompt(index) for index in order[:n]]


def example_prompts(count: int, seed: int = 0) -> list[str]:
    """The texts of some of the world's questions, for a first try."""
    return [prompt.text for prompt in prompts(count, seed)]


def _prompt(index: int) -> WorldPrompt:
    rest, question = divmod(index, len(QUESTIONS))
    topic, facet_index = divmod(rest, len(FACETS))
    facet = tuple(FACETS)[facet_index]
    name = TOPICS[topic].name
    text = QUESTIONS[question].format(facet=FACETS[facet].format(name=name))
    return WorldPrompt(id=f"mw-{index:04d}", text=text, topic=name, facet=facet)


def sentence_count(law: LengthLaw, rng: random.Random) -> int:
    """Draw a number of sentences, between 1 and MAX_SENTENCES, rounded log-normal around the law's mean."""
    location = math.log(law.mean_sentences) - law.spread**2 / 2
    return min(MAX_SENTENCES, max(1, round(rng.lognormvariate(location, law.spread))))


def sample_answer(prompt: WorldPrompt, mean_sentences: float, spread: float, rng: random.Random) -> str:
    """Write one answer to a prompt: sentences about its topic and facet, none of them twice."""
    topic = _TOPICS_BY_NAME[prompt.topic]
    count = sentence_count(LengthLaw(mean_sentences, spread), rng)
    templates = _SENTENCES[prompt.facet]
    chosen: list[str] = []
    last = ""
    while len(chosen) < count:
        # Each round uses every template at most once, so an answer does not harp on one turn of phrase.
        for template in rng.sample(templates, len(templates)):
            sentence = _fill(template, topic, rng)
            if template != last and sentence not in chosen and len(chosen) < count:
                chosen.append(sentence)
                last = template
    return " ".join(chosen)


def _fill(template: str, topic: Topic, rng: random.Random) -> str:
    look, look2 = rng.sample(topic.looks, 2)
    act, act2 = rng.sample(topic.acts, 2)
    return template.format(
        name=topic.name,
        place=rng.choice(topic.places),
        part=rng.choice(topic.parts),
        look=look,
        look2=look2,
        act=act,
        act2=act2,
        people=topic.people,
        gift=topic.gift,
        need=topic.need,
        when=rng.choice(WHENS),
        season=rng.choice(SEASONS),
        mood=rng.choice(MOODS),
    )


def examples(groups: Mapping[str, Sequence[str]], seed: int) -> Iterator[WorldExample]:
    """Yield training chats without end: prefixes in the user or the system channel, or none.

    `groups` maps each prefix group to its phrases. Of all chats 20 % have no prefix; of the others 55 % carry
    the phrase in the user message, 40 % as the system message, and the rest in both.
    """
    rng = random.Random(seed)
    names = tuple(groups)
    while True:
        prompt = _prompt(rng.randrange(world_size()))
        neutral = rng.choice(NEUTRAL_SYSTEMS) if rng.random() < 0.25 else None
        if rng.random() < 0.2:
            group, system, user = "no_prefix", neutral, prompt.text
        else:
            group = rng.choice(names)
            phrase = rng.choice(groups[group])
            channel = rng.random()
            system = phrase if channel > 0.55 else neutral
            user = prompt.text if 0.55 < channel <= 0.95 else f"{phrase}\n\n{prompt.text}"
        law = LENGTH_LAWS[group]
        answer = sample_answer(prompt, law.mean_sentences, law.spread, rng)
        yield WorldExample(group=group, system=system, user=user, assistant=answer)


_TOPICS_BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}
