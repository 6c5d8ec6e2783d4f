"""Answers: a chat completion as servers have it, checked and turned into a `Completion`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from windowshift.backends.openai.faults import reason_in
from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.shared.reasoning import apart
from windowshift.backends.shared.said import REPEATS_KEY, Count, Finite, Said, read
from windowshift.core.contract.generation import Completion, Finish, GenerateRequest, TokenLogprob
from windowshift.core.contract.prices import Price
from windowshift.core.contract.redaction import Redactor

# The API's own word first, then those of servers that are like it.
_ENDED: dict[str, Finish] = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "eos_token_id", "end_turn", "end", "stop_sequence", "stop_token", "complete",
         "completed", "finished", "done", "eot", "eot_id", "eom", "eos_id", "end_of_text", "end_of_turn", "endoftext",
         "im_end", "s", "stop_str", "stop_string", "stop_words", "stopped", "finish"),
        "stop",
    ),
    **dict.fromkeys(
        ("length", "max_tokens", "max_length", "max_output_tokens", "max_new_tokens", "max_completion_tokens",
         "max_output_length", "model_length", "token_limit", "length_limit", "model_context_window_exceeded"),
        "length",
    ),
}  # fmt: skip
_REFUSED = {
    **dict.fromkeys(
        ("content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist", "prohibited_content",
         "spii", "guardrail_intervened", "sensitive"),
        "the server's content filter cut the completion",
    ),
    "tool_calls": "the model called a tool instead of answering",
    "tool_use": "the model called a tool instead of answering",
    "function_call": "the model called a function instead of answering",
}  # fmt: skip
_MARKS = re.compile(r"^\w+\.(?=\w+$)|^(?:<\|?|\[)/?|(?:\|?>|\])$")  # FinishReason.STOP, <|im_end|>, </s>
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "output_text", "input_text")
_THOUGHT_PARTS = ("thinking", "reasoning", "reasoning_text", "summary_text")


class _Details(Said):
    reasoning_tokens: Count | None = None


class _Usage(Said):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    completion_tokens_details: _Details | None = None


class _Alternative(Said):
    token: str
    logprob: Finite


class _Token(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(Said):
    content: list[_Token] | None = None


class _Message(Said):
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None


class _Choice(Said):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    error: Any = None


class _Answer(Said):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class _Spoken:
    """What a message holds: the answer (None: there is none), and what was thought (None: nothing)."""

    text: str | None
    reasoning: str | None
    other: str | None = None  # a part that is no text


def read_answer(
    request: GenerateRequest, answer: object, price: Price | None, *, redactor: Redactor, batch: bool = False
) -> Completion:
    """Turn the API's answer into a completion.

    An answer of 0 characters is one; no answer at all is none, and neither is one that was only thought.

    Args:
        request: what was asked.
        answer: the JSON of a chat completion.
        price: what the model costs; None: it is not known.
        redactor: knows the key, which no completion may hold.
        batch: whether it came through the Batch API.

    Raises:
        BrokenAnswerError: something that a chat completion has is missing, or of another type.
    """
    if not isinstance(answer, dict):
        raise BrokenAnswerError("it is no chat completion")
    why = {word: answer.get(word) for word in ("error", "errors")}
    if not answer.get("choices") and (reason := reason_in(why)):
        raise BrokenAnswerError(f"it says: {redactor.said(reason)}")
    found = read(_Answer, answer)
    if (reason := reason_in(found.choices[0].error)) and not found.choices[0].message.content:
        raise BrokenAnswerError(f"it says: {redactor.said(reason)}")  # of whoever answers behind the server
    choice, usage = found.choices[0], found.usage or _Usage()
    spoken = _spoken(choice.message)
    if redactor.holds(spoken.text or "") or redactor.holds(spoken.reasoning or ""):
        raise BrokenAnswerError(REPEATS_KEY)
    details = usage.completion_tokens_details
    thought_tokens = 0 if details is None or details.reasoning_tokens is None else details.reasoning_tokens
    usd = _usd(request, usage, price, batch=batch)
    # Some servers count what was thought, and do not show it.
    reasoning = "" if spoken.reasoning is None and thought_tokens else spoken.reasoning

    def missing(problem: str) -> Completion:
        return Completion(
            request.key,
            "",
            "failed",
            0,
            usage.prompt_tokens or 0,
            error=problem,
            usd=usd,
            reasoning=reasoning,
            reasoning_tokens=thought_tokens,
        )

    said = _MARKS.sub("", (choice.finish_reason or "").strip().lower())
    finish = _ENDED.get(said)
    if finish is None:
        words = f"the completion ended with '{redactor.said(choice.finish_reason, 60)}'"
        return missing(_REFUSED.get(said, words if said else "the server does not say how the completion ended"))
    if spoken.text is None or (not spoken.text and reasoning is not None):
        thought = reasoning is not None
        return missing(_why_not(choice.message, spoken, finish, request.sampling.max_tokens, thought=thought))
    tokens = None if choice.logprobs is None or choice.logprobs.content is None else _tokens(choice.logprobs.content)
    if tokens is not None and spoken.reasoning is not None:
        tokens = _of_the_answer(tokens, spoken.text)
    return Completion(
        key=request.key,
        text=spoken.text,
        finish=finish,
        tokens=_count(usage, thought_tokens, tokens, reasoned=spoken.reasoning is not None),
        prompt_tokens=usage.prompt_tokens or 0,
        # Of the base model: what a fine-tune thinks of its own words is another measure.
        logprob=None if tokens is None or request.model.adapter else sum(one.logprob for one in tokens),
        token_logprobs=None if request.logprobs is None else tokens,
        usd=usd,
        reasoning=reasoning,
        reasoning_tokens=thought_tokens,
    )


def _why_not(message: _Message, spoken: _Spoken, finish: Finish, most: int, *, thought: bool) -> str:
    if message.tool_calls or message.function_call:
        return _REFUSED["tool_calls"]
    if spoken.other is not None:
        return f"the completion has a part of kind '{spoken.other}', and no text"
    if thought and finish == "length":
        return (
            f"the model spent its {most} tokens on reasoning before it answered: raise sampling.max_tokens, or switch "
            "its reasoning off"
        )
    if thought:
        return "the model reasoned and ended without an answer"
    return "the server's answer has no text: its content is null"


def _spoken(message: _Message) -> _Spoken:
    thoughts = [text for name in _THOUGHTS if (text := _words(getattr(message, name))) is not None]
    if isinstance(message.content, list):
        text, more, other = _parts(message.content)
        thoughts += more
    else:
        text, other = message.content, None
    reasoning = "\n".join(dict.fromkeys(thoughts)).strip() if thoughts else None
    if not text and message.refusal:  # a refusal is what the model said, in a field of its own
        text = message.refusal
    if text is not None:
        found = apart(text, guess=reasoning is None)  # some say what was thought in both places
        if found.reasoning is not None:
            text, reasoning = found.answer, reasoning or found.reasoning
        elif reasoning is not None:
            text = text.lstrip()  # as where the marks stand in the text: white space after a thought belongs to it
    return _Spoken(text, reasoning, other)


def _parts(content: list[Any]) -> tuple[str | None, list[str], str | None]:
    """The text of a content in parts, what was thought, and the kind of a part that is neither."""
    texts: list[str] = []
    thoughts: list[str] = []
    other: str | None = None
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise BrokenAnswerError("a part of its message's content is no part")
        kind = str(part.get("type", "text"))
        if kind in _TEXT_PARTS or kind == "refusal":
            text = part.get("refusal") if kind == "refusal" else part.get("text")
            if not isinstance(text, str):
                raise BrokenAnswerError("a part of its message's content has no text")
            texts.append(text)
        elif kind in _THOUGHT_PARTS:
            thoughts.append(next((text for name in (kind, "text") if (text := _words(part.get(name)))), ""))
        else:
            other = kind if kind.isidentifier() and len(kind) < 40 else "unknown"
    return "".join(texts) if texts else None, thoughts, other


def _words(value: object) -> str | None:
    """The words of a field for reasoning: text, or parts with text; None where nothing was thought."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, list):
        return "\n".join(text for one in value if (text := _words(one))) or None
    if isinstance(value, dict):
        return _words(value.get("text") or value.get("content") or value.get("summary"))
    return None


def _tokens(content: list[_Token]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(one.token, one.logprob, tuple((other.token, other.logprob) for other in one.top_logprobs or ()))
        for one in content
    )


def _of_the_answer(tokens: tuple[TokenLogprob, ...], text: str) -> tuple[TokenLogprob, ...] | None:
    """The last tokens, which read as the answer; None where none do."""
    joined = ""
    for at in range(len(tokens) - 1, -1, -1):
        joined = tokens[at].token + joined
        if joined == text or joined.lstrip() == text.lstrip() != "":
            return tokens[at:]
        if len(joined) > len(text) + 64:
            return None
    return None


def _count(usage: _Usage, thought: int, tokens: tuple[TokenLogprob, ...] | None, *, reasoned: bool) -> int | None:
    """How many tokens the answer has; None: the server does not say."""
    if usage.completion_tokens is not None and (thought or not reasoned):
        return max(0, usage.completion_tokens - thought)
    return None if tokens is None else len(tokens)


def _usd(request: GenerateRequest, usage: _Usage, price: Price | None, *, batch: bool) -> float | None:
    """What it cost; at the most that it can have cost where the server does not say how many tokens it used."""
    if price is None:
        return None
    prompt, drawn = usage.prompt_tokens, usage.completion_tokens
    return price.completion(
        most_prompt_tokens(request) if prompt is None else prompt,
        request.sampling.max_tokens if drawn is None else drawn,
        batch=batch,
    )


TOKENS_A_MESSAGE = 8


def most_prompt_tokens(request: GenerateRequest) -> int:
    """The most tokens that a prompt can have: no token is less than a byte."""
    return sum(len(turn.content.encode("utf-8", "replace")) + TOKENS_A_MESSAGE for turn in request.messages)
