"""Messages to token ids: chat templates, and which tokens of an example are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Message, TokenLogprob
from windowshift.core.contract.whole_text import HALF, is_whole

if TYPE_CHECKING:
    from windowshift.backends.local.drawn_token import DrawnToken

_SENTINEL = "windowshiftsystemsentinel"
_PIECES = 100_000  # token texts that are remembered


@dataclass(frozen=True, slots=True)
class TrainingTokens:
    """One SFT example as token ids; the loss is on `completion`, which ends with the end token."""

    prompt: list[int]
    completion: list[int]


class ChatFormat:
    """How one tokenizer writes a chat.

    With a chat template, the template decides; thinking is switched off where a template knows
    `enable_thinking`. Without one (a base LM) the format is plain: the contents of all messages,
    each followed by a blank line, after whatever the tokenizer puts at the start of a text
    (``system\\n\\nuser\\n\\n``), and the completion follows.
    """

    def __init__(self, tokenizer: Any, label: str, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._label = label
        self._end_ids = end_ids
        self._pieces: dict[tuple[int | None, int], str] = {}
        self.has_template = bool(getattr(tokenizer, "chat_template", None))

    @cached_property
    def supports_system(self) -> bool:
        """Whether a system message reaches the prompt: some templates refuse it, some drop it."""
        if not self.has_template:
            return True
        turns = (Message("system", _SENTINEL), Message("user", "hello"))
        try:
            return _SENTINEL in self._render(turns, for_answer=True)
        except BackendError:
            return False

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the answer begins.

        Raises:
            BackendError: the template refuses the messages, or would drop the system message.
        """
        if not self.has_template:
            return self._plain_prompt(messages)
        return self._encode(self.prompt_text(messages))

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The text up to where the answer begins, special tokens written out.

        Raises:
            BackendError: as `prompt_ids`.
        """
        if not self.has_template:
            return str(self._tokenizer.decode(self._plain_prompt(messages), clean_up_tokenization_spaces=False))
        if not self.supports_system and any(message.role == "system" for message in messages):
            raise BackendError(
                f"the chat template of '{self._label}' has no system role: use the user channel for this model"
            )
        return self._render(messages, for_answer=True)

    def training_tokens(self, messages: Sequence[Message], completion: str) -> TrainingTokens:
        """Prompt and completion ids; the prompt is, token for token, what generation sees.

        Prompt and completion are tokenised apart, so that the completion's first characters cannot
        change the prompt's tokens.

        Raises:
            BackendError: the template does not write a chat as prompt + completion + end.
        """
        if not self.has_template:
            return TrainingTokens(self._plain_prompt(messages), [*self._encode(completion), self._end_id()])
        prompt = self.prompt_text(messages)
        whole = self._render((*messages, Message("assistant", completion)), for_answer=False)
        if not whole.startswith(prompt):
            raise BackendError(
                f"the chat template of '{self._label}' writes an answered chat differently from its own "
                "generation prompt, so completions cannot be told from prompts"
            )
        rest = whole[len(prompt) :]
        # Many templates trim the content: then the trimmed completion is what the model would see.
        written = next((text for text in (completion, completion.strip()) if rest.startswith(text)), None)
        if written is None:
            raise BackendError(
                f"the chat template of '{self._label}' changes the text of completions, "
                "so their tokens cannot be learned as they are"
            )
        return TrainingTokens(self._encode(prompt), [*self._encode(written), *self._end(rest[len(written) :])])

    def text(self, ids: Sequence[int]) -> str:
        """The text of completion tokens, without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def token_logprobs(self, drawn: Sequence[DrawnToken]) -> tuple[TokenLogprob, ...]:
        """Drawn tokens as texts, each as it reads after the token before it.

        The texts of a completion's tokens joined are the completion, but for characters of several
        tokens, whose parts read as U+FFFD.
        """
        found: list[TokenLogprob] = []
        before: int | None = None
        for each in drawn:
            top = tuple((self._piece(before, token), logprob) for token, logprob in each.top)
            found.append(TokenLogprob(self._piece(before, each.id), each.logprob, top))
            before = each.id
        return tuple(found)

    def _piece(self, before: int | None, token: int) -> str:
        key = (before, token)
        if key not in self._pieces:
            if len(self._pieces) > _PIECES:
                self._pieces.clear()
            start = "" if before is None else self._decode([before])
            both = self._decode([token] if before is None else [before, token])
            self._pieces[key] = both[len(start) :] if both.startswith(start) else self._decode([token])
        return self._pieces[key]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _render(self, messages: Sequence[Message], for_answer: bool) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=for_answer, enable_thinking=False
                )
            )
        except Exception as error:  # templates raise whatever their author wrote
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(f"the chat template of '{self._label}' refuses these messages: {reason}") from error

    def _encode(self, text: str) -> list[int]:
        self._check(text)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @staticmethod
    def _check(text: str) -> None:
        if not is_whole(text):
            raise BackendError(f"the text {HALF}")

    def _plain_prompt(self, messages: Sequence[Message]) -> list[int]:
        text = "".join(f"{message.content}\n\n" for message in messages)
        self._check(text)
        ids = list(self._tokenizer(text)["input_ids"])
        # Some tokenizers close every text with the end token: an answer is to follow here.
        return ids[:-1] if len(ids) > 1 and ids[-1] == self._tokenizer.eos_token_id else ids

    def _end(self, tail: str) -> list[int]:
        """What closes a turn, up to the first token that ends generation."""
        ids = self._encode(tail)
        for index, token in enumerate(ids):
            if token in self._end_ids:
                return ids[: index + 1]
        # The template closes a turn with nothing that stops generation: learn a token that does.
        return [self._end_id()]

    def _end_id(self) -> int:
        token = self._tokenizer.eos_token_id
        if token is not None:
            return int(token)
        if self._end_ids:
            return min(self._end_ids)
        raise BackendError(f"the tokenizer of '{self._label}' has no end token, so answers could never end")
