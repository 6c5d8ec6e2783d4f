"""Control tokens: a template may write them, and the text of a person or a model may not."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from functools import cached_property
from typing import Any

from windowshift.core.contract.errors import BackendError

_BEGIN, _END = "\ue000", "\ue001"


class ControlTokens:
    """Tells the control tokens that a template writes from text that merely spells them.

    Text is hidden before a template sees it: what spells a control token becomes a placeholder that nobody can
    guess. When the rendered chat is encoded, control tokens are tokens, and placeholders are plain text. That needs
    a second tokenizer, in which control tokens have names that no text can spell; it is made when it is first
    needed, so that a chat without such text is encoded by the model's own tokenizer and in one piece.

    Args:
        tokenizer: of transformers.
        template: the chat template's source; empty where there is none. Added tokens that it writes are control
            tokens too, e.g. ``<think>``, which many tokenizers do not list among their special ones.
    """

    def __init__(self, tokenizer: Any, template: str = "") -> None:
        self._tokenizer = tokenizer
        self._nonce = str(secrets.randbelow(10**18))
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        special = {str(token) for token in added if token.special} | set(getattr(tokenizer, "all_special_tokens", ()))
        written = {str(token) for token in added if str(token) in template}
        self.special = frozenset(text for text in special if text and not text.isspace())
        self.all = self.special | frozenset(text for text in written if text and not text.isspace())
        self._names = sorted(self.all, key=lambda text: (-len(text), text))  # the longest match wins
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._hidden = re.compile(f"{_BEGIN}h(\\d+)\\.{self._nonce}{_END}")

    def hide(self, text: str, *, answer: bool = False) -> str:
        """Put placeholders where a text spells control tokens.

        In an answer only those count that decoding leaves out (`special`): the others stand in its text because the
        model wrote them.
        """
        pattern = self._special_pattern if answer else self._pattern
        return pattern.sub(lambda found: self._placeholder("h", self._numbers[found.group()]), text)

    def shown(self, text: str) -> str:
        """A rendered chat as people read it."""
        return self._hidden.sub(lambda found: self._names[int(found.group(1))], text)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The token ids of a rendered chat; `special` adds what the tokenizer puts around a text.

        Raises:
            BackendError: the text spells a control token, and this tokenizer cannot write it as text.
        """
        if self._hidden.search(text) is None:
            return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])
        named = self._pattern.sub(lambda found: self._placeholder("c", self._numbers[found.group()]), text)
        ids: list[int] = self._renamed.encode(self.shown(named), add_special_tokens=special).ids
        return ids

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _any_of(self._names)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return _any_of([name for name in self._names if name in self.special])

    def _placeholder(self, kind: str, number: int) -> str:
        return f"{_BEGIN}{kind}{number}.{self._nonce}{_END}"

    @cached_property
    def _renamed(self) -> Any:
        """The same tokenizer, its control tokens under names that no text spells."""
        from tokenizers import Tokenizer

        inner = getattr(self._tokenizer, "backend_tokenizer", None)
        if not isinstance(inner, Tokenizer):
            raise BackendError("it spells a control token, which this kind of tokenizer cannot write as plain text")
        data = json.loads(inner.to_str())
        names = {name: self._placeholder("c", number) for number, name in enumerate(self._names)}
        for token in data.get("added_tokens", ()):
            token["content"] = names.get(token["content"], token["content"])
        _rename(data["model"], lambda piece: names.get(piece, piece))
        data["truncation"] = data["padding"] = None
        return Tokenizer.from_str(json.dumps(data))


def _any_of(names: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, names)) or "(?!)")


def _rename(model: dict[str, Any], name: Callable[[str], str]) -> None:
    """Rename pieces of a tokenizer's model, of any of its kinds."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):  # BPE, WordPiece, WordLevel
        model["vocab"] = {name(piece): number for piece, number in vocabulary.items()}
    else:  # Unigram
        model["vocab"] = [[name(piece), score] for piece, score in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = name(model["unk_token"])
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _makes_control(pair, name)]


def _makes_control(pair: Any, name: Callable[[str], str]) -> bool:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return any(name(piece) != piece for piece in (left, right, left + right))
