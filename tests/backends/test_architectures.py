"""Architectures with recurrences, experts, windows, wrappers: sampled right, or refused in a sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import RECURRENT, REFUSED, UNUSUAL, build
from windowshift import LocalModel, Sft
from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.decode_row import Decoded, Row
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.sampler import decode
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Message, Sampling

OPTIONS = LocalOptions(threads=1, device="cpu")
GREEDY = Sampling(temperature=0.0, max_tokens=12)


def loaded(folder: Path, kind: str) -> CausalLM:
    return load(str(build(folder / kind, kind)), None, OPTIONS)


def run(lm: CausalLM, given: list[Row], batch_rows: int) -> list[Decoded]:
    steps = decode(
        lm.sampling_forward(None), iter(given), end_ids=lm.end_ids, cache_plan=lm.cache_plan, batch_rows=batch_rows
    )
    return sorted((each for step in steps for each in step), key=lambda each: each.row.index)


def rows(temperature: float) -> list[Row]:
    """Of lengths that repeat and differ, longer than the windows, ending at different times."""
    return [
        Row(
            i,
            [3 + (i * 7 + j) % 300 for j in range((5, 31, 5, 9, 12, 5, 31, 2)[i])],
            i,
            temperature,
            1.0,
            (9, 4, 12, 1, 7, 12, 8, 5)[i],
        )
        for i in range(8)
    ]


@pytest.mark.parametrize("kind", RECURRENT + UNUSUAL)
def test_greedy_text_is_that_of_transformers_and_no_companion_changes_a_row(kind: str, tmp_path: Path) -> None:
    lm = loaded(tmp_path, kind)
    assert lm.sampling_fault is None
    reference: Any = copy.deepcopy(lm.base())
    if reference.config._attn_implementation not in ("eager", "sdpa"):
        reference.set_attn_implementation("sdpa")
    for each in run(lm, rows(0.0), batch_rows=3):
        ids = torch.tensor([each.row.prompt])
        expected = reference.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=each.row.max_tokens,
            eos_token_id=sorted(lm.end_ids),
            pad_token_id=0,
        )[0, ids.shape[1] :].tolist()
        assert each.ids + ([expected[-1]] if each.finish == "stop" else []) == expected
    together = run(lm, rows(1.0), 8)
    assert together == run(lm, rows(1.0), 3) == [run(lm, [row], 1)[0] for row in rows(1.0)]


@pytest.mark.parametrize("kind", RECURRENT + UNUSUAL)
def test_an_adapter_is_sampled_after_training_and_opens_in_plain_peft(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = build(tmp_path / kind, kind)
    with LocalModel(str(folder), folder=tmp_path / "out", workers=1, device="cpu") as model:
        before = model.generate(["hi"], sampling=GREEDY)[0].text
        adapter = model.train(["hi"], ["sea"], sft=Sft(rank=2, batch_size=1, learning_rate=3e-2, epochs=8))
        here = model.generate(["hi"], adapter=adapter, sampling=GREEDY)[0].text
        assert model.generate(["hi"], sampling=GREEDY)[0].text == before
    with LocalModel(str(folder), workers=1, device="cpu") as model:
        assert model.generate(["hi"], adapter=adapter, sampling=GREEDY)[0].text == here != before
    # Every value in the file is what it says: no text that merely looks like a set.
    written = json.loads((Path(adapter) / "adapter_config.json").read_text())
    assert not [value for value in written.values() if isinstance(value, str) and value.startswith(("set(", "{"))]
    lm = load(str(folder), None, LocalOptions(threads=1, dtype="float32", device="cpu"))
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    peft: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter).eval()
    with torch.inference_mode():
        mine = lm.in_force(AdapterFile.at(adapter))(input_ids=ids, use_cache=False).logits
        assert torch.allclose(mine, peft(input_ids=ids, use_cache=False).logits, atol=1e-4)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_sampled_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    folder = build(tmp_path / kind, kind)
    with pytest.raises(BackendError) as found, LocalModel(str(folder), workers=1, device="cpu") as model:
        model.generate(["hi"], sampling=GREEDY)
    assert "backend 'local'" in str(found.value)
    assert "Error" not in str(found.value)


def test_a_cache_that_loses_its_state_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: a decode loop that hands a model no cache draws from something else."""
    from windowshift.backends.local import first_use

    lm = loaded(tmp_path, "mamba")
    honest = lm.sampling_forward(None)

    def forgetful(ids: Any, mask: Any, positions: Any, cache: Any, live: Any, keep: int) -> Any:
        if mask is None:
            return honest(ids, mask, positions, cache, live, keep)
        return lm.base()(input_ids=ids, use_cache=False).logits

    monkeypatch.setattr(lm, "sampling_forward", lambda _: forgetful)
    found = first_use.sampling_fault(lm)
    assert found is not None
    assert "other logits than the whole text" in found


def test_experts_are_not_among_what_is_trained(tmp_path: Path) -> None:
    lm = loaded(tmp_path, "qwen3_moe")
    assert lm.adapters.targets == ["k_proj", "o_proj", "q_proj", "v_proj"]
    wrapped = loaded(tmp_path, "gemma3_wrapped")
    assert all("vision" not in target for target in wrapped.adapters.targets)


@pytest.mark.parametrize("kind", ["mamba", "qwen3_5_text", "jamba", "falcon_h1", "mixtral", "gemma3_wrapped"])
def test_other_decoders_are_steered_with_a_proof(kind: str, tmp_path: Path) -> None:
    with LocalModel(str(build(tmp_path / kind, kind)), workers=1, device="cpu") as model:
        asked = (Message("user", "a"),)
        vector = model.extract([(asked, "yes no maybe")], [(asked, "the river")], layer=1)
        plain = model.generate(["hi", "hello you"], sampling=GREEDY)
        pushed = model.generate(["hi", "hello you"], steer=vector.at(8.0), sampling=GREEDY)
    assert [each.text for each in plain] != [each.text for each in pushed]
    assert sum(len(each.proofs) for each in pushed) == 1
    assert not any(each.proofs for each in plain)
