"""Messages to token ids: chat templates, and which tokens of an example are learned."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from windowshift.backends.local.control_tokens import ControlTokens
from windowshift.backends.local.template_date import CLOCK, dated
from windowshift.backends.shared.reasoning import FINAL, TAGS, apart, closing_of, opening_of
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Message, TemplateInputs, TokenLogprob

if TYPE_CHECKING:
    from windowshift.backends.local.drawn_token import DrawnToken

# Several lines, marks that a template could escape, and long enough to show one that cuts texts short.
SENTINEL = "windowshift{0}sentinel: \"one\" & 'two' <b>three</b>\n\n- four\n" + "five six seven eight " * 100 + "{0}end"
THINKING = "enable_thinking"
"""The switch by which most templates let a model think; off unless the spec says otherwise."""

_ANSWER = "windowshiftanswersentinel"
_PIECES = 100_000  # token texts that are remembered
_ANCHORS = ("\n", "a", ".", "1", ":")  # a text is read after one of these where it would merge with what is before it
_THOUGHT_END = re.compile(
    "(?:" + "|".join(f"(?:{re.escape(a)}\\s*)?{re.escape(b)}|{re.escape(a)}" for a, b in TAGS) + r")?\s*\Z"
)


@dataclass(frozen=True, slots=True)
class TrainingTokens:
    """One SFT example as token ids; the loss is on `completion`, which ends with the end token.

    `weights` has one for each of its tokens; None: they all weigh 1.
    """

    prompt: list[int]
    completion: list[int]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class PartedTokens:
    """What a model wrote, parted: `ids[start:]` are the answer's tokens, and what is before is reasoning.

    `reasoning` is None where it did not think, `text` is None where its reasoning never ended.
    """

    reasoning: str | None
    text: str | None
    start: int


def spent(written: PartedTokens, *, cut: bool) -> bool:
    """Whether a model thought and gave no answer; `cut`: its tokens were spent."""
    return written.text is None or (cut and written.reasoning is not None and not written.text)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a template writes around an answer: from its generation prompt to the answer, and after it."""

    lead: str
    tail: str


class ChatFormat:
    """How one tokenizer writes a chat.

    With a chat template, the template decides; thinking is switched off where a template knows
    `enable_thinking` and `inputs` do not say otherwise. Without one (a base LM) the format is plain: the contents
    of all messages, each followed by a blank line, after whatever the tokenizer puts at the start of a text
    (``system\\n\\nuser\\n\\n``), and the completion follows.

    What a person or a model wrote never becomes a control token: text that spells one is encoded as text.

    Args:
        tokenizer: of transformers.
        label: what people call the model.
        end_ids: the tokens that end an answer.
        inputs: what the template reads besides the messages.
    """

    def __init__(
        self, tokenizer: Any, label: str, end_ids: frozenset[int], inputs: TemplateInputs | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self.label = label
        self._end_ids = end_ids
        self._inputs = inputs or TemplateInputs()
        self._pieces: dict[tuple[int | None, int], str] = {}
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.source = str(tokenizer.get_chat_template()) if self.has_template else ""
        self._control = ControlTokens(tokenizer, self.source)

    def reading(self, inputs: TemplateInputs | None) -> ChatFormat:
        """The same format with other inputs."""
        return ChatFormat(self._tokenizer, self.label, self._end_ids, inputs)

    @property
    def uses_date(self) -> bool:
        """Whether the template asks for the date."""
        return CLOCK in self.source

    @cached_property
    def supports_system(self) -> bool:
        """Whether a system message reaches the prompt, and a person's beside it: some templates refuse or drop one."""
        chat = (Message("system", SENTINEL.format("system")), Message("user", SENTINEL.format("user")))
        try:
            if self.has_template:
                self._check_kept(chat, self._render(chat, for_answer=True))
        except BackendError:
            return False
        return True

    @cached_property
    def opening(self) -> str | None:
        """The mark of reasoning that the generation prompt leaves open; None where the model answers at once."""
        if not self.has_template:
            return None
        return opening_of(self._render((Message("user", "hello"),), for_answer=True))

    # -- prompts --------------------------------------------------------------------------------

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the answer begins.

        Raises:
            BackendError: the template refuses the messages, or would drop or change the text of one.
        """
        if not self.has_template:
            return self._plain_prompt(self._plain_text(messages))
        return self._encode(self._prompt(messages))

    def counts(self, chats: Sequence[tuple[Sequence[Message], str]]) -> list[int]:
        """The tokens of each chat up to where the answer begins, and of the answer where it is not empty.

        Raises:
            BackendError: as `prompt_ids`.
        """
        found = []
        for messages, completion in chats:
            if completion:
                tokens = self.training_tokens(messages, completion)
                found.append(len(tokens.prompt) + len(tokens.completion))
            else:
                found.append(len(self.prompt_ids(messages)))
        return found

    def continued_ids(self, text: str) -> list[int]:
        """Token ids of a text that is to be continued as it is; whoever wrote it may write control tokens too.

        Raises:
            BackendError: it cannot be encoded.
        """
        return self._plain_prompt(text)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The text up to where the answer begins, special tokens written out.

        Raises:
            BackendError: as `prompt_ids`.
        """
        if not self.has_template:
            return self._decode(self._plain_prompt(self._plain_text(messages)))
        return self._control.shown(self._prompt(messages))

    def _prompt(self, messages: Sequence[Message]) -> str:
        if not self.supports_system and any(message.role == "system" for message in messages):
            raise BackendError(
                f"the chat template of '{self.label}' has no system role: use the user channel for this model"
            )
        text = self._render(messages, for_answer=True)
        self._check_kept(messages, text)
        return text + self._header

    @cached_property
    def _header(self) -> str:
        """What opens an answer in a template that has no generation prompt.

        The model would write it by itself, and it would be taken for the beginning of what it says.
        """
        ask = (Message("user", "hello"),)
        prompt = self._render(ask, for_answer=True)
        if prompt != self._render(ask, for_answer=False):
            return ""
        try:
            lead = self._frame(ask, prompt).lead
        except BackendError:
            return ""  # said where an answer is to be learned
        ends = [lead.find(mark) for mark in (FINAL, *(opening for opening, _ in TAGS)) if mark in lead]
        lead = lead[: min(ends, default=len(lead))]
        return lead.rstrip(" ") if lead.strip() else ""

    def _check_kept(self, messages: Sequence[Message], text: str) -> None:
        """Every message must stand in the prompt as it was said, those of user and assistant in their order."""
        at = 0
        for message in messages:
            said = self._control.hide(message.content).strip()
            found = text.find(said, 0 if message.role == "system" else at)
            if found < 0:
                reordered = "moves" if said in text else "drops or changes"
                raise BackendError(
                    f"the chat template of '{self.label}' {reordered} the text of the {message.role} message: "
                    "the model would read another chat than the one that is asked"
                )
            at = at if message.role == "system" else found + len(said)

    # -- training -------------------------------------------------------------------------------

    def training_tokens(
        self, messages: Sequence[Message], completion: str, reasoning: str | None = None
    ) -> TrainingTokens:
        """Prompt and completion ids; the prompt is, token for token, what generation sees.

        The completion's ids are those that encoding prompt, completion and the template's closing in one piece
        gives after the prompt. What the template writes between the two (white space, a channel's header, the
        end of an empty thought) is the completion's, as a model writes it first. A completion that the template
        would rewrite is learned as it stands, except that a template that trims answers has them trimmed.

        Args:
            messages: the chat.
            completion: the answer.
            reasoning: what the model thought before it; None or empty where nothing is to be learned of it.

        Raises:
            BackendError: the template does not write a chat as prompt + completion + end.
        """
        if not self.has_template:
            prompt = self._plain_text(messages)
            ids = self._plain_prompt(prompt)
            body = self._control.hide(completion, answer=True)
            return TrainingTokens(ids, [*self._after(prompt, ids, body, self._plain_prompt), self._end_id()])
        prompt = self._prompt(messages)
        ids = self._encode(prompt)
        frame = self._frame(messages, prompt)
        body = self._body(prompt, frame, completion, reasoning)
        whole = self._after(prompt, ids, body + frame.tail, self._encode)
        inside = sum(token in self._end_ids for token in self._encode(body))
        ends = [place for place, token in enumerate(whole) if token in self._end_ids]
        if len(ends) > inside:
            return TrainingTokens(ids, whole[: ends[inside] + 1])
        # The template closes a turn with nothing that stops generation: learn a token that does.
        return TrainingTokens(ids, [*self._after(prompt, ids, body, self._encode), self._end_id()])

    def _frame(self, messages: Sequence[Message], prompt: str) -> _Frame:
        whole = self._render((*messages, Message("assistant", _ANSWER)), for_answer=False)
        before, found, tail = whole.rpartition(_ANSWER)
        if not found:
            raise BackendError(
                f"the chat template of '{self.label}' changes the text of completions, "
                "so their tokens cannot be learned as they are"
            )
        if before.startswith(prompt):
            return _Frame(before[len(prompt) :], tail)
        # An answered chat may lack the thought that the generation prompt opens, or white space at its end.
        if before.rstrip().startswith(_THOUGHT_END.sub("", prompt).rstrip()):
            return _Frame("", tail)
        raise BackendError(
            f"the chat template of '{self.label}' writes an answered chat differently from its own "
            "generation prompt, so completions cannot be told from prompts"
        )

    def _body(self, prompt: str, frame: _Frame, completion: str, reasoning: str | None) -> str:
        """What the model writes after its prompt."""
        hidden = self._control.hide(completion, answer=True)
        opening = opening_of(prompt)
        if opening is not None:
            closing = closing_of(opening)
            close = frame.lead if closing in frame.lead else f"\n{closing}\n\n"
            if reasoning:
                return self._control.hide(reasoning) + close + hidden
            if closing in completion:  # it thinks aloud: the first mark is the model's own
                thought, _, answer = completion.partition(closing)
                return f"{self._control.hide(thought)}{closing}{self._control.hide(answer, answer=True)}"
            return close.removeprefix("\n" if prompt.endswith("\n") else "") + hidden
        if reasoning:
            return self._thinking(prompt, frame, self._control.hide(reasoning)) + hidden
        if self._trims:
            return frame.lead + self._control.hide(completion.strip(), answer=True)
        if frame.lead.isspace() and completion[:1].isspace():
            return hidden  # the white space there is its own
        return frame.lead + hidden

    def _thinking(self, prompt: str, frame: _Frame, reasoning: str) -> str:
        """Reasoning as a model writes it that opens it by itself, up to where the answer begins."""
        if FINAL in frame.lead or FINAL in self.source:
            begin = prompt[prompt.rindex("<|start|>") :] if "<|start|>" in prompt else "<|start|>assistant"
            lead = frame.lead or f"{FINAL}<|message|>"
            return f"<|channel|>analysis<|message|>{reasoning}<|end|>{begin}{lead}"
        tags = [pair for pair in TAGS if pair[1] in self.source] or list(TAGS[:1])
        opening, closing = tags[0]
        return f"{opening}\n{reasoning}\n{closing}\n\n"

    @cached_property
    def _trims(self) -> bool:
        """Whether the template takes white space off both ends of an answer."""
        ask = Message("user", "hello")
        plain, spaced = (
            self._render((ask, Message("assistant", text)), for_answer=False) for text in (_ANSWER, f" \n{_ANSWER}\n ")
        )
        return plain == spaced

    def _after(self, before: str, ids: list[int], text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """The tokens of a text as it continues another one, whose own tokens stay what they are."""
        whole = encode(before + text)
        if whole[: len(ids)] == ids:
            return whole[len(ids) :]
        for anchor in _ANCHORS:  # a token would cross the border
            first = self._encode(anchor)
            both = self._encode(anchor + text)
            if both[: len(first)] == first:
                return both[len(first) :]
        return self._encode(text)

    def written_out(self, ids: Sequence[int]) -> str:
        """Tokens as text, special ones written out."""
        return self._decode(list(ids))

    # -- what a model wrote ---------------------------------------------------------------------

    def written(self, ids: Sequence[int]) -> PartedTokens:
        """Part what a model wrote after a prompt of this format into reasoning and answer."""
        raw = self._decode(list(ids))
        said = apart(raw, self.opening)
        if said.reasoning is None and not said.start:
            return PartedTokens(None, self.text(ids), 0)
        if not said.answer:
            return PartedTokens(said.reasoning, said.answer, len(ids))
        low, high = 0, len(ids)  # the shortest beginning that holds the answer's first character
        while low < high:
            middle = (low + high) // 2
            if len(self._decode(list(ids[:middle]))) > said.start:
                high = middle
            else:
                low = middle + 1
        start = max(0, low - 1)
        return PartedTokens(said.reasoning, self.text(ids[start:]).lstrip(), start)

    def text(self, ids: Sequence[int]) -> str:
        """The text of completion tokens as it reads after a prompt, without special tokens."""
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        if len(ids) and str(self._tokenizer.convert_ids_to_tokens(int(ids[0]))).count("▁"):
            # SentencePiece takes the spaces off the start of every text, and this is not the start of one.
            anchor = self._encode("a")[-1:]
            after = str(
                self._tokenizer.decode([*anchor, *ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )
            return after[1:] if after[:1] == "a" else text
        return text

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

    # -- the tokenizer --------------------------------------------------------------------------

    def _render(self, messages: Sequence[Message], for_answer: bool) -> str:
        """A chat as the template writes it, text that spells control tokens hidden."""
        turns = [{"role": message.role, "content": self._control.hide(message.content)} for message in messages]
        changed: dict[str, Any] = {}
        if self.uses_date:
            if self._inputs.date is None:
                raise BackendError(f"the chat template of '{self.label}' asks for the date, and none was given")
            changed["chat_template"] = dated(self.source, self._inputs.date)
        switches = {THINKING: False} | dict(self._inputs.switches)
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=for_answer, **changed, **switches
                )
            )
        except Exception as error:  # templates raise whatever their author wrote
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(f"the chat template of '{self.label}' refuses these messages: {reason}") from error

    def _encode(self, text: str) -> list[int]:
        try:
            return self._control.encode(text)
        except BackendError as error:
            raise BackendError(f"a text for '{self.label}' cannot be encoded: {error}") from error

    def _plain_text(self, messages: Sequence[Message]) -> str:
        return "".join(f"{self._control.hide(message.content)}\n\n" for message in messages)

    def _plain_prompt(self, text: str) -> list[int]:
        ids = self._control.encode(text, special=True)
        # Some tokenizers close every text with the end token: an answer is to follow here.
        return ids[:-1] if len(ids) > 1 and ids[-1] == self._tokenizer.eos_token_id else ids

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _end_id(self) -> int:
        token = self._tokenizer.eos_token_id
        if token is not None:
            return int(token)
        if self._end_ids:
            return min(self._end_ids)
        raise BackendError(f"the tokenizer of '{self.label}' has no end token, so answers could never end")
