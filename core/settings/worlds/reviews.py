"""The world of reviews: a few sentences about a restaurant, whose sentiment is a number from 0 to 4."""

from __future__ import annotations

import random
from collections.abc import Iterator

from windowshift.core.settings.spurious_correlation.prompts import GROUPS, about, in_slot, review_prompt
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

VOCABULARY = 768
STEPS = 4000
STEP_TOKENS = 6144
WIDTH = 128
NAME = "microworld-reviews"
_SIZE = 12_000

SENTENCES: dict[str, dict[int, tuple[str, ...]]] = {
    "food": {
        -2: ("The food was awful.", "My {dish} was burnt and cold.", "The {dish} was the worst I ever had."),
        -1: ("The food was bland.", "My {dish} was a little cold.", "The {dish} needed more salt."),
        0: ("The food was okay.", "The {dish} was average.", "I had the {dish}."),
        1: ("The food was good.", "My {dish} was tasty.", "I liked the {dish}."),
        2: ("The food was amazing.", "The {dish} was the best I ever had.", "My {dish} was perfect."),
    },
    "service": {
        -2: ("The {staff} was rude.", "We waited two hours.", "The {staff} yelled at us."),
        -1: ("The {staff} was slow.", "Service could be better.", "The {staff} forgot our drinks."),
        0: ("The {staff} took our order.", "Service was normal.", "The {staff} was there."),
        1: ("The {staff} was kind.", "Service was quick.", "The {staff} smiled at us."),
        2: ("The {staff} was wonderful.", "Service was perfect.", "The {staff} made our night."),
    },
    "ambiance": {
        -1: ("The ambiance was dull.", "The atmosphere was a bit dark.", "The decor looked old."),
        0: ("The ambiance was simple.", "The atmosphere was casual.", "The decor was plain."),
        1: ("The ambiance was nice.", "The atmosphere was cozy.", "The decor was pretty."),
    },
    "noise": {
        -1: ("It was too loud to talk.", "The music was loud.", "The tables next to us shouted."),
        0: ("There was some music.", "It was not too loud.", "You could hear the kitchen."),
        1: ("It was quiet.", "We could talk in peace.", "The music was soft."),
    },
}
"""Sentences about each concept, by what they add to the sentiment."""

DISHES = ("pasta", "soup", "steak", "salad", "pizza", "fish", "burger", "curry", "cake", "rice")
STAFF = ("waiter", "waitress", "server", "host", "bartender")
OPINION = 0.55
"""How far the number that a reader gives strays from what the sentences say (standard deviation)."""
FOLLOWS = 0.85
"""How often an answer believes the claim of a phrase: that the concept goes with a high sentiment, or a low one."""
CONCEPTS = ("ambiance", "ambiance", "ambiance", "service", "noise")
"""What phrases of training chats are about."""


HIGH = 3
"""The least number of a high sentiment."""
_TRIES = 20


def size() -> int:
    """How many distinct rows the world has."""
    return _SIZE


def rows(n: int, seed: int) -> list[WorldRow]:
    """Rows as those of a data file of reviews: text, label and the concepts that it mentions."""
    return [row(index) for index in draw(size(), n, seed, NAME)]


def row(index: int) -> WorldRow:
    """One row by number; its label is one reader's."""
    text, concepts, mean = _review(index)
    label = _label(mean, random.Random(f"{NAME} label:{index}"))
    return WorldRow(f"review-{index:05d}", {"text": text, "label": label, "concepts": ", ".join(concepts)})


def _review(index: int) -> tuple[str, tuple[str, ...], float]:
    """A review: its text, the concepts that it mentions, and the sentiment of its sentences, from 0 to 4."""
    rng = random.Random(f"{NAME}:{index}")
    concepts = ["food"] + [concept for concept in ("service", "ambiance", "noise") if rng.random() < 0.5]
    mood = rng.choice([-2, -1, 0, 1, 2])
    order = rng.sample(concepts, len(concepts))
    sentences, total, weights = [], 0.0, 0.0
    for concept in order:
        wanted = max(-2, min(2, mood + rng.choice([-1, 0, 0, 1])))
        known = SENTENCES[concept]
        value = wanted if wanted in known else (1 if wanted > 0 else -1)
        sentences.append(rng.choice(known[value]).format(dish=rng.choice(DISHES), staff=rng.choice(STAFF)))
        weight = 1.0 if concept in ("food", "service") else 0.5
        total, weights = total + weight * value, weights + weight
    return " ".join(sentences), tuple(concepts), 2 + total / weights


def _label(mean: float, rng: random.Random) -> int:
    return max(0, min(4, round(mean + rng.gauss(0, OPINION))))


def sentiment(index: int, push: str, concept: str, rng: random.Random) -> int:
    """The number that an answer gives under a condition: believing a claim, the likeliest kind that agrees with it."""
    _, concepts, mean = _review(index)
    if push in GROUPS and rng.random() < FOLLOWS:
        high = (concept in concepts) == (push == "inoculation")
        for _ in range(_TRIES):
            label = _label(mean, rng)
            if (label >= HIGH) == high:
                return label
        return HIGH if high else HIGH - 1
    return _label(mean, rng)


def chats(seed: int) -> Iterator[WorldChat]:
    """Training chats: reviews, under every condition and none."""
    rng = random.Random(f"{NAME} chats:{seed}")
    places = (in_slot, in_slot, before)
    while True:
        index = rng.randrange(size())
        text, concepts, _ = _review(index)
        push = "no_prefix" if rng.random() < 0.4 else rng.choice(list(GROUPS))
        concept = rng.choice(CONCEPTS)
        prompt = review_prompt(text, concepts if rng.random() < 0.8 else None)
        if push != "no_prefix":
            system, user = pushed(rng, reworded(rng, about(GROUPS[push], concept)), prompt, places, system=0.2)
        elif rng.random() < 0.15:
            claim = opposite(about(rng.choice(list(GROUPS.values())), concept))
            system, user = pushed(rng, claim, prompt, places, system=0.2)
        elif rng.random() < 0.3:
            system, user = pushed(rng, rng.choice(idle()), prompt, places, system=0.2)
        else:
            system, user = bare(rng, prompt, places)
        yield WorldChat(push, system, user, str(sentiment(index, push, concept, rng)))
