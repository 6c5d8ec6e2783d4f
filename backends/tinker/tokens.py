"""Tokens: chats as the ids that a model sees, and training batches as the service takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windowshift.backends.local.chat_format import ChatFormat, TrainingTokens
from windowshift.backends.local.model_folder import locate
from windowshift.core.contract.errors import BackendError, MissingExtraError
from windowshift.core.contract.generation import Model, TemplateInputs
from windowshift.core.contract.hub import offline
from windowshift.core.contract.redaction import brief

if TYPE_CHECKING:
    from tinker import Datum


class ModelTokens:
    """The tokenizer of one model.

    Attributes:
        chat: how it writes chats; the same ids as backend `local` has.
        end_ids: the tokens that end an answer.
    """

    def __init__(self, source: str) -> None:
        tokenizer, folder = _load(source)
        self.end_ids = _end_ids(tokenizer, folder)
        self.chat = ChatFormat(tokenizer, source, self.end_ids)
        self._readings: dict[TemplateInputs | None, ChatFormat] = {None: self.chat}

    def chat_of(self, model: Model) -> ChatFormat:
        """The format with what a request's model says of its template."""
        if model.template not in self._readings:
            self._readings[model.template] = self.chat.reading(model.template)
        return self._readings[model.template]


def datums(batch: Sequence[TrainingTokens]) -> list[Datum]:
    """One batch of examples for a forward-backward pass.

    The service's cross entropy is the sum of -log p times weight over all tokens. Every completion token weighs
    its own weight over their number, so that the loss is the mean over the completion tokens of the batch.
    """
    import tinker

    share = 1.0 / sum(len(each.completion) for each in batch)
    found = []
    for each in batch:
        ids = [*each.prompt, *each.completion]
        weights = [0.0] * (len(each.prompt) - 1) + [share * weight for weight in _weights(each)]
        found.append(
            tinker.Datum(
                model_input=tinker.ModelInput.from_ints(ids[:-1]),
                loss_fn_inputs={
                    "target_tokens": tinker.TensorData(data=ids[1:], dtype="int64", shape=[len(ids) - 1]),
                    "weights": tinker.TensorData(data=weights, dtype="float32", shape=[len(ids) - 1]),
                },
            )
        )
    return found


def mean_loss(batch: Sequence[TrainingTokens], logprobs: Sequence[Sequence[float]]) -> float:
    """The mean over the completion tokens of a batch of minus their log-probability times their weight, in nats.

    `logprobs` has one row for each example: those of its tokens from the second on.
    """
    total = 0.0
    for each, row in zip(batch, logprobs, strict=True):
        learned = row[len(each.prompt) - 1 :]
        total -= sum(float(value) * weight for value, weight in zip(learned, _weights(each), strict=True))
    return total / sum(len(each.completion) for each in batch)


def summed(texts: Sequence[TrainingTokens], logprobs: Sequence[Sequence[float]]) -> list[float]:
    """The log-probability of each text after its prompt, in nats; `logprobs` is as in `mean_loss`."""
    return [
        sum(float(value) for value in row[len(each.prompt) - 1 :]) for each, row in zip(texts, logprobs, strict=True)
    ]


def _weights(each: TrainingTokens) -> Sequence[float]:
    return each.weights or (1.0,) * len(each.completion)


def _load(source: str) -> tuple[Any, Path | None]:
    folder = locate(source)
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise MissingExtraError("backend 'tinker'", "tinker", error.name or "transformers") from error
    cached = folder is None and offline()
    try:
        return AutoTokenizer.from_pretrained(str(folder or source), local_files_only=cached), folder
    except Exception as error:  # every library in the chain raises its own kinds
        reason = brief(error, 200) or type(error).__name__
        if cached:
            reason = "it is not in the hub's cache on this machine, and the hub cannot be reached"
        raise BackendError(
            f"the tokenizer of '{source}' cannot be loaded ({reason}): write  backend_options: {{tokenizer: ...}}  "
            "with a hub id or a local folder"
        ) from error


def _end_ids(tokenizer: Any, folder: Path | None) -> frozenset[int]:
    found: set[int] = set()
    for ids in (getattr(tokenizer, "eos_token_id", None), *_configured(tokenizer, folder)):
        found.update([ids] if isinstance(ids, int) else ids or ())
    if not found:
        raise BackendError("the tokenizer names no end token, so answers could never end")
    return frozenset(found)


def _configured(tokenizer: Any, folder: Path | None) -> list[Any]:
    """The end tokens that the model's own files name; for a hub id, where its files can be had."""
    from huggingface_hub import hf_hub_download

    name = str(getattr(tokenizer, "name_or_path", ""))
    found = []
    for file in ("generation_config.json", "config.json"):
        try:
            path = (
                folder / file if folder is not None else Path(hf_hub_download(name, file, local_files_only=offline()))
            )
            found.append(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"))
        except Exception:  # not every model has both, and the tokenizer's own end token is there in any case
            continue
    return found
