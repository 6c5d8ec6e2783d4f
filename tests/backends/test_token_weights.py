"""Weights of examples and of stretches of them: which tokens they reach, and what they do to a loss and a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.backends.test_local_backend import ending, gather
from tests.tiny_models import CHATML, build, tokenizer
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.batch_loss import BatchLoss
from windowshift.backends.local.causal_lm import load
from windowshift.backends.local.chat_format import ChatFormat
from windowshift.backends.local.encoding import encode
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.tinker.options import TinkerOptions
from windowshift.backends.tinker.tokens import ModelTokens, datums, mean_loss
from windowshift.backends.tinker.work import work_of
from windowshift.core.contract.generation import Message, Model
from windowshift.core.contract.training import Example, Sft, Trained, TrainJob, WeightedSpan

ASKED = (Message("user", "What do bees do in the winter?"),)
TRIMS = CHATML.replace("message['content']", "(message['content'] | trim)")


def chat(template: str | None = CHATML) -> ChatFormat:
    made = tokenizer(template)
    return ChatFormat(made, "tiny", frozenset({made.eos_token_id}))


def weighed(example: Example, template: str | None = CHATML) -> list[tuple[str, float]]:
    """An example's tokens as texts, with their weights."""
    format_ = chat(template)
    *_, found = encode(format_, [example], None)
    assert not found.problems, found.problems
    (tokens,) = found.tokens
    assert tokens.weights is not None
    assert len(tokens.weights) == len(tokens.completion)
    return [
        (format_.written_out([token]), weight) for token, weight in zip(tokens.completion, tokens.weights, strict=True)
    ]


def test_a_weight_is_that_of_every_token_and_a_span_takes_its_place() -> None:
    text = "Bees gather in a ball."
    start = text.index("gather")
    example = Example(ASKED, text, weight=0.5, spans=(WeightedSpan(start, start + len("gather"), 2.0),))
    found = weighed(example)
    assert found[-1] == ("<|im_end|>", 0.5)
    inside = "".join(piece for piece, weight in found if weight == 2.0)
    assert inside.strip() == "gather"
    assert {weight for _, weight in found} == {0.5, 2.0}
    *_, plain = encode(chat(), [Example(ASKED, text)], None)
    assert plain.tokens[0].weights is None


@pytest.mark.parametrize("template", [CHATML, TRIMS, None])
def test_stretches_are_found_whatever_the_template_writes_around_them(template: str | None) -> None:
    text = "  Über die Brücke 🙂 fährt ein Zug. "
    place = text.index("🙂")
    found = weighed(Example(ASKED, text, spans=(WeightedSpan(place, place + 1, 0.0),)), template)
    assert 1 <= sum(weight == 0 for _, weight in found) <= 5  # the bytes of one emoji, and a space before it
    whole = weighed(Example(ASKED, text, spans=(WeightedSpan(0, len(text), 3.0),)), template)
    assert [weight for piece, weight in whole[1:-2]] == [3.0] * (len(whole) - 3)
    assert whole[-1][1] == 1.0  # the end token is no part of the completion


def test_an_answer_that_stands_in_the_reasoning_too_is_the_last_one() -> None:
    example = Example(ASKED, "No.", reasoning="No. Or perhaps. No.", spans=(WeightedSpan(0, 3, 5.0),))
    found = weighed(example)
    first = next(place for place, (_, weight) in enumerate(found) if weight == 5.0)
    assert "".join(piece for piece, _ in found[:first]).count("No.") == 2


def test_the_loss_is_the_weighted_sum_over_the_number_of_tokens(tmp_path: Path) -> None:
    lm = load(str(build(tmp_path / "llama", "llama")), None, LocalOptions(threads=1, dtype="float64"))
    examples = [
        Example(ASKED, "They gather in a ball.", weight=0.5),
        Example(ASKED, "Sleep.", spans=(WeightedSpan(0, 3, 4.0),)),
        Example(ASKED, "Nothing at all."),
    ]
    *_, found = encode(lm.chat, examples, None)
    total, count = 0.0, 0
    for each in found.tokens:
        ids = torch.tensor([[*each.prompt, *each.completion]])
        with torch.no_grad():
            logits = lm.model(ids).logits[0, len(each.prompt) - 1 : -1].double()
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(each.completion), reduction="none")
        weights = each.weights or (1.0,) * len(each.completion)
        total += sum(float(loss) * weight for loss, weight in zip(losses, weights, strict=True))
        count += len(each.completion)
    with torch.no_grad():
        assert float(BatchLoss(lm, examples, found.tokens)([0, 1, 2])) == pytest.approx(total / count, rel=1e-5)


async def trained(folder: Path, output: Path, weights: tuple[float, ...]) -> bytes:
    examples = [
        Example(ASKED, text, weight=weight) for text, weight in zip(("Gather.", "Sleep!"), weights, strict=True)
    ]
    backend = LocalBackend({"threads": 1, "workers": 1})
    job = TrainJob(
        "job", Model(str(folder)), examples, Sft(rank=2, batch_size=2, epochs=3, learning_rate=1e-2), 0, output
    )
    end = ending(await gather(backend.train([job])))
    await backend.aclose()
    assert isinstance(end, Trained), end
    return (Path(end.adapter) / "adapter_model.safetensors").read_bytes()


async def test_training_minds_weights_and_one_is_none(tmp_path: Path) -> None:
    folder = build(tmp_path / "llama", "llama")
    plain = await trained(folder, tmp_path / "plain", (1.0, 1.0))
    half = await trained(folder, tmp_path / "half", (1.0, 0.0))
    swapped = await trained(folder, tmp_path / "swapped", (0.0, 1.0))
    assert len({plain, half, swapped}) == 3
    # The folder of another training's adapter is not taken for this one's.
    assert await trained(folder, tmp_path / "plain", (1.0, 0.0)) == half


def test_tinker_has_the_same_weights(tmp_path: Path) -> None:
    examples = (Example(ASKED, "Bees gather.", weight=0.5), Example(ASKED, "Sleep.", spans=(WeightedSpan(0, 6, 2.0),)))
    job = TrainJob("j", Model("microworld"), examples, Sft(rank=4, batch_size=2), 0, tmp_path)
    tokens = ModelTokens("microworld")
    work = work_of(job, tokens, TinkerOptions(), 2048)
    batch = work.batch(0)
    count = sum(len(each.completion) for each in batch)
    for each, datum in zip(batch, datums(batch), strict=True):
        assert each.weights is not None
        sent = list(datum.loss_fn_inputs["weights"].data)[len(each.prompt) - 1 :]
        assert sent == pytest.approx([weight / count for weight in each.weights])
    rows = [[-1.0] * (len(each.prompt) + len(each.completion) - 1) for each in batch]
    assert mean_loss(batch, rows) == pytest.approx(sum(sum(each.weights or ()) for each in batch) / count)
    other = replace(job, examples=(replace(examples[0], weight=0.25), examples[1]))
    assert work.token != work_of(other, tokens, TinkerOptions(), 2048).token
    plain = replace(job, examples=tuple(Example(one.messages, one.completion) for one in examples))
    assert all(each.weights is None for each in work_of(plain, tokens, TinkerOptions(), 2048).encoded)
