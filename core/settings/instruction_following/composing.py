"""How the prompts that ship were composed: a request and one to three instructions that do not exclude each other.

``python -m windowshift.core.settings.instruction_following.composing FILE`` writes them anew, the same ones.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windowshift.core.settings.instruction_following.instructions import INSTRUCTIONS, OPTIONS

PROMPTS = 300

# What is asked for, and four words that an answer may well have.
_REQUESTS = """
Write a short letter to a friend about a weekend at the lake. | water, boat, morning, friend
Explain to a child why leaves change colour in autumn. | leaf, tree, green, light
Describe how to make a simple vegetable soup. | water, salt, carrot, heat
Write a product description for a wooden chair. | oak, seat, comfort, room
Give advice to somebody who cannot sleep. | night, bed, quiet, screen
Summarise what a library is for. | book, reader, shelf, card
Write a short story about a fox that finds a key. | forest, door, night, key
Explain what a mortgage is. | bank, house, interest, years
Describe a day in the life of a baker. | bread, oven, dawn, flour
Write a job advert for a gardener. | garden, plant, hours, soil
Compare living in a city with living in a village. | noise, neighbour, street, field
Write a thank-you note to a teacher. | school, year, lesson, patience
Explain how a bicycle stays upright. | wheel, balance, speed, turn
Plan a birthday party for a seven-year-old. | cake, game, guest, balloon
Write a short speech for the opening of a bridge. | river, town, people, years
Explain the rules of hide and seek. | count, hide, seeker, find
Describe the taste of a lemon to someone who never had one. | sour, yellow, juice, tongue
Write a complaint about a late train. | station, delay, ticket, platform
Suggest how to save electricity at home. | light, heater, fridge, meter
Write an invitation to a neighbourhood dinner. | street, table, dish, evening
Explain why the sky is blue. | light, air, scatter, sun
Write a review of a small hotel by the sea. | room, beach, breakfast, view
Describe an ideal desk for working from home. | lamp, drawer, chair, window
Give three reasons to learn a musical instrument. | music, practice, joy, hands
Explain how to plant a tree. | hole, root, water, soil
Write a dialogue between a customer and a shoemaker. | shoe, leather, heel, price
Describe what a lighthouse does. | ship, coast, light, storm
Write a note that asks a colleague for help with a report. | report, deadline, page, thanks
Explain the difference between weather and climate. | rain, years, average, season
Write a short biography of an invented explorer. | map, ship, island, journey
Suggest a route for a walk through an old town. | church, market, street, bridge
Explain what a vaccine does. | body, virus, immune, doctor
Write a poem about snow. | white, silence, window, cold
Describe how cheese is made. | milk, salt, time, cellar
Give tips for a first job interview. | question, answer, suit, smile
Explain what compound interest is. | money, year, bank, grow
Write an announcement that the office will be closed on Friday. | office, Friday, holiday, return
Describe a painting of a harbour at dusk. | boat, sky, water, light
Explain how to look after a cat. | food, litter, play, vet
Write a message to the crew of a ship before a storm. | wind, sail, rope, captain
Suggest what to cook for guests who eat no meat. | bean, rice, sauce, herb
Explain why we have leap years. | day, calendar, sun, February
Write a short fairy tale about a clever goat. | mountain, wolf, grass, bell
Describe how a river shapes its valley. | stone, water, bank, flood
Give advice on buying a used car. | engine, price, test, seller
Explain how to read a map. | north, scale, road, symbol
Write an obituary for a beloved old oak tree. | branch, shade, village, storm
Describe the work of a nurse. | patient, ward, shift, care
Explain what inflation is. | price, money, wage, bank
Write a toast for a wedding. | love, couple, friend, glass
"""
_QUESTIONS = (
    "Should one learn to swim as an adult?",
    "Is it worth repairing an old radio?",
    "Would you take an umbrella today?",
    "Is a small garden better than none?",
    "Should children learn to cook at school?",
    "Is it wise to buy a boat?",
    "Would a night train be a good way to travel?",
    "Should a town close its centre to cars?",
    "Is it polite to arrive early?",
    "Would you recommend keeping bees?",
    "Is handwriting still worth teaching?",
    "Should one read reviews before a film?",
)
_LANGUAGES = {"German": "de", "Spanish": "es", "French": "fr", "Italian": "it", "Portuguese": "pt", "Dutch": "nl"}
_ENDS = ("That is all there is to say.", "I hope this helps.", "Ask me anything else.")
_FORMS = {
    "keywords:existence": ("Include the words {words} in your answer.", "Your answer must contain the words {words}."),
    "keywords:frequency": (
        "The word {keyword} should appear {relation} {frequency} times.",
        "Use the word {keyword} {relation} {frequency} times.",
    ),
    "keywords:forbidden_words": (
        "Do not use the words {words}.",
        "Your answer must not contain any of these words: {words}.",
    ),
    "keywords:letter_frequency": (
        "The letter {letter} should appear {let_relation} {let_frequency} times in your answer.",
    ),
    "language:response_language": (
        "Your whole answer must be in {name}; no other language is allowed.",
        "Answer in {name} only.",
    ),
    "length_constraints:number_sentences": (
        "Your answer should have {relation} {num_sentences} sentences.",
        "Write {relation} {num_sentences} sentences.",
    ),
    "length_constraints:number_paragraphs": (
        "There should be {num_paragraphs} paragraphs, separated by the markdown divider ***",
    ),
    "length_constraints:number_words": (
        "Answer with {relation} {num_words} words.",
        "Use {relation} {num_words} words.",
    ),
    "length_constraints:nth_paragraph_first_word": (
        "There should be {num_paragraphs} paragraphs, separated by empty lines and by nothing else. Paragraph "
        "{nth_paragraph} must start with the word {first_word}.",
    ),
    "detectable_content:number_placeholders": (
        "Use at least {num_placeholders} placeholders in square brackets, such as [address].",
    ),
    "detectable_content:postscript": (
        "At the end of your answer add a postscript that starts with {postscript_marker}",
    ),
    "detectable_format:number_bullet_lists": (
        "Your answer must contain exactly {num_bullets} bullet points, as in markdown: * This is a point.",
    ),
    "detectable_format:constrained_response": ("Answer with exactly one of these: {options}",),
    "detectable_format:number_highlighted_sections": (
        "Highlight at least {num_highlights} parts of your answer with markdown, that is *highlighted part*.",
    ),
    "detectable_format:multiple_sections": (
        "Your answer must have {num_sections} sections. Begin each of them with {section_spliter} X, such as "
        "{section_spliter} 1.",
    ),
    "detectable_format:json_format": ("Your whole answer must be JSON; it may stand in a ``` block.",),
    "detectable_format:title": ("Your answer must have a title in double angular brackets, such as <<a quiet day>>.",),
    "combination:two_responses": (
        "Give two different answers, and separate them by six asterisks and nothing else: ******",
    ),
    "combination:repeat_prompt": (
        "First repeat the request above word for word, then give your answer. Say nothing before you repeat it.",
    ),
    "startend:end_checker": (
        'End your answer with exactly this phrase: "{end_phrase}" Nothing may follow it.',
    ),
    "startend:quotation": ("Put your whole answer in double quotation marks.",),
    "change_case:capital_word_frequency": (
        "Words in capital letters should appear {capital_relation} {capital_frequency} times.",
    ),
    "change_case:english_capital": ("Your whole answer must be in English and in capital letters only.",),
    "change_case:english_lowercase": (
        "Your whole answer must be in English and in small letters, without any capital.",
    ),
    "punctuation:no_comma": ("Do not use any comma.", "Refrain from commas in your whole answer."),
}  # fmt: skip
_ALONE = {"detectable_format:constrained_response", "combination:repeat_prompt"}
_WITH_ANY = {"keywords:existence", "keywords:forbidden_words", "punctuation:no_comma"}
_WHOLE = {"detectable_format:json_format", "combination:two_responses", "language:response_language"}
"""They leave room for little else: only the instructions of `_WITH_ANY` stand beside them, and of the last one two."""
_APART = (
    {"change_case:english_capital", "change_case:english_lowercase", "change_case:capital_word_frequency"},
    {"change_case:english_lowercase", "detectable_content:postscript"},
    {"startend:quotation", "startend:end_checker", "detectable_content:postscript"},
    {"length_constraints:number_paragraphs", "length_constraints:nth_paragraph_first_word"},
    {"length_constraints:number_paragraphs", "detectable_format:number_highlighted_sections"},
    {"length_constraints:nth_paragraph_first_word", "detectable_format:multiple_sections"},
    {"length_constraints:nth_paragraph_first_word", "detectable_format:number_bullet_lists"},
    {"length_constraints:nth_paragraph_first_word", "detectable_format:title"},
    {"length_constraints:number_sentences", "length_constraints:number_words"},
    {"length_constraints:number_sentences", "detectable_format:number_bullet_lists"},
    {"change_case:english_lowercase", "detectable_format:multiple_sections"},
)
"""Of each of these sets a prompt has one at most."""


@dataclass(frozen=True, slots=True)
class _Request:
    text: str
    words: tuple[str, ...]


def compose() -> Iterator[dict[str, Any]]:
    """The rows that ship: every instruction in turn, beside up to two others, on requests in turn."""
    rng = random.Random("instruction following")
    lines = (line.split(" | ") for line in _REQUESTS.strip().splitlines())
    requests = [_Request(text, tuple(words.split(", "))) for text, words in lines]
    questions = [_Request(text, ()) for text in _QUESTIONS]
    for number in range(PROMPTS):
        turn, kind = divmod(number, len(INSTRUCTIONS))
        names = _beside(INSTRUCTIONS[kind], rng)
        asked = questions if names[0] == "detectable_format:constrained_response" else requests
        request = asked[(turn + kind * 7) % len(asked)]
        parts = [_instruction(name, request, rng) for name in names]
        yield {
            "key": f"if-{number:03d}",
            "prompt": " ".join([request.text, *(said for said, _ in parts)]),
            "instruction_id_list": names,
            "kwargs": [given for _, given in parts],
        }


def _beside(first: str, rng: random.Random) -> list[str]:
    """Some instructions that one answer can follow, the given one first."""
    names = [first]
    wanted = 1 if first in _ALONE else rng.choice((1, 1, 2, 2, 3))
    for other in rng.sample(INSTRUCTIONS, len(INSTRUCTIONS)):
        if len(names) == wanted:
            break
        if all(_together(name, other) for name in names):
            names.append(other)
    return names


def _together(one: str, other: str) -> bool:
    if one == other or {one, other} & _ALONE:
        return False
    if {one, other} <= {"keywords:existence", "keywords:forbidden_words", "keywords:frequency"}:
        return False  # they would ask for the same words
    for whole, beside in ((one, other), (other, one)):
        if whole in _WHOLE and (beside not in _WITH_ANY or (whole.startswith("language") and "keywords" in beside)):
            return False
    return not any({one, other} <= apart for apart in _APART)


def _instruction(name: str, request: _Request, rng: random.Random) -> tuple[str, dict[str, Any]]:
    """An instruction in words, and its parameters."""
    form = rng.choice(_FORMS[name])
    given: dict[str, Any] = {}
    said: dict[str, Any] = {}
    match name.split(":")[1]:
        case "existence":
            given = {"keywords": rng.sample(request.words, 2)}
            said = {"words": " and ".join(given["keywords"])}
        case "forbidden_words":
            given = {"forbidden_words": rng.sample(request.words, 2)}
            said = {"words": " and ".join(given["forbidden_words"])}
        case "frequency":
            given = {"keyword": rng.choice(request.words), "relation": "at least", "frequency": rng.randint(2, 4)}
        case "letter_frequency":
            relation = rng.choice(("at least", "less than"))
            count = rng.randint(6, 12) if relation == "at least" else rng.randint(3, 6)
            given = {"letter": rng.choice("aoiu" if relation == "at least" else "qzxjv"), "let_relation": relation}
            given["let_frequency"] = count
        case "response_language":
            language = rng.choice(sorted(_LANGUAGES))
            given, said = {"language": _LANGUAGES[language]}, {"name": language}
        case "number_sentences":
            given = {"relation": rng.choice(("at least", "less than")), "num_sentences": rng.randint(3, 9)}
        case "number_paragraphs":
            given = {"num_paragraphs": rng.randint(2, 4)}
        case "number_words":
            relation = rng.choice(("at least", "less than"))
            given = {"relation": relation, "num_words": rng.choice((40, 60, 80, 120, 150))}
        case "nth_paragraph_first_word":
            count = rng.randint(2, 4)
            word = rng.choice(("today", "finally", "first", "however"))
            given = {"num_paragraphs": count, "nth_paragraph": rng.randint(1, count), "first_word": word}
        case "number_placeholders":
            given = {"num_placeholders": rng.randint(2, 4)}
        case "postscript":
            given = {"postscript_marker": rng.choice(("P.S.", "P.P.S"))}
        case "number_bullet_lists":
            given = {"num_bullets": rng.randint(3, 6)}
        case "constrained_response":
            said = {"options": " ".join(OPTIONS)}
        case "number_highlighted_sections":
            given = {"num_highlights": rng.randint(2, 3)}
        case "multiple_sections":
            given = {"section_spliter": rng.choice(("Section", "Part")), "num_sections": rng.randint(2, 4)}
        case "repeat_prompt":
            given = {"prompt_to_repeat": request.text}
        case "end_checker":
            given = {"end_phrase": rng.choice(_ENDS)}
        case "capital_word_frequency":
            relation = rng.choice(("at least", "less than"))
            given = {"capital_relation": relation, "capital_frequency": rng.randint(3, 6)}
    return form.format(**given, **said), given


if __name__ == "__main__":
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in compose())
    Path(sys.argv[1]).write_text(rows, encoding="utf-8")
