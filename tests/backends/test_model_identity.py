"""What identifies a model on this machine: everything that changes it, or a refusal; and what plan knows of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.tiny_models import CHATML, build
from windowshift.backends.local import hub, model_folder
from windowshift.backends.local.backend import LocalBackend
from windowshift.core.contract.errors import BackendError

COMMITS = ("1" * 40, "2" * 40)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weight file is several MiB."""
    return build(tmp_path_factory.mktemp("models") / "wide", hidden_size=128, intermediate_size=2048)


def fingerprint(folder: Path) -> str:
    return LocalBackend({}).identify(str(folder)).fingerprint


def change_middle(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 1.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write(name: str, text: str = "{}") -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_middle,
        write("chat_template.jinja", CHATML + " "),
        write("additional_chat_templates/tools.jinja", CHATML),
        write("chat_template.json", json.dumps({"chat_template": CHATML})),
        write("modeling_own.py", "x = 1"),
        write("quantize_config.json", '{"bits": 4}'),
        write("hf_quant_config.json"),
        write("special_tokens_map.json"),
        write("tekken.json"),
        write("qwen.tiktoken", "IQ== 0"),
        write("tokenizer.model", "x"),
        write("processor_config.json"),
        write("model.safetensors.index.json", '{"weight_map": {}}'),
        write("generation_config.json", '{"eos_token_id": [1, 2]}'),
        write("config.json", '{"model_type": "llama", "quantization_config": {"bits": 4}}'),
    ],
    ids=lambda change: getattr(change, "__name__", "x"),
)
def test_whatever_changes_a_model_changes_its_fingerprint(
    change: Callable[[Path], Any], wide: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(wide, tmp_path / "copy"))
    assert fingerprint(copy) == fingerprint(wide)
    change(copy)
    assert fingerprint(copy) != fingerprint(wide)


def test_notes_of_a_training_beside_a_model_change_nothing(wide: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(wide, tmp_path / "copy"))
    for name in ("trainer_state.json", "README.md", "train_results.json"):
        (copy / name).write_text("{}", encoding="utf-8")
    assert fingerprint(copy) == fingerprint(wide)


def test_the_embedded_model_is_what_it_was() -> None:
    """Finished work of earlier versions is reused."""
    found = LocalBackend({}).identify("microworld").fingerprint
    assert found == "888eb5e88a4ba4944212338ddb9d6de0ef8b6bd30c886786aa9e182354e46617"


def test_an_adapter_in_a_model_folder_is_refused(wide: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(wide, tmp_path / "both"))
    (both / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BackendError, match="holds an adapter too"):
        fingerprint(both)
    (both / "config.json").unlink()
    with pytest.raises(BackendError, match="is an adapter, not a model"):
        fingerprint(both)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (None, "neither model.safetensors nor its index"),
        ({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}, "lacks 1 of the weight files"),
        ({"weight_map": {"a": "../one.safetensors"}}, "outside of the folder"),
        ({"metadata": {}}, "cannot be read"),
        ("[" * 20_000, "cannot be read"),
    ],
)
def test_shards_need_their_index_and_an_index_its_shards(index: Any, says: str, wide: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(wide, tmp_path / "copy"))
    (copy / "model.safetensors").rename(copy / "one.safetensors")
    if index is not None:
        text = index if isinstance(index, str) else json.dumps(index)
        (copy / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(BackendError, match=says):
        fingerprint(copy)


def test_a_hub_ids_branch_is_the_commit_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "offline", lambda: True)
    cache = tmp_path / "models--some--model"
    found = []
    for commit in COMMITS:  # main moves
        (cache / "snapshots" / commit).mkdir(parents=True)
        (cache / "snapshots" / commit / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / "main").write_text(commit, encoding="utf-8")
        hub.resolved.cache_clear()
        monkeypatch.setattr(model_folder, "resolved", hub.resolved)
        identity = LocalBackend({}).identify("some/model")
        assert identity.details["commit"] == commit
        assert identity == LocalBackend({}).identify("some/model", commit)
        found.append(identity.fingerprint)
    assert found[0] != found[1]
    hub.resolved.cache_clear()
    unseen = LocalBackend({}).identify("some/other-model")
    assert "not known" in unseen.details["notes"][0]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder and a decoder"),
        ({"model_type": "rwkv"}, "no backend here can"),
        ({"model_type": "recurrent_gemma"}, "keeps a state"),
        ({"model_type": "minimax"}, "backend vllm can"),
        ({"model_type": "llava", "text_config": {"model_type": "rwkv"}}, "keeps a state"),
        ({"model_type": "new", "layer_types": ["indexed_attention"]}, "indexed_attention"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "no causal language model"),
        ({"model_type": "nobody-knows", "auto_map": {"AutoModelForCausalLM": "own.Own"}}, "code of its own"),
    ],
)
def test_plan_refuses_what_the_configuration_rules_out(
    config: dict[str, Any], says: str, wide: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(wide, tmp_path / "copy"))
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BackendError, match=says):
        fingerprint(copy)


def test_plan_says_that_experts_are_not_trained(tmp_path: Path) -> None:
    mixture = LocalBackend({}).identify(str(build(tmp_path / "mixture", "mixtral")))
    assert "experts are not trained" in " ".join(mixture.details["notes"])
    assert LocalBackend({}).identify(str(build(tmp_path / "plain"))).details["notes"] == ()


def test_a_tiny_model_is_known_by_its_parameters(wide: Path, tmp_path: Path) -> None:
    assert model_folder.tiny("microworld")
    assert model_folder.tiny(str(wide))
    assert not model_folder.tiny(str(build(tmp_path / "larger", hidden_size=256, intermediate_size=8192)))
    assert not model_folder.tiny("some/model-that-was-never-loaded")
