"""Importing other tools' vectors: they are bound to a model, and its residual norms are measured."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from windowshift.backends.local.libraries import require_libraries
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message, TemplateInputs
from windowshift.core.settings.world import prompts as world_prompts

if TYPE_CHECKING:
    from windowshift.steering.vector import SteeringVector


def import_file(
    file: Path, model: str, *, name: str, layer: int | None = None, prompts: int = 64, revision: str | None = None
) -> SteeringVector:
    """Read a persona_vectors, repeng or steering-vectors file for a model.

    Residual norms are measured over the prompt tokens of the embedded world's questions.

    Raises:
        SpecError: the file cannot be read, is none of these, or does not fit the model.
        BackendError: the model cannot be loaded or steered, or a library is missing.
    """
    require_libraries(steering=True)
    from windowshift.backends.local.causal_lm import load
    from windowshift.steering.extract import EncodedRow, residual_rms
    from windowshift.steering.formats import (
        Target,
        holds_tensor,
        import_gguf,
        import_persona,
        import_steering_vectors,
    )

    if file.suffix not in (".pt", ".gguf"):
        raise SpecError(f"{file} is neither a .pt nor a .gguf file: those are the formats that can be imported")
    lm = load(model, revision, LocalOptions())
    points = lm.sampling_points
    target = Target(lm.label, lm.fingerprint, len(points.decoder.layers), points.decoder.width)
    # A template that asks for the date is told today's: the norms' mean does not hang on it.
    chat = lm.chat.reading(TemplateInputs(datetime.now(UTC).date().isoformat()))
    chats = [chat.prompt_ids((Message("user", each.text),)) for each in world_prompts(prompts, 0)]
    rms = residual_rms(points, [EncodedRow(chat) for chat in chats], tokens="prompt")
    if file.suffix == ".gguf":
        return import_gguf(file, name, target, layer, rms)
    # Told apart by what they hold, so that an error is about the format that was meant.
    read = import_persona if holds_tensor(file) else import_steering_vectors
    return read(file, name, target, layer, rms)
