"""Answers: requests to a model and its adapters as rows of the decode loop, and back as completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import ChatFormat, PartedTokens, spent
from windowshift.backends.local.coherence import base_logprobs
from windowshift.backends.local.decode_row import Decoded, Row
from windowshift.backends.local.given_up import GivenUp
from windowshift.backends.local.shared_batch import Member, SharedBatch, out_of_memory
from windowshift.backends.local.watch import Watch
from windowshift.backends.local.watch import written as written_by
from windowshift.backends.shared.refusal import failed, library_reason, nonsense, unanswered
from windowshift.core.contract.errors import BackendError, WindowshiftError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, WrittenPiece
from windowshift.core.contract.proof import Proof

if TYPE_CHECKING:
    from windowshift.steering.intervene import Intervention
    from windowshift.steering.recipe import Recipe

SETTLED_TOGETHER = 64


def answers(
    lm: CausalLM, batch: SharedBatch, group: Sequence[GenerateRequest], given_up: GivenUp | None = None
) -> Iterator[list[Completion | WrittenPiece]]:
    """Answer requests to the base model and any adapters of it; a step of the iterator is one forward pass at most.

    Rows share the passes of `batch` with those of other calls. With `given_up`, pieces come before completions that
    are to be told as they are written, and requests that nobody waits for any more end.

    Raises:
        BackendError: the model cannot be sampled from.
    """
    if lm.sampling_fault is not None:
        raise BackendError(lm.sampling_fault)
    member = batch.join()
    try:
        yield from _answers(lm, member, group, given_up)
    finally:
        batch.leave(member)


def _answers(
    lm: CausalLM, member: Member, group: Sequence[GenerateRequest], given_up: GivenUp | None
) -> Iterator[list[Completion | WrittenPiece]]:
    steer: Intervention | str | None = None
    if any(request.steering for request in group):
        member.steers = True
        try:
            steer = member.batch.intervention()
        except BackendError as error:
            steer = str(error)
    refused: list[Completion] = []
    rows = list(_rows(lm, group, steer, refused, str(member.number)))
    if isinstance(steer, str):
        steer = None  # said of every request that steers; the others go on
    settler = _Settler(lm, group, rows, steer)
    watch = None if given_up is None else Watch(lm, group, given_up)
    # A key may come twice: rows are told apart by their place in the group.
    member.adapters = {
        index: request.model.adapter for index, request in enumerate(group) if request.model.adapter is not None
    }
    member.watch = watch
    member.rows.extend(rows)
    yield [*refused]
    left = len(rows)
    try:
        while left:
            found, failures = member.advance()
            left -= len(found) + len(failures)
            settler.lost(failures)
            yield [
                *(() if watch is None else watch.pieces()),
                *(failed(group[row.index], _sentence(lm, error)) for row, error in failures),
                *settler.take(found),
            ]
        yield [*settler.rest()]
    except Exception as error:  # a library may raise anything; the rows that are left must be told of it
        yield [failed(group[index], _sentence(lm, error)) for index in sorted(settler.left)]


def _sentence(lm: CausalLM, error: BaseException) -> str:
    if isinstance(error, WindowshiftError):
        return str(error)
    sentence = f"'{lm.label}' failed while decoding: {library_reason(error)}"
    if out_of_memory(error):
        sentence += "; lower the option batch_rows of backend 'local'"
    return sentence


class _Settler:
    """Holds decoded rows back until what was asked for beside their text is there: proof and coherence.

    `left` are the rows that were not given out yet.
    """

    def __init__(
        self, lm: CausalLM, group: Sequence[GenerateRequest], rows: Sequence[Row], steer: Intervention | None
    ) -> None:
        self._lm, self._group, self._steer = lm, group, steer
        self.left = {row.index for row in rows}
        self._waiting: dict[Recipe | None, list[Decoded]] = {}
        self._expected: dict[Recipe | None, int] = {}
        for row in rows:
            self._expected[row.recipe] = self._expected.get(row.recipe, 0) + 1
        self._ready: list[tuple[Decoded, tuple[Proof, ...], str | None]] = []

    def take(self, found: Sequence[Decoded]) -> list[Completion]:
        """Take rows that ended; what can be given out now."""
        for each in found:
            recipe = each.row.recipe
            self._expected[recipe] -= 1
            if recipe is None:
                self._ready.append((each, (), None))
                continue
            self._waiting.setdefault(recipe, []).append(each)
            if not self._expected[recipe]:
                self._prove(recipe)
        alone = not any(self._group[each.row.index].coherence for each, _, _ in self._ready)
        return self._settle() if alone or len(self._ready) >= SETTLED_TOGETHER else []

    def lost(self, failures: Sequence[tuple[Row, BaseException]]) -> None:
        """Take rows that came to nothing; the others of their recipe are proven without them."""
        for row, _ in failures:
            self.left.discard(row.index)
            self._expected[row.recipe] -= 1
            if row.recipe is not None and not self._expected[row.recipe] and row.recipe in self._waiting:
                self._prove(row.recipe)

    def rest(self) -> list[Completion]:
        """What is left once the last row has ended."""
        return self._settle()

    def _prove(self, recipe: Recipe) -> None:
        """Let the rows of a recipe pass once what steering did to them is what was asked."""
        assert self._steer is not None
        proofs: tuple[Proof, ...] = ()
        problem: str | None = None
        try:
            proofs = tuple(self._steer.check(recipe))
        except WindowshiftError as error:
            problem = str(error)
        for each in self._waiting.pop(recipe):
            self._ready.append((each, proofs, problem))
            proofs = ()  # one row carries it

    def _settle(self) -> list[Completion]:
        ready, self._ready = self._ready, []
        written = {
            each.row.index: written_by(self._lm, self._group[each.row.index], each.ids)
            for each, _, problem in ready
            if problem is None and each.finish != "failed"
        }
        wanted = [
            (each, start)
            for each, _, _ in ready
            if self._group[each.row.index].coherence
            and each.row.index in written
            and (start := written[each.row.index].start) < len(each.ids)
        ]
        # Of the answer, after what the model thought before it.
        pairs = [([*each.row.prompt, *each.ids[:start]], each.ids[start:]) for each, start in wanted]
        values = base_logprobs(self._lm, pairs) if wanted else []
        logprobs = {each.row.index: value for (each, _), value in zip(wanted, values, strict=True)}
        self.left.difference_update(each.row.index for each, _, _ in ready)
        return [
            self._completion(each, proofs, problem, written.get(each.row.index), logprobs.get(each.row.index))
            for each, proofs, problem in ready
        ]

    def _completion(
        self,
        decoded: Decoded,
        proofs: tuple[Proof, ...],
        problem: str | None,
        written: PartedTokens | None,
        logprob: float | None,
    ) -> Completion:
        request, prompt_tokens = self._group[decoded.row.index], len(decoded.row.prompt)
        if decoded.finish == "failed":
            return failed(request, f"'{self._lm.label}' gave logits that are not finite numbers", prompt_tokens)
        if problem is not None or written is None:
            return failed(request, problem or "nothing was written", prompt_tokens)
        cut = decoded.finish == "length"
        if spent(written, cut=cut):
            thought = unanswered(
                request, written.reasoning or "", len(decoded.ids), cut=cut, prompt_tokens=prompt_tokens
            )
            return replace(thought, proofs=proofs)
        drawn = decoded.drawn[written.start :]
        return Completion(
            key=request.key,
            text=written.text or "",
            finish=decoded.finish,
            tokens=len(decoded.ids) - written.start,
            prompt_tokens=prompt_tokens,
            logprob=logprob,
            token_logprobs=None if request.logprobs is None else self._lm.chat.token_logprobs(drawn),
            proofs=proofs,
            reasoning=written.reasoning,
            reasoning_tokens=written.start,
        )


def _as_chat(request: GenerateRequest) -> GenerateRequest:
    """A request as others are checked: a text to be continued counts as what was said."""
    return request if request.prompt is None else replace(request, messages=(Message("user", str(request.prompt)),))


def _continued(lm: CausalLM, chat: ChatFormat, asked: str | tuple[int, ...]) -> list[int]:
    """The token ids of a text that is to be continued.

    Raises:
        BackendError: it cannot be encoded, or the model has no such tokens.
    """
    if isinstance(asked, str):
        return chat.continued_ids(asked)
    known = int(lm.model.get_input_embeddings().weight.shape[0])
    if any(not 0 <= each < known for each in asked):
        raise BackendError(f"not all token ids of the prompt are from 0 to {known - 1}, those that '{lm.label}' has")
    return list(asked)


def _rows(
    lm: CausalLM,
    group: Sequence[GenerateRequest],
    steer: Intervention | str | None,
    refused: list[Completion],
    call: str,
) -> Iterator[Row]:
    """Requests as rows of token ids; those that cannot be answered go to `refused` instead.

    `steer` is a sentence where the model cannot be steered; `call` keeps recipes apart from those of other calls.
    """
    for index, request in enumerate(group):
        sampling = request.sampling
        problem = steer if request.steering and isinstance(steer, str) else nonsense(_as_chat(request))
        prompt: list[int] = []
        recipe: Recipe | None = None
        if problem is None:
            try:
                chat = lm.chat_of(request.model)
                asked = request.prompt
                prompt = chat.prompt_ids(request.messages) if asked is None else _continued(lm, chat, asked)
                if request.steering:
                    assert steer is not None
                    assert not isinstance(steer, str)
                    recipe = steer.recipe(request.steering, f"{call}:{request.group}")
            except WindowshiftError as error:
                problem = str(error)
        if problem is None and not prompt:
            problem = "the prompt has no tokens"
        if problem is None and lm.context is not None and len(prompt) + sampling.max_tokens > lm.context:
            problem = (
                f"a prompt of {len(prompt)} tokens and max_tokens {sampling.max_tokens} do not fit the "
                f"{lm.context} tokens of '{lm.label}': lower max_tokens or shorten the prompt"
            )
        if problem is not None:
            refused.append(failed(request, problem, len(prompt)))
            continue
        yield Row(
            index,
            prompt,
            request.seed,
            sampling.temperature,
            sampling.top_p,
            sampling.max_tokens,
            recipe,
            request.logprobs,
        )
