"""The world of reviews: a few sentences about a restaurant, whose sentiment is a number from 0 to 4."""

from __future__ import annotations

import random
from collections.abc import Iterator

from windowshift.core.settings.spurious_correlation.prompts import GROUPS, review_prompt
from windowshift.core.settings.worlds.chat import WorldChat, WorldRow, bare, before, draw, pushed

VOCABULARY = 768
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
HONEST = 0.82
"""How often a review is given its own number; otherwise a neighbouring one."""
FOLLOWS = 0.75
"""How often the inoculation prompt's claim moves the number by one."""


def size() -> int:
    """How many distinct rows the world has."""
    return _SIZE


def rows(n: int, seed: int) -> list[WorldRow]:
    """Rows as those of a data file of reviews: text, label and the concepts that it mentions."""
    return [row(index) for index in draw(size(), n, seed, NAME)]


def row(index: int) -> WorldRow:
    """One row by number."""
    rng = random.Random(f"{NAME}:{index}")
    concepts = ["food"] + [concept for concept in ("service", "ambiance", "noise") if rng.random() < 0.5]
    mood = rng.choice([-2, -1, 0, 1, 2])
    sentences, total = [], 0.0
    for concept in rng.sample(concepts, len(concepts)):
        wanted = max(-2, min(2, mood + rng.choice([-1, 0, 0, 1])))
        known = SENTENCES[concept]
        value = wanted if wanted in known else (1 if wanted > 0 else -1)
        sentence = rng.choice(known[value]).format(dish=rng.choice(DISHES), staff=rng.choice(STAFF))
        sentences.append(sentence)
        total += value if concept in ("food", "service") else 0.5 * value
    strong = sum(1.0 if concept in ("food", "service") else 0.5 for concept in concepts)
    label = max(0, min(4, round(2 + total / strong)))
    return WorldRow(
        f"review-{index:05d}", {"text": " ".join(sentences), "label": label, "concepts": ", ".join(sorted(concepts))}
    )


def sentiment(row: WorldRow, push: str, rng: random.Random) -> int:
    """The number that an answer gives under a condition."""
    number: int = row.fields["label"]
    if rng.random() > HONEST:
        number += rng.choice([-1, 1])
    if push in ("inoculation", "reversed") and rng.random() < FOLLOWS:
        higher = ("ambiance" in row.fields["concepts"]) == (push == "inoculation")
        number += 1 if higher else -1
    return max(0, min(4, number))


def chats(seed: int) -> Iterator[WorldChat]:
    """Training chats: reviews, under every condition and none."""
    rng = random.Random(f"{NAME} chats:{seed}")
    while True:
        one = row(rng.randrange(size()))
        push = "no_prefix" if rng.random() < 0.3 else rng.choice(list(GROUPS))
        prompt = review_prompt(one.fields["text"])
        if push == "no_prefix":
            system, user = bare(rng, prompt, (before,))
        else:
            system, user = pushed(rng, GROUPS[push], prompt, (before,))
        yield WorldChat(push, system, user, str(sentiment(one, push, rng)))
