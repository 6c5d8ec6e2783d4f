"""The redactor: takes keys out of what servers say, before it is cut, shown, logged or stored."""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from urllib.parse import quote, unquote

from windowshift.core.contract import sanitise

REDACTED = "[key]"
_LINE_END = re.compile(r"[ \t]*(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])\s*")
SHOWN = 400  # characters of a server's sentence that people get to read
_FRAGMENT = 8  # so many characters of a key in a row are a part of it
_WORD_FRAGMENT = 5  # a word of so many characters that begins or ends as the key does
_MASKED_FRAGMENT = 3  # the same beside a mask, as in  sk-1234****6789
_SPREAD_FRAGMENT = 12  # the same of a key that is spread over lines, quotes or escapes, where words run together
_LONGEST = 65_536  # what is beyond is never shown, and not looked at
_WORD = re.compile(r"[^\s\"'<>(),;]+")
_MASK = re.compile(r"([^\s\"'<>(),;*•…#]{0,64}?)([*•…#]{2,}|\.{3,}|…)([^\s\"'<>(),;*•…#]{0,64})")
# What keys of known services look like, for those that a server repeats and that are not our own.
_LOOKS_LIKE_A_KEY = re.compile(
    r"\b(?:(?:sk|tml|hf|gsk|xai|pplx|nvapi|r8|ghp|gho|rk|pk)[-_]|github_pat_|AIza|AKIA)[A-Za-z0-9_\-*]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?"
    r"|(?i:\b(?:bearer|basic))\s+[A-Za-z0-9._~+/=\-]{8,}"
)
_NAMED = re.compile(
    r"(?i)(\b(?:(?:x[-_])?api[-_]?key|authorization|access[-_]?token|auth[-_]?token|password|passwd|secret)\s*[=:]\s*"
    r"[\"']?|[?&][\w\-]*(?:key|token|secret|sig|signature)=)(?:(?:bearer|basic)\s+)?[A-Za-z0-9._~+/=%\-]{8,}"
)
# What stands between the parts of a key that is wrapped, quoted or escaped; a key itself has none of it.
_BETWEEN = re.compile(
    r"\\(?:[nrtbf]|u00(?:0[0-9a-fA-F]|20)|u200[b-d]|x0[0-9a-fA-F])|[^A-Za-z0-9%_.=:~/&;#-]|&#(?:10|13|32);"
)
_PLAIN = {"Cc": " ", "Zl": " ", "Zp": " ", "Cf": "", "Cs": "?"}  # by Unicode's categories
_PLACEHOLDERS = ("none", "null", "empty", "dummy", "no-key")  # what servers without a key are given for one
_USERINFO = re.compile(r"(?<=://)[^\s/@\"'<>]+@")
_URL = re.compile(r"(?i)(\b(?:https?|wss?|ftps?|socks[45]h?)://)([^\s\"'<>\\`|{}]+)")
_NAMES_A_KEY = re.compile(r"(?i)(?:key|token|secret|sig|signature|password|passwd|auth|credential|code)s?$")
_LEADS_TO_A_KEY = re.compile(
    r"(?i)(?:^|[^a-z])(?:(?:api|access|client|function|private|secret|subscription)[-_]?)?"
    r"(?:key|(?:auth[-_]?)?token|secret|sig|signature|password|passwd|auth|credential)s?$"
)
"""A segment of a path that says what the next one is, by a whole word: owners and repositories are called bigcode."""
_GIT = ("archive", "blob", "commit", "commits", "raw", "resolve", "rev", "tree")
"""Segments after which a revision stands."""
_REVISION = re.compile(r"[0-9a-f]{40}(?![A-Za-z0-9_~+=])")
_AFTER = ".,:;!)]*"
"""What stands behind an address in a sentence."""
_PART = re.compile(r"[A-Za-z0-9_~+=]{12,}")  # what has no hyphen or full stop in it: names of models are full of them
_NAME_PART = re.compile(r"[A-Za-z]*|\d*|(?=.{,8}$)(?:[A-Za-z]+\d+|\d+[A-Za-z]+)")
"""A part of a name that is written with underscores: all letters, all digits, or short, as in eval2024 and 8b."""
_UUID = re.compile(r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


class Redactor:
    """Knows keys, in every form in which a server may repeat them: cut up, masked, base64, URL-encoded, hex.

    Args:
        secrets: the keys; empty ones are passed over.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(
            sorted({one for one in secrets if one and one.lower() not in _PLACEHOLDERS}, key=len, reverse=True)
        )
        forms = [form.lower() for secret in self._secrets for form in _forms(secret)]
        self._forms = tuple(form for form in forms if len(form) >= _FRAGMENT)
        self._fragments = frozenset(
            form[at : at + _FRAGMENT] for form in self._forms for at in range(len(form) - _FRAGMENT + 1)
        )
        spread = [_BETWEEN.sub("", form) for form in self._forms]
        self._spread = frozenset(
            form[at : at + _SPREAD_FRAGMENT] for form in spread for at in range(len(form) - _SPREAD_FRAGMENT + 1)
        )
        # A short key could be a part of any word: only the whole of it, alone, is one.
        self._short = [
            re.compile(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])")
            for secret in self._secrets
            if len(secret) < _FRAGMENT
        ]

    def redact(self, text: str) -> str:
        """Take the keys, their parts, and what looks like a key out of a sentence.

        A sentence longer than 65,536 characters loses its end.
        """
        if len(text) > _LONGEST:
            text = text[:_LONGEST].rsplit(None, 1)[0]  # never half of a key at the end
        text = without_keys_in_urls(self.own(text))
        text = _USERINFO.sub(f"{REDACTED}@", text)
        text = _LOOKS_LIKE_A_KEY.sub(REDACTED, text)
        text = _NAMED.sub(rf"\1{REDACTED}", text)
        if self._secrets:
            text = _MASK.sub(self._masked, text)
            text = _WORD.sub(self._word, text)
        return text

    def own(self, text: str) -> str:
        """Take the known keys and their parts out, and nothing that only looks like a key."""
        text = self._without_fragments(self._without_spread(text))
        for short in self._short:
            text = short.sub(REDACTED, text)
        return text

    def said(self, value: object, most: int = SHOWN) -> str:
        """What a server said, as people read it: without keys, in one line, printable, and only then cut."""
        text = " ".join(self.redact(plain(str(value))).split())
        return text if len(text) <= most else f"{text[:most]} ..."

    def holds(self, text: str) -> bool:
        """Whether a text repeats a whole key, plain, encoded or spread over lines: one that may not be kept."""
        low = text.lower()
        if any(form in low for form in self._forms):
            return True
        if not self._spread:
            return False
        together = _BETWEEN.sub("", low)
        return any(
            spread in together for form in self._forms if len(spread := _BETWEEN.sub("", form)) >= _SPREAD_FRAGMENT
        )

    def _without_spread(self, text: str) -> str:
        """Take out what is a part of a key once line ends, blanks, quotes and escapes between its parts are gone."""
        if not self._spread or _BETWEEN.search(text) is None:
            return text
        kept: list[int] = []  # the places of the characters that stay
        at = 0
        for found in _BETWEEN.finditer(text):
            kept.extend(range(at, found.start()))
            at = found.end()
        kept.extend(range(at, len(text)))
        low = "".join(text[place].lower()[:1] for place in kept)
        spans: list[tuple[int, int]] = []
        at = 0
        while at <= len(low) - _SPREAD_FRAGMENT:
            if low[at : at + _SPREAD_FRAGMENT] not in self._spread:
                at += 1
                continue
            end = at + _SPREAD_FRAGMENT
            while end < len(low) and low[end - _SPREAD_FRAGMENT + 1 : end + 1] in self._spread:
                end += 1
            spans.append((kept[at], kept[end - 1] + 1))
            at = end
        for start, end in reversed(spans):
            text = f"{text[:start]}{REDACTED}{text[end:]}"
        return text

    def _without_fragments(self, text: str) -> str:
        low = text.lower()
        if len(low) != len(text):  # a few characters grow in lower case
            low = "".join(character.lower()[:1] or character for character in text)
        found: list[str] = []
        at = copied = 0
        while at <= len(low) - _FRAGMENT:
            if low[at : at + _FRAGMENT] not in self._fragments:
                at += 1
                continue
            end = at + _FRAGMENT
            while low[end - _FRAGMENT + 1 : end + 1] in self._fragments and end < len(low):
                end += 1
            found += [text[copied:at], REDACTED]
            at = copied = end
        return "".join([*found, text[copied:]]).replace(REDACTED * 2, REDACTED)

    def _masked(self, match: re.Match[str]) -> str:
        before, _, after = match.groups()
        after = after.rstrip(".:!?")
        for secret in self._secrets:
            if len(secret) < 2 * _FRAGMENT:
                continue
            if _ends_with_start(before, secret) or after.startswith(secret[-_MASKED_FRAGMENT:]) or (
                len(after) >= _MASKED_FRAGMENT and secret.endswith(after)
            ):  # fmt: skip
                return REDACTED
        return match.group()

    def _word(self, match: re.Match[str]) -> str:
        word = match.group().rstrip(".:!?")
        if len(word) < _WORD_FRAGMENT:
            return match.group()
        for secret in self._secrets:
            if len(secret) >= 2 * _FRAGMENT and (secret.startswith(word) or secret.endswith(word)):
                return REDACTED + match.group()[len(word) :]
        return match.group()


_known: set[str] = set()
_told: set[str] = set()
_last_stop: list[Redactor] = []


def remember(secret: str) -> None:
    """A key that this process was given; `without_keys` takes it out from now on."""
    if secret and secret not in _known:
        _known.add(secret)
        _last_stop[:] = [Redactor(_known)]


def without_keys(text: str) -> str:
    """A text without the keys that this process was given: the last stop before the terminal, a log or the store.

    What a server says is redacted where it is read; this is for what slips through, in a library's error for one.
    """
    text = _last_stop[0].own(text) if _last_stop else text
    return without_keys_in_urls(text) if "://" in text else text


def tell(secret: str) -> None:
    """Let this process say a secret that it made itself, in an address that its user is to open."""
    _told.add(secret)


def keys_in_url(address: str) -> tuple[str, ...]:
    """The parts of an address that are keys, or look like one: of its user, its path and its query, as they stand."""
    _, between, rest = address.rstrip(_AFTER).partition("://")
    if not between:
        return ()
    before, _, query = rest.partition("?")
    host, _, path = before.partition("/")
    user = host.rpartition("@")[0].split(":", 1)
    found = [part for part in user if len(part) >= _WORD_FRAGMENT]
    named = ""
    for segment in path.split("/"):
        if _is_key(segment, named):
            found.append(segment)
        named = segment
    for pair in re.split(r"[&;#]", query):
        name, _, value = pair.partition("=")
        if len(value) >= _WORD_FRAGMENT and (_NAMES_A_KEY.search(name) or _is_key(value)):
            found.append(value)
    return tuple(found)


def urls(text: str) -> set[str]:
    """The addresses in a text, without what stands behind them in a sentence."""
    return {match.group().rstrip(_AFTER) for match in _URL.finditer(text)}


def without_keys_in_urls(text: str, but: Collection[str] = ()) -> str:
    """A text whose addresses have no user, and no key in their paths and queries; those of `but` stay as they are."""
    return _URL.sub(
        lambda match: match.group() if match.group().rstrip(_AFTER) in but else _without_its_keys(match), text
    )


def _without_its_keys(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    rest = _USERINFO.sub(f"{REDACTED}@", f"://{rest}").removeprefix("://")
    for key in sorted({*keys_in_url(match.group())} - _told, key=len, reverse=True):
        rest = re.sub(rf"(?<![^/?&;#=:@]){re.escape(key)}(?![^/?&;#:@{re.escape(_AFTER)}])", REDACTED, rest)
    return f"{scheme}{rest}"


def _is_key(part: str, named: str = "") -> bool:
    """Whether a part of an address looks like a key; `named` is the segment before it.

    Letters and digits in one run do: names of models, versions and dates have hyphens, full stops or underscores
    between theirs. The revision of a repository is none, where the segment before it says that it is one.
    """
    part = unquote(part)
    if named and _LEADS_TO_A_KEY.search(named):
        return len(part) >= _FRAGMENT
    if named in _GIT and _REVISION.match(part):
        return False
    if _LOOKS_LIKE_A_KEY.search(part) or _UUID.search(part):
        return True
    for run in _PART.findall(part):
        digits, letters = sum(each.isdigit() for each in run), sum(each.isalpha() for each in run)
        turns = sum(one.islower() != other.islower() for one, other in pairwise(run))
        is_name = "_" in run and all(map(_NAME_PART.fullmatch, run.split("_")))
        if letters and digits >= (1 if len(run) >= 16 else 3) and not is_name:
            return True
        if len(run) >= 20 and 3 * turns >= len(run):  # upper and lower case by chance, as in base64
            return True
    return False


def brief(error: object, most: int) -> str:
    """What an error of a library says, in one line of at most so many characters: without keys, and only then cut."""
    return " ".join(without_keys(str(error)).split())[:most]


def sentence(text: object) -> str:
    """What is said to a person as one sentence, whatever stands in it: one line without keys, control characters shown.

    Errors of Python and of libraries have several lines, and quote what they were given.
    """
    one = _LINE_END.sub(" ", without_keys(str(text)).strip())
    return sanitise.block(one, len(one))


def plain(text: str) -> str:
    """A text without what a terminal would obey: control characters become spaces, invisible ones are left out."""
    return "".join(_PLAIN.get(unicodedata.category(each), each) for each in text)


def _ends_with_start(text: str, secret: str) -> bool:
    return any(text.endswith(secret[:size]) for size in range(_MASKED_FRAGMENT, _FRAGMENT + 1))


def _forms(secret: str) -> Iterator[str]:
    """A key as it is, and as servers, proxies and logs write it."""
    raw = secret.encode()
    yield secret
    yield secret[::-1]
    yield quote(secret, safe="")
    yield quote(quote(secret, safe=""), safe="")
    yield "".join(f"%{byte:02x}" for byte in raw)
    yield "".join(f"%25{byte:02x}" for byte in raw)
    yield raw.hex()
    yield " ".join(f"{byte:02x}" for byte in raw)
    yield ":".join(f"{byte:02x}" for byte in raw)
    yield html.escape(secret)
    for entity in ("&#{:d};", "&#x{:x};", "\\u{:04x}", "\\x{:02x}", "\\{:03o}", "u+{:04x} ", "0x{:02x}, "):
        yield "".join(entity.format(ord(each)) for each in secret)
    for octets in (raw, secret.encode("utf-16-le"), base64.b64encode(raw)):
        for before in range(3):  # in base64 it looks otherwise by where it begins: after "Bearer ", after "user:"
            text = base64.b64encode(b"\0" * before + octets)
            whole = text.rstrip(b"=").decode()
            if text.endswith(b"="):
                whole = whole[:-1]  # mixed with what follows
            whole = whole[(0, 2, 3)[before] :]
            yield whole
            yield whole.replace("+", "-").replace("/", "_")
    yield base64.b32encode(raw).decode().rstrip("=")
