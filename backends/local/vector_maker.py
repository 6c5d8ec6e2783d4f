"""Vector jobs on a local model: extraction, controls, combinations, and vectors that are there already."""

from __future__ import annotations

from collections.abc import Sequence

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import ChatFormat
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.vector_job import Answered, Combination, Control, Difference, VectorJob
from windowshift.steering.controls import combined, flipped, from_layer, orthogonal_to, random_like
from windowshift.steering.extract import TokenRow, extract
from windowshift.steering.vector import SteeringVector, check


def make_vector(lm: CausalLM, job: VectorJob) -> None:
    """Make a vector and write it to the job's file.

    Raises:
        SpecError: the vector cannot be made of what is there, or does not fit the model.
        BackendError: the architecture cannot be steered, or a chat cannot be written.
    """
    vector = _vector(lm, job).at(job.layer, job.name)
    decoder = lm.sampling_points.decoder
    # A vector that names no layer is checked at any layer: a sweep chooses one.
    some = next((layer for layer, norm in enumerate(vector.norms) if norm > 0), 0)
    check(vector, lm.fingerprint, decoder.width, len(decoder.layers), job.layer if job.layer is not None else some)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    vector.save(job.output, force=True)


def _vector(lm: CausalLM, job: VectorJob) -> SteeringVector:
    source = job.source
    if isinstance(source, Difference):
        lm.base()  # no adapter is in force
        chat = lm.chat_of(job.model)
        return extract(
            lm.sampling_points,
            _token_rows(lm, chat, source.positive, source),
            _token_rows(lm, chat, source.negative, source),
            name=job.name,
            model=lm.label,
            fingerprint=lm.fingerprint,
            tokens=source.tokens,
            layer=job.layer,
            labels=source.labels,
            how=source.how,
        )
    if isinstance(source, Control):
        parent = SteeringVector.load(source.of)
        if source.kind == "random":
            return random_like(parent, source.seed)
        if source.kind == "orthogonal":
            return orthogonal_to(parent, source.seed)
        return flipped(parent) if source.kind == "flipped" else from_layer(parent, source.source)
    if isinstance(source, Combination):
        return combined(job.name, [(SteeringVector.load(file), weight) for file, weight in source.parts])
    return SteeringVector.load(source.file)


def _token_rows(lm: CausalLM, chat: ChatFormat, answered: Sequence[Answered], source: Difference) -> list[TokenRow]:
    rows: list[TokenRow] = []
    for number, (messages, completion) in enumerate(answered, 1):
        tokens = chat.training_tokens(messages, completion)
        length = len(tokens.prompt) + len(tokens.completion)
        if lm.context is not None and length > lm.context:
            raise SpecError(
                f"row {number} of '{source.labels[0]}' against '{source.labels[1]}' has {length} tokens, more than "
                f"the {lm.context} of the model's context"
            )
        rows.append(tokens)
    return rows
