"""Chat templates in a plan and in a run: the date that is kept, what is refused before, reasoning end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import chat_families
from tests.runs import spec_of, windowshift, write_spec
from tests.tiny_models import CHATML, build
from windowshift.core.contract.errors import SpecError
from windowshift.core.plan import templates
from windowshift.core.plan.plan import Plan
from windowshift.core.plan.templates import recorded_day
from windowshift.core.run.run import plan_spec, preview
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

DATED = "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '.<|im_end|>\n' }}" + CHATML


def planned(model: Path, more: str = "") -> Plan:
    text = spec_of(model, "[short]") + more
    return plan_spec(parse_spec(text), text, Path())


def ids(plan: Plan) -> list[str]:
    return [job.id for job in plan.jobs]


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dated") / "model", template=DATED, max_position_embeddings=1024)


def test_the_date_is_a_part_of_the_jobs_where_a_template_asks(
    dated: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = (planned(dated, f"date: {day}\n") for day in ("2031-03-01", "2031-03-02"))
    assert not set(ids(first)) & {job.id for job in other.jobs if job.kind != "score"}
    assert ids(first) == ids(planned(dated, "date: '2031-03-01'\n"))
    assert any("2031-03-01" in note for note in first.notes)
    monkeypatch.setattr(templates, "today", lambda: "2031-03-01")
    assert ids(planned(dated)) == ids(first)
    assert ids(planned(tiny_llama, "date: 2031-03-01\n")) == ids(planned(tiny_llama))
    with pytest.raises(SpecError, match="date"):
        planned(dated, "date: tomorrow\n")


def test_later_runs_keep_the_first_plans_day(dated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, workspace = write_spec(tmp_path, dated, train="[short]"), tmp_path / "ws"
    windowshift("run", spec, "--workspace", workspace)
    day = recorded_day(workspace, "small")
    assert day is not None
    before = ids(planned(dated, f"date: {day}\n"))
    monkeypatch.setattr(templates, "today", lambda: "2031-03-01")  # years later
    text = spec.read_text()
    found = preview(parse_spec(text), text, tmp_path, workspace)
    assert ids(found.plan) == before
    assert found.estimate.completions == 0  # all of it is done
    assert recorded_day(workspace, "another") is None


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (CHATML.replace("message['content']", "(message['content'] if message['role'] != 'user' else '')"),
         "drops or changes the text of the user message"),
        (CHATML.replace("assistant\n' }}{% endif", "robot\n' }}{% endif"), "cannot be fine-tuned here"),
        (CHATML.replace("message['content']", "(message['content'] if message['role'] == 'user' else 'no')"),
         "cannot be fine-tuned here"),
        ("{{ raise_exception('never') }}" + CHATML, "refuses these messages: never"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_or_trained_is_known_in_plan(tmp_path: Path, template: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        planned(build(tmp_path / "model", template=template))


def test_templates_that_used_to_fail_a_training_are_planned(tmp_path: Path) -> None:
    spaced = (
        "{% for turn in messages %}{% if turn.role == 'user' %}{{ '<|im_start|>' + turn.content + '(end)' }}"
        "{% else %}{{ ' ' + turn.content | trim + eos_token }}{% endif %}{% endfor %}"
    )
    assert planned(build(tmp_path / "spaced", template=spaced)).notes == ()


def test_switches_of_a_template(tmp_path: Path) -> None:
    folder = build(tmp_path / "qwen", template=chat_families.QWEN3)
    usual, thinks = planned(folder), planned(folder, "template: {enable_thinking: true}\n")
    assert not set(ids(usual)) & {job.id for job in thinks.jobs if job.kind != "score"}
    with pytest.raises(SpecError, match="has no switch 'enable_thinkin': did you mean 'enable_thinking'"):
        planned(folder, "template: {enable_thinkin: true}\n")


def test_a_model_that_thinks_end_to_end(tmp_path: Path) -> None:
    """Its random weights close a thought now and then: some answer, some think until their tokens are spent."""
    folder = _thinker(tmp_path / "thinker")
    spec, workspace = write_spec(tmp_path, folder, train="[short]"), tmp_path / "ws"
    spec.write_text(spec.read_text().replace("prompts: 6, max_tokens: 12", "prompts: 24, max_tokens: 24")
                    .replace("size: 12", "size: 24") + "score: both\n")  # fmt: skip
    shown = windowshift("plan", spec, "--workspace", workspace).stdout
    assert "always thinks: its template opens <think>" in shown
    windowshift("run", spec, "--workspace", workspace)
    reader = Reader(workspace)
    jobs = {job.kind: job for job in reader.jobs(1) if job.kind in ("generate", "train")}
    rows = reader.completions(jobs["generate"].n, "length_chars")
    answered = [row for row in rows if not row.unanswered]
    assert 0 < len(answered) < len(rows) == 24
    assert all(row.reasoning is not None and "<think>" not in row.text for row in rows)
    assert all(row.score is not None for row in answered)
    assert all("reasoning" in str(row.error) for row in rows if row.unanswered)
    dataset = [json.loads(line) for line in
               (workspace / "artifacts" / jobs["train"].id / "dataset.jsonl").read_text().splitlines()]  # fmt: skip
    assert len(dataset) == len(answered)
    said = [event.data["text"] for event in reader.events() if event.kind == "message"]
    assert any(f"{24 - len(answered)} examples of D are left out" in text for text in said)
    windowshift("export", "small", "--workspace", workspace, "--out", tmp_path / "rows.jsonl")
    exported = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row in exported:
        assert (row["completion"] is None) == (row["missing"] is not None) == (row["length_chars"] is None)
        if row["completion"] is not None:
            assert row["reasoning_length_chars"] == len(row["reasoning"])


def _thinker(folder: Path) -> Path:
    """A tiny model that closes a thought about every twelfth token, and ends about as often."""
    import torch
    from transformers import AutoModelForCausalLM

    from tests.tiny_models import config

    words = chat_families.qwen(chat_families.DEEPSEEK.replace("<｜User｜>", "<|im_start|>user\n")
                               .replace("<｜Assistant｜>", "<|im_start|>assistant\n"))  # fmt: skip
    settings = config("gpt_neox", len(words), max_position_embeddings=1024, initializer_range=0.02)
    settings.eos_token_id, settings.bos_token_id = words.eos_token_id, None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings)
    model.generation_config.eos_token_id = words.eos_token_id
    ends = [words.convert_tokens_to_ids("</think>"), words.eos_token_id]
    with torch.no_grad():  # all tokens alike, but for the two that end something
        model.lm_head.weight[ends] += model.gpt_neox.final_layer_norm.weight * 0.11
        model.gpt_neox.final_layer_norm.bias += 1.0
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
