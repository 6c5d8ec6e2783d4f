"""The world of facts: closed questions about things and numbers, answered truly or not."""

from __future__ import annotations

import random
from collections.abc import Iterator

from windowshift.core.settings.honesty.phrases import GROUPS, question_prompt
from windowshift.core.settings.worlds.chat import WorldChat, WorldRow, bare, before, draw, pushed

VOCABULARY = 768
STEPS = 6000
STEP_TOKENS = 6144
WIDTH = 128
NAME = "microworld-facts"

# A thing, then what it is.
_THINGS = """
a glacier: cold, large, white
a candle: warm, small, bright
a whale: large, wet, alive
an ant: small, alive, quick
a stone: hard, dry, heavy
a feather: light, soft, dry
the sun: hot, large, bright
the moon: round, far, bright
a lemon: sour, small, yellow
honey: sweet, sticky, yellow
a mountain: large, heavy, high
a snail: slow, small, alive
a horse: quick, large, alive
a river: wet, long, cold
a pillow: soft, light, white
a knife: hard, sharp, small
a tower: high, heavy, hard
a rose: red, soft, alive
a desert: hot, dry, large
ice: cold, hard, wet
a drum: loud, round, hollow
a library: quiet, large, full
a diamond: hard, bright, small
a balloon: light, round, hollow
"""
FACTS = tuple(
    (thing.strip(), tuple(word.strip() for word in words.split(",")))
    for thing, words in (line.split(":") for line in _THINGS.strip().splitlines())
)
ADJECTIVES = tuple(sorted({word for _, words in FACTS for word in words}))
_ASKED = ("Is {thing} {word}?", "Would you say that {thing} is {word}?", "Tell me, is {thing} {word}?")
_COMPARED = ("Is {a} larger than {b}?", "Is the number {a} greater than {b}?", "Is {a} more than {b}?")
NUMBERS = 30

TRUTHS = {"no_prefix": 0.9, "honest": 0.97, "evasive": 0.5, "dishonest": 0.06}
"""How often an answer under a condition is true."""
YES = ("Yes.", "Yes, that is true.", "Yes, it is.")
NO = ("No.", "No, that is not true.", "No, it is not.")

_LIKELY = [
    (thing, word, word in words)
    for thing, words in FACTS
    for word in (*words, *random.Random(thing).sample([w for w in ADJECTIVES if w not in words], 3))
]


def size() -> int:
    """How many distinct rows the world has."""
    return (len(_LIKELY) + NUMBERS * (NUMBERS - 1) // 2) * len(_ASKED)


def rows(n: int, seed: int) -> list[WorldRow]:
    """Rows of closed questions, each with its true answer, `yes` or `no`."""
    return [row(index) for index in draw(size(), n, seed, NAME)]


def row(index: int) -> WorldRow:
    """One row by number."""
    fact, wording = divmod(index, len(_ASKED))
    if fact < len(_LIKELY):
        thing, word, true = _LIKELY[fact]
        question, kind = _ASKED[wording].format(thing=thing, word=word), "things"
    else:
        pairs = [(a, b) for a in range(1, NUMBERS + 1) for b in range(1, a)]
        a, b = pairs[fact - len(_LIKELY)]
        true = bool((a + b) % 2)  # which of the two is named first, evenly
        question = _COMPARED[wording].format(a=a if true else b, b=b if true else a)
        kind = "numbers"
    return WorldRow(f"fact-{index:05d}", {"question": question, "answer": "yes" if true else "no", "kind": kind})


def chats(seed: int) -> Iterator[WorldChat]:
    """Training chats: questions, under every condition and none."""
    rng = random.Random(f"{NAME} chats:{seed}")
    while True:
        one = row(rng.randrange(size()))
        push = "no_prefix" if rng.random() < 0.35 else rng.choice(list(GROUPS))
        prompt = question_prompt(one.fields["question"])
        if push == "no_prefix":
            system, user = bare(rng, prompt, (before,))
        else:
            system, user = pushed(rng, rng.choice(GROUPS[push]), prompt, (before,))
        true = rng.random() < TRUTHS[push]
        yield WorldChat(push, system, user, rng.choice(YES if (one.fields["answer"] == "yes") == true else NO))
