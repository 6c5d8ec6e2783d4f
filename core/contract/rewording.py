"""Phrases made of a prefix group's own, by rule: without its meaning, with the opposite one, or in other words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import yaml

from windowshift.core.contract.assets import asset
from windowshift.core.contract.conditions import PrefixGroup
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.phrases import PROMPT

_PLACE = re.compile(r"(\{prompt\}|\{payload\.[A-Za-z_]\w*\})")
_AROUND = re.compile(r"(\{prompt\})")
_NO, _YES = re.compile(r"^(do not|don't|never)\s+", re.I), re.compile(r"^(please\s+)?(?P<verb>[a-z]+)\b", re.I)


@dataclass(frozen=True, slots=True)
class ControlStock:
    """What ships for making controls: sentences, exceptions to the rules, and frames."""

    irrelevant: tuple[str, ...]
    neutral: tuple[tuple[str, ...], ...]
    negated: Mapping[str, str]
    instruction_words: frozenset[str]
    imperatives: frozenset[str]
    openings: tuple[str, ...]
    openings_of_any: tuple[str, ...]
    closings: tuple[str, ...]


@cache
def control_stock() -> ControlStock:
    """The stock of `assets/controls.yaml`."""
    data = yaml.safe_load(asset("controls.yaml").read_text(encoding="utf-8"))
    return ControlStock(
        tuple(data["irrelevant"]),
        tuple(tuple(one) for one in data["neutral"]),
        dict(data["negated"]),
        frozenset(data["instruction_words"].split()),
        frozenset(data["imperatives"].split()),
        (*data["openings_of_any"], *data["openings"]),
        tuple(data["openings_of_any"]),
        tuple(data["closings"]),
    )


def irrelevant(group: PrefixGroup, count: int | None = None) -> tuple[str, ...]:
    """Sentences that ask for nothing, as many as the group has phrases unless `count` says another number.

    Raises:
        SpecError: there are not so many.
    """
    stock = control_stock().irrelevant
    wanted = min(len(group.phrases), len(stock)) if count is None else count
    if wanted > len(stock):
        raise SpecError(
            f"{wanted} irrelevant sentences are asked for, and {len(stock)} ship: give 'phrases' of your own"
        )
    return tuple(_placed(like, sentence) for like, sentence in zip(_cycled(group, wanted), stock, strict=False))


def neutral(group: PrefixGroup, number: int) -> tuple[str, ...]:
    """The phrases of neutral set `number`, from 1 on.

    Raises:
        SpecError: there is no such set.
    """
    sets = control_stock().neutral
    if not 1 <= number <= len(sets):
        raise SpecError(f"set {number} of neutral phrases is asked for, and there are 1 to {len(sets)}")
    return tuple(
        _placed(like, phrase)
        for like, phrase in zip(_cycled(group, len(sets[number - 1])), sets[number - 1], strict=True)
    )


def delimiters(group: PrefixGroup) -> tuple[str, ...]:
    """What is left of each phrase without its words: line breaks around the prompt, or the empty phrase."""
    found = ["".join(part if part == PROMPT else _breaks(part) for part in _PLACE.split(one)) for one in group.phrases]
    return tuple(dict.fromkeys("" if PROMPT not in one else one for one in found))


def negated(group: PrefixGroup) -> tuple[str, ...]:
    """Each phrase with "not" in the place where it changes the meaning.

    Raises:
        SpecError: a phrase that no rule turns round.
    """
    return tuple(_negated(phrase) for phrase in group.phrases)


def keywords(group: PrefixGroup) -> tuple[str, ...]:
    """The words of each phrase that say how, without an instruction.

    Raises:
        SpecError: nothing is left of a phrase.
    """
    found: list[str] = []
    for phrase in group.phrases:
        parts = _PLACE.split(phrase)
        kept = [
            word
            for part in parts
            if not _PLACE.fullmatch(part)
            for word in re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", part)
            if word.lower() not in control_stock().instruction_words
        ]
        if kept:
            found.append(_placed(phrase, " ".join(dict.fromkeys(kept))))
    if not found:
        raise SpecError(
            f"no phrase of '{group.name}' has a word besides the instruction: give the keywords as 'phrases'"
        )
    return tuple(dict.fromkeys(found))


def rephrased_by_rule(group: PrefixGroup, count: int) -> tuple[str, ...]:
    """Rephrasings made of shipped frames around each phrase, the phrases in turn, in a fixed order.

    Raises:
        SpecError: there are not so many.
    """
    stock = control_stock()
    frames = sorted(
        product(stock.openings, stock.closings),
        key=lambda frame: hashlib.sha256("|".join(frame).encode()).digest(),
    )
    found: dict[str, None] = {}
    for frame in frames:
        for phrase in group.phrases:
            if frame[0] not in stock.openings_of_any and not _is_clause(phrase):
                continue
            if (made := _framed(phrase, *frame)) not in group.phrases:
                found.setdefault(made)
            if len(found) == count:
                return tuple(found)
    raise SpecError(
        f"the rules make {len(found)} rephrasings of '{group.name}', and {count} are asked for: write more with  "
        "windowshift rephrase  and name the file"
    )


def distance(phrase: str, originals: Iterable[str]) -> float:
    """How far a phrase is from the nearest original in words: 1 - |A ∩ B| / |A ∪ B| over their word sets (Jaccard)."""
    own = _words(phrase)
    return min((1 - len(own & other) / (len(own | other) or 1) for other in map(_words, originals)), default=1.0)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def _cycled(group: PrefixGroup, count: int) -> Sequence[str]:
    return [group.phrases[index % len(group.phrases)] for index in range(count)]


def _placed(like: str, text: str) -> str:
    """A text in the place of the words of a phrase: before the prompt, or where the phrase has its first ones."""
    if PROMPT not in like:
        return text
    before, after = like.split(PROMPT, 1)
    if _words(before):
        return f"{text}{before[len(before.rstrip()) :] or ' '}{PROMPT}"
    return f"{PROMPT}{after[: len(after) - len(after.lstrip())] or ' '}{text}"


def _breaks(text: str) -> str:
    """The line breaks of a text, which are the structure that is seen without its words."""
    return re.sub(r"[^\n]", "", text)


def _negated(phrase: str) -> str:
    stock = control_stock().negated
    if phrase in stock:
        return stock[phrase]
    sentences = [one for part in _AROUND.split(phrase) for one in re.split(r"(?<=[.!?])(\s+)", part)]
    try:
        return "".join(one if one == PROMPT or not _words(one) else _not(one) for one in sentences)
    except ValueError as error:
        raise SpecError(f"no rule turns the phrase '{phrase}' into its opposite: give  phrases: [...]") from error


_INSTEAD = (
    (re.compile(r"\b(is|are|was|were|will|would|should|must|may|can|could) not\b", re.I), r"\1"),
    (re.compile(r"\bcannot\b", re.I), "can"),
    (
        re.compile(r"\b(It|You|That|They|We)('s|'re)\b"),
        lambda m: f"{m[1]} {'is' if m[2] == chr(39) + 's' else 'are'} not",
    ),
    (re.compile(r"\b(make sure|be sure|try|remember|want you|like you|need you) to\b", re.I), r"\1 not to"),
    (re.compile(r"\b(should|must|would|will|can|could|may)\b", re.I), r"\1 not"),
)
_TO = ("make sure to ", "be sure to ", "try to ", "remember to ")
_AUXILIARY = r"(?:are|were|will|would|should|must|may|can|could|have|do|did|never|cannot)\b"
_YOU = re.compile(rf"^(?P<you>you|they|we|i) (?!{_AUXILIARY})(?P<always>always )?(?=[a-z])", re.I)
_STATEMENT = re.compile(
    r"^(?P<subject>(?:you|it|this|that|these|those|they|we|the|a|an|all|most|some|[a-z]+s)\b.*?)\s+"
    r"(?P<verb>is|are|was|were|has|have)\b",
    re.I,
)


def _not(sentence: str) -> str:
    """A sentence turned round: by its "not", its auxiliary verb, or "Do not" before an imperative."""
    lead = sentence[: len(sentence) - len(sentence.lstrip())]
    text = sentence.strip()
    if found := _NO.match(text):
        return lead + _capital(text[found.end() :])
    if text.lower().startswith("please "):
        rest = text[len("please ") :]
        inner = _NO.sub("", rest) if _NO.match(rest) else f"do not {rest}"
        return f"{lead}Please {inner}"
    imperative = (found := _YES.match(text)) is not None and found["verb"].lower() in control_stock().imperatives
    if imperative and not text.lower().startswith(_TO):
        return f"{lead}Do not {text[0].lower()}{text[1:]}"
    if found := _YOU.match(text):
        turned = "never" if found["always"] else "do not"
        return f"{lead}{found['you']} {turned} {text[found.end() :]}"
    for pattern, instead in _INSTEAD:
        if pattern.search(text):
            return lead + pattern.sub(instead, text, count=1)
    if found := _STATEMENT.match(text):
        verb = found["verb"]
        turned = {"has": "does not have", "have": "do not have"}.get(verb.lower(), f"{verb} not")
        return f"{lead}{found['subject']} {turned}{text[found.end() :]}"
    if imperative:
        return f"{lead}Do not {text[0].lower()}{text[1:]}"
    raise ValueError(sentence)


_OPEN_END = re.compile(r"\b(to|of|for|about|with|on|from|in)$", re.I)


def _framed(phrase: str, opening: str, closing: str) -> str:
    """A phrase in a frame; its own colon stays at the end, in front of the prompt."""
    if PROMPT in phrase:
        before, after = phrase.split(PROMPT, 1)
        if _words(before):
            space = before[len(before.rstrip()) :]
            return f"{_framed(before.rstrip(), opening, closing)}{space}{PROMPT}{after}"
        space = after[: len(after) - len(after.lstrip())]
        return f"{before}{PROMPT}{space}{_framed(after.strip(), opening, closing)}"
    body = phrase.strip()
    end = body[-1] if body[-1] in ".:!?" else ""
    body = body[: len(body) - len(end)]
    if _OPEN_END.search(body):
        body += " what follows"
    if opening != "{}":
        body = re.sub(r"^please\s+", "", body, flags=re.I)
        if len(body) > 1 and body[1].islower():
            body = body[0].lower() + body[1:]
    question = opening.split(" ", 1)[0] in ("Could", "Would", "Can") and "{}" in opening
    stop = "?" if question else end if not closing else "."
    return _capital(opening.replace("{}", body)) + (stop or ("." if closing else "")) + closing


def _is_clause(phrase: str) -> bool:
    """Whether a phrase begins with an imperative, which a frame such as "You should ..." takes."""
    said = _PLACE.sub(" ", phrase).strip()
    found = _YES.match(said)
    return found is not None and found["verb"].lower() in control_stock().imperatives


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
