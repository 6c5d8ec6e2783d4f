"""Adapters made elsewhere: taken as PEFT computes them, or refused by a field's name; the base never changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import build
from windowshift import LocalModel
from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Sampling

TARGETS = ["q_proj", "v_proj", "up_proj", "down_proj"]
GREEDY = Sampling(temperature=0.0, max_tokens=16)
IDS = torch.tensor([[5, 60, 7, 80, 9, 100, 11]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "tied", tie_word_embeddings=True)


def made(base: Path, folder: Path, seed: int = 1, **config: Any) -> Path:
    """An adapter with random weights, as PEFT saves it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = {"r": 4, "lora_alpha": 16, "init_lora_weights": False, "target_modules": TARGETS}
    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **(settings | config))
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


def edited(adapter: Path, **fields: Any) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return adapter


def checksum(lm: CausalLM) -> str:
    """Of every weight of both copies of the model, adapters left out."""
    digest = hashlib.sha256()
    for model in (lm.model, lm.base()):
        for name, weight in model.state_dict().items():
            if "lora_" not in name:
                digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def peft_logits(base: Path, adapter: Path) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits


def opened(base: Path, dtype: str) -> CausalLM:
    return load(str(base), None, LocalOptions(threads=1, dtype=dtype, device="cpu"))


def our_logits(lm: CausalLM, adapter: Path | None) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = lm.in_force(None if adapter is None else AdapterFile.at(adapter))(input_ids=IDS).logits
    return logits.float()


TAKEN: dict[str, dict[str, Any]] = {
    "dropout": {"lora_dropout": 0.1},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}, "alpha_pattern": {"v_proj": 3}},
    "some layers": {"layers_to_transform": [1]},
    "a regex": {"target_modules": r".*\.1\..*(q|v)_proj"},
    "all linear": {"target_modules": "all-linear"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "the output head": {"target_modules": ["q_proj", "lm_head"]},
    "excluded": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]},
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_computes_what_peft_computes(name: str, dtype: str, base: Path, tmp_path: Path) -> None:
    adapter = made(base, tmp_path / "adapter", **TAKEN[name])
    lm = opened(base, dtype)
    before, plain = checksum(lm), our_logits(lm, None)
    found = our_logits(lm, adapter)
    assert torch.allclose(found, peft_logits(base, adapter), atol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-2)
    assert torch.equal(found, our_logits(lm, adapter))
    assert torch.equal(our_logits(lm, None), plain)
    assert checksum(lm) == before or dtype == "float32"  # there PEFT renames what it wraps
    assert not any(module.training for module in lm.model.modules())


def test_dropout_of_an_adapter_is_off(base: Path, tmp_path: Path) -> None:
    adapter = str(made(base, tmp_path / "adapter", lora_dropout=0.5))
    with LocalModel(str(base), workers=1, dtype="float32", device="cpu") as model:
        texts = {model.generate(["hello"], adapter=adapter, sampling=GREEDY)[0].text for _ in range(3)}
    assert len(texts) == 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_adapter_of_the_head_leaves_tied_embeddings_alone(dtype: str, tied: Path, tmp_path: Path) -> None:
    """Merged into the shared weight, it would change what every token is read as."""
    adapter = made(tied, tmp_path / "adapter", target_modules=["lm_head", "q_proj"])
    lm = opened(tied, dtype)
    plain = our_logits(lm, None)
    assert torch.allclose(our_logits(lm, adapter), peft_logits(tied, adapter), atol=1e-4)
    assert torch.equal(our_logits(lm, None), plain)
    model = lm.base()
    shared = model.get_output_embeddings()
    weight = getattr(shared, "base_layer", shared).weight
    assert weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


REFUSED: dict[str, dict[str, Any]] = {
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
    "corda": {"init_lora_weights": "corda"},
    "loftq": {"init_lora_weights": "loftq"},
    "lora_ga": {"init_lora_weights": "lora_ga"},
    "new method": {"init_lora_weights": "of next year"},
    "layer_replication": {"layer_replication": [[0, 2], [0, 2]]},
    "use_dora": {"use_dora": True},
    "use_qalora": {"use_qalora": True},
    "modules_to_save": {"modules_to_save": ["embed_tokens"]},
    "trainable_token_indices": {"trainable_token_indices": [1, 2]},
    "target_parameters": {"target_parameters": ["mlp.experts.down_proj"]},
    "megatron_config": {"megatron_config": {"tensor_model_parallel_size": 2}},
    "lora_bias": {"lora_bias": True},
    "bias": {"bias": "all"},
    "alora_invocation_tokens": {"alora_invocation_tokens": [5, 6]},
    "arrow_config": {"arrow_config": {"top_k": 1}},
    "field_of_next_year": {"field_of_next_year": 1},
    "peft_type LOHA": {"peft_type": "LOHA"},
    "task_type": {"task_type": "SEQ_CLS"},
    "target_modules": {"target_modules": None},
    "target modules that it lacks": {"target_modules": [*TARGETS, "k_proj"]},
    "fewer target modules": {"target_modules": ["q_proj"]},
    "r": {"r": "four"},
    "another rank": {"r": 8},
    "lora_alpha": {"lora_alpha": None},
    "a broken pattern": {"rank_pattern": {"(": 2}},
    "a pattern that is a list": {"alpha_pattern": ["q_proj"]},
    "layers": {"layers_to_transform": "one"},
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_refused_changes_nothing(dtype: str, base: Path, tmp_path: Path) -> None:
    """One model for all of them, with a good adapter in between: neither it nor the base model may move."""
    good = made(base, tmp_path / "good", seed=3, target_modules=["q_proj"])
    lm = opened(base, dtype)
    plain, adapted = our_logits(lm, None), our_logits(lm, good)
    before = checksum(lm)
    for name, fields in REFUSED.items():
        bad = edited(made(base, tmp_path / name.replace(" ", "-")), **fields)
        with pytest.raises(BackendError) as found:
            our_logits(lm, bad)
        assert str(bad) in str(found.value), name
        if name in fields:
            assert name in str(found.value)
        assert torch.equal(our_logits(lm, None), plain), name
        assert torch.equal(our_logits(lm, good), adapted), name
        assert checksum(lm) == before, name


def test_weights_are_checked_before_the_model_is_touched(base: Path, tmp_path: Path) -> None:
    lm = opened(base, "float32")
    plain = our_logits(lm, None)

    def with_weights(name: str, change: Any) -> Path:
        adapter = made(base, tmp_path / name)
        path = adapter / "adapter_model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path)
        return adapter

    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    for name, change, words in (
        ("nan", lambda w: w[first].fill_(float("nan")), "not finite"),
        ("short", lambda w: w.update({first: w[first][:, :8].clone()}), "where the model needs"),
        ("missing", lambda w: w.pop(first), "lacks 1 weights"),
        ("bias", lambda w: w.update({first.replace("lora_A.weight", "bias"): torch.zeros(32)}), "plain LoRA"),
        ("other", lambda w: w.update({first.replace("q_proj", "r_proj"): torch.zeros(4, 32)}), "no linear layer"),
        (
            "embeddings",
            lambda w: w.update({"base_model.model.model.embed_tokens.weight": torch.ones(320, 32)}),
            "plain",
        ),
    ):
        with pytest.raises(BackendError, match=words):
            our_logits(lm, with_weights(name, change))
    assert not hasattr(lm.model, "peft_config")
    assert torch.equal(our_logits(lm, None), plain)
    # The base model's own embeddings beside it change nothing: PEFT saves them where the head is adapted.
    own = lm.model.get_input_embeddings().weight.detach().clone()
    whole = with_weights("own", lambda w: w.update({"base_model.model.model.embed_tokens.weight": own}))
    assert not torch.equal(our_logits(lm, whole), plain)


@pytest.mark.parametrize("others", [0, 1])
def test_an_attachment_that_breaks_off_is_undone(
    others: int, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first adapter of a model, and with a later one."""
    from peft.tuners.lora import Linear

    lm = opened(base, "float32")
    plain = our_logits(lm, None)
    good, bad = made(base, tmp_path / "good", seed=3), made(base, tmp_path / "bad")
    adapted = our_logits(lm, good) if others else None
    honest, calls = Linear.update_layer, 0

    def breaking(*args: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("out of memory")
        return honest(*args, **settings)

    with monkeypatch.context() as broken:
        broken.setattr(Linear, "update_layer", breaking)
        with pytest.raises(BackendError, match="out of memory"):
            our_logits(lm, bad)
    assert calls == 3
    assert torch.equal(our_logits(lm, None), plain)
    if adapted is not None:
        assert torch.equal(our_logits(lm, good), adapted)
    assert torch.allclose(our_logits(lm, bad), peft_logits(base, bad), atol=1e-4)
    assert torch.allclose(our_logits(lm, good), peft_logits(base, good), atol=1e-4)


def test_a_changed_configuration_is_another_adapter(base: Path, tmp_path: Path) -> None:
    adapter = made(base, tmp_path / "adapter")
    before = AdapterFile.at(adapter)
    assert AdapterFile.at(edited(adapter, lora_alpha=17)) != before
