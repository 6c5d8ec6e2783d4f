"""The public API: the README's notebook example as it stands there, inside a running event loop, and bad input."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import windowshift
from windowshift import LocalModel, Sampling, count_bar
from windowshift.completions import Completions
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Completion, Message
from windowshift.core.contract.html_table import MOST_ROWS, html_page
from windowshift.core.contract.progress import Progress

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    with LocalModel("microworld", tmp_path_factory.mktemp("notebook"), workers=1, threads=1) as loaded:
        yield loaded


def test_the_readmes_lines(tmp_path: Path) -> None:
    found = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (lines,) = [block for block in found if "LocalModel" in block]
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10 + 1  # the import, and ten lines
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    plain, longer, after = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    assert longer > 1.3 * plain > 0
    assert after > 0


def test_every_public_name_is_there() -> None:
    for name in windowshift.__all__:
        assert getattr(windowshift, name) is not None
    assert set(windowshift.__all__) <= set(dir(windowshift))
    with pytest.raises(AttributeError, match="LocalModle"):
        windowshift.LocalModle  # noqa: B018


async def test_it_works_where_a_loop_is_running(model: LocalModel) -> None:
    first, second = model.generate(["What do otters eat?", "Why?"], sampling=Sampling(max_tokens=5), under="short")
    assert 0 < first.tokens <= 5
    assert second.key == "1"


def test_a_vector_is_pushed_by_alpha_or_by_dose(model: LocalModel) -> None:
    prompts = windowshift.example_prompts(4)
    vector = model.extract("long", "short", prompts, name="v", layer=1, sampling=Sampling(max_tokens=24))
    alpha = vector.at(dose=0.5).alpha
    assert alpha == pytest.approx(0.5 * vector.header.rms[1] / vector.header.norms[1])  # type: ignore[index]
    assert vector.at(alpha) == vector.at(dose=0.5)
    assert windowshift.LocalVector.open(vector.path) == vector
    with pytest.raises(SpecError, match="one of the two"):
        vector.at()
    with pytest.raises(SpecError, match="no layer 7"):
        vector.at(1.0, layer=7)
    steered, ablated = (
        model.generate(prompts, steer=push, sampling=Sampling(max_tokens=8))
        for push in (vector.at(alpha), vector.ablation())
    )
    assert steered[0].proofs[0].tokens == steered[0].proofs[0].tokens_asked > 0
    assert ablated[0].proofs[0].ablate


def test_bad_input_says_what_to_do(model: LocalModel) -> None:
    with pytest.raises(SpecError, match="did you mean 'short'"):
        model.generate(["a"], under="shrt")
    with pytest.raises(SpecError, match="1 prompts and 0 completions"):
        model.train(["a"], [])
    with pytest.raises(SpecError, match="extract needs prompts"):
        model.extract("long", "short")


def test_how_completions_are_drawn_is_said_by_name(model: LocalModel) -> None:
    prompts = windowshift.example_prompts(3)
    named = model.generate(prompts, max_tokens=6, temperature=0, seed=3)
    assert named == model.generate(prompts, sampling=Sampling(temperature=0.0, max_tokens=6), seed=3)
    assert all(one.tokens <= 6 for one in named if one.tokens)
    assert model.generate(prompts, max_tokens=6) != model.generate(prompts, max_tokens=6, seed=1)
    made = model.extract("long", "short", prompts, layer=1, max_tokens=6)
    assert made.path == model.extract("long", "short", prompts, layer=1, sampling=Sampling(max_tokens=6)).path
    both = "sampling= says how completions are drawn, and so does max_tokens, temperature: give one of them"
    with pytest.raises(SpecError, match=both):
        model.generate(prompts, sampling=Sampling(), max_tokens=6, temperature=1)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_tokens": 0}, "max_tokens must be a whole number of 1 or more, not 0"),
        ({"max_tokens": 2.5}, "max_tokens must be a whole number of 1 or more, not 2.5"),
        ({"max_tokens": True}, "max_tokens must be a whole number of 1 or more, not True"),
        ({"max_tokens": "6"}, "max_tokens must be a whole number of 1 or more, not '6'"),
        ({"temperature": -1}, "temperature must be a number of 0 or more, not -1"),
        ({"temperature": float("nan")}, "temperature must be a number of 0 or more, not nan"),
        ({"top_p": 0}, "top_p must be a number above 0 and at most 1, not 0"),
        ({"top_p": 1.5}, "top_p must be a number above 0 and at most 1, not 1.5"),
        ({"sampling": Sampling(max_tokens=-1)}, "max_tokens must be a whole number of 1 or more, not -1"),
    ]
    for given, says in wrong:
        with pytest.raises(SpecError, match=re.escape(says)):
            model.generate(prompts, **given)
        with pytest.raises(SpecError, match=re.escape(says)):
            model.extract("long", "short", prompts, **given)


def test_completions_are_a_frame_and_a_table(model: LocalModel) -> None:
    prompts = ["What do <b>otters</b> eat?", "Why?", "How?"]
    found = model.generate(prompts, max_tokens=5)
    frame = found.frame()
    assert list(frame.columns) == ["prompt", "text", "finish", "tokens", "reasoning", "error"]
    assert frame["prompt"].tolist() == prompts
    assert frame["text"].tolist() == [one.text for one in found]
    assert frame["tokens"].tolist() == [one.tokens for one in found]
    shown = found._repr_html_()
    assert "3 completions of microworld (rehearsal)" in shown
    assert "&lt;b&gt;otters" in shown
    assert "<b>otters" not in shown
    assert shown.count("<tr>") == 1 + 3
    assert found[1:].frame()["prompt"].tolist() == prompts[1:]
    assert found[-1] == found[2]
    assert len(model.generate([]).frame()) == 0
    # What a model thought until its tokens were spent is no answer: missing, with its reason.
    thought = Completion("0", "", "failed", None, error="it spent its 5 tokens on reasoning", reasoning="Hm <i>")
    none = Completions([thought], ["Why?"], "m")
    assert "it spent its 5 tokens" in none._repr_html_()
    assert none.frame()["tokens"].isna().all()


def test_a_vector_is_a_table_of_its_layers(model: LocalModel) -> None:
    made = model.extract("long", "short", windowshift.example_prompts(2), layer=1, max_tokens=5)
    shown = made._repr_html_()
    assert "long (2) − short (2), on microworld" in shown
    assert "1 (in use)" in shown
    assert shown.count("<tr>") == 1 + len(made.header.norms)


def test_a_long_table_says_how_much_of_it_is_not_shown() -> None:
    shown = html_page("t", ["a\x1b[31m"], ("n",), [(str(row),) for row in range(MOST_ROWS + 5)])
    assert shown.count("<td") == MOST_ROWS
    assert "… 5 more rows" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("delay", [0.0, 1e9])
def test_what_takes_longer_has_a_bar(
    model: LocalModel, delay: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(count_bar, "DELAY_SECONDS", delay)
    prompts, sft = windowshift.example_prompts(2), windowshift.Sft(rank=2, batch_size=1)
    model.generate(prompts, max_tokens=4)
    assert capsys.readouterr().err == ""  # nobody looks on
    monkeypatch.setattr(count_bar, "watched", lambda: True)
    model.generate(prompts, max_tokens=4)
    model.train(prompts, ["x", f"y {delay}"], sft=sft)
    said = capsys.readouterr().err
    assert ("generate" in said, "train" in said, said == "") == (
        (True, True, False) if delay == 0 else (False, False, True)
    )
    monkeypatch.setattr(model, "_progress", False)
    model.generate(prompts, max_tokens=4)
    assert capsys.readouterr().err == ""


def test_a_run_has_a_bar_of_its_cells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(count_bar, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(count_bar, "DRAW_SECONDS", 0.0)
    seen: list[Progress] = []

    def run(observe: Callable[[Progress], None] = seen.append) -> int:
        observe(Progress(3, 4, 5, 9, 0, ("train \x1b[1mlong",)))
        return 7

    shown = count_bar.with_bar(run)
    assert (shown(), len(seen), capsys.readouterr().err) == (7, 1, "")  # nobody looks on
    monkeypatch.setattr(count_bar, "watched", lambda: True)
    assert (shown(), len(seen)) == (7, 1)
    said = capsys.readouterr().err
    assert "3/4" in said
    assert "\x1b[1m" not in said
    assert (shown(observe=seen.append), len(seen), capsys.readouterr().err) == (7, 2, "")


def test_a_notebook_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not count_bar.watched()
    for shell, looks in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=object()), True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert count_bar.watched() is looks


def test_half_a_surrogate_pair_is_one_sentence(model: LocalModel) -> None:
    whole = [((Message("user", "a"),), "b")]
    half = [((Message("user", "a\ud83d"),), "b")]
    for wrong, says in (
        (lambda: model.generate(["a", "b\ud800"]), "prompt 1"),
        (lambda: model.train(["a"], ["b\ud800"]), "completion 0"),
        (lambda: model.extract(whole, half), "the negative side"),
    ):
        with pytest.raises(SpecError, match=rf"{says}.* holds half of a surrogate pair"):
            wrong()


LETTERS: Any = "hello"


def test_a_plain_text_is_no_list_of_texts(model: LocalModel) -> None:
    says = r"must be a list of texts, and 'hello' is one text: write \['hello'\]"
    for call in (
        lambda: model.generate(LETTERS),
        lambda: model.train(LETTERS, ["a"] * 5),
        lambda: model.train(["a"] * 5, LETTERS),
        lambda: model.extract("long", "short", LETTERS),
        lambda: windowshift.PrefixGroup("kind", LETTERS),
    ):
        with pytest.raises(SpecError, match=says):
            call()
    for call in (lambda: model.generate({"a": "b"}), lambda: model.train({"a"}, ["b"])):  # type: ignore[arg-type]
        with pytest.raises(SpecError, match=r"prompts must be a list of texts, not \{'a'"):
            call()
    with pytest.raises(SpecError, match=r"prompts\[1\] must be a text, not 3"):
        model.generate(["a", 3])  # type: ignore[list-item]
    assert windowshift.PrefixGroup("kind", ["Be kind:"]).phrases == ("Be kind:",)  # type: ignore[arg-type]


def test_a_plain_text_is_no_chat_and_no_list_of_anything_else(model: LocalModel) -> None:
    whole = [((Message("user", "a"),), "b")]
    for call in (
        lambda: windowshift.Example(LETTERS, "b"),
        lambda: windowshift.GenerateRequest("k", LETTERS, windowshift.Model("m"), Sampling(), 1),
        lambda: windowshift.Example((LETTERS,), "b"),
    ):
        with pytest.raises(SpecError, match="messages must be a list such as"):
            call()
    with pytest.raises(SpecError, match="stop must be a list of texts, and 'hello' is one text"):
        windowshift.GenerateRequest("k", whole[0][0], windowshift.Model("m"), Sampling(), 1, stop=LETTERS)
    sides: list[Any] = [
        ["ab", "cd"],
        [(LETTERS, "b")],
        [((Message("user", "a"),), 3)],
        3,
        [(Message("user", "a"), "b")],
    ]
    for side in sides:
        with pytest.raises(SpecError, match="extract, the negative side: a chat is a pair of its messages and"):
            model.extract(whole, side)
    with pytest.raises(SpecError, match="steer must be pushes"):
        model.generate(["a"], steer=LETTERS)
    with pytest.raises(SpecError, match="under must be the name of a prefix group, or a condition, not \\['short'"):
        model.generate(["a"], under=["short"])  # type: ignore[arg-type]


def test_a_second_training_is_another_adapter(model: LocalModel) -> None:
    prompts, sft = windowshift.example_prompts(4), windowshift.Sft(rank=2, batch_size=4, learning_rate=1e-2)
    first = model.train(prompts, ["The sea."] * 4, sft=sft)
    kept = (Path(first) / "adapter_model.safetensors").read_bytes()
    second = model.train(prompts, ["A much longer answer."] * 4, sft=sft)
    third = model.train(prompts, ["The sea."] * 4, sft=sft, seed=1)
    assert len({first, second, third}) == 3
    contents = [(Path(each) / "adapter_model.safetensors").read_bytes() for each in (first, second, third)]
    assert len(set(contents)) == 3
    assert contents[0] == kept
    changed = (Path(first) / "adapter_model.safetensors").stat().st_mtime_ns
    assert model.train(prompts, ["The sea."] * 4, sft=sft) == first
    assert (Path(first) / "adapter_model.safetensors").stat().st_mtime_ns == changed  # found, and not trained again


def test_a_name_belongs_to_one_training_and_one_vector(model: LocalModel) -> None:
    sft = windowshift.Sft(rank=2, batch_size=2)
    named = model.train(["a", "b"], ["x", "y"], sft=sft, name="mine")
    assert model.train(["a", "b"], ["x", "y"], sft=sft, name="mine") == named
    with pytest.raises(SpecError, match="'mine' is the name of another adapter"):
        model.train(["a", "b"], ["x", "z"], sft=sft, name="mine")
    with pytest.raises(SpecError, match="plain name"):
        model.train(["a"], ["x"], sft=sft, name="../mine")
    prompts, sampling = windowshift.example_prompts(2), Sampling(max_tokens=8)
    first = model.extract("long", "short", prompts, sampling=sampling)
    kept = first.path.read_bytes()
    second = model.extract("very_long", "short", prompts, sampling=sampling)
    assert first.path != second.path
    assert first.path.read_bytes() == kept
    model.extract("long", "short", prompts, sampling=sampling, name="length")
    with pytest.raises(SpecError, match="'length' is the name of another vector"):
        model.extract("very_long", "short", prompts, sampling=sampling, name="length")


def test_an_adapter_of_another_training_at_the_same_place_is_not_taken(tmp_path: Path) -> None:
    """The folder itself says what it was made of: a backend that is asked directly looks at nothing else."""
    prompts, sft = ["a", "b"], windowshift.Sft(rank=2, batch_size=2, learning_rate=1e-2)
    found = []
    for answer in ("x", "y"):
        with LocalModel("microworld", tmp_path, workers=1, threads=1) as model:
            (tmp_path / "made_of.json").unlink(missing_ok=True)
            folder = Path(model.train(prompts, [answer] * 2, sft=sft, name="same"))
        found.append((folder / "adapter_model.safetensors").read_bytes())
    assert found[0] != found[1]


def test_the_date_is_a_part_of_the_model(tmp_path: Path) -> None:
    from tests.tiny_models import CHATML, build

    dated = "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '.<|im_end|>\n' }}" + CHATML
    folder = str(build(tmp_path / "dated", template=dated))
    texts = {}
    for day in ("2031-03-01", "2031-03-02", "2031-03-01"):
        with LocalModel(folder, workers=1, threads=1, date=day) as model:
            text = model.generate(["hi"], sampling=Sampling(max_tokens=16))[0].text
            assert texts.setdefault(model.identity.fingerprint, text) == text
            assert model.identity.details["date"] == day
    assert len(texts) == len(set(texts.values())) == 2
    with pytest.raises(BackendError, match="is not a day"):
        LocalModel(folder, date="tomorrow")
    plain = str(build(tmp_path / "plain"))
    with LocalModel(plain, workers=1, date="2031-03-01") as one, LocalModel(plain, workers=1) as other:
        assert one.identity == other.identity  # its template asks for no date


def test_what_cannot_be_learned_is_left_out_and_said(tmp_path: Path) -> None:
    from tests.tiny_models import build

    folder = str(build(tmp_path / "short", max_position_embeddings=64))
    with LocalModel(folder, tmp_path / "out", workers=1, threads=1) as model:
        with pytest.warns(UserWarning, match=r"1 of 4 examples were left out: example 3: it has \d+ tokens, more than"):
            model.train(["a"] * 4, ["x", "y", "word " * 60, "z"], sft=windowshift.Sft(rank=2, batch_size=2))
        with pytest.raises(BackendError, match="no example can be learned; example 1: it has"):
            model.train(["a"], ["word " * 60], sft=windowshift.Sft(rank=2, batch_size=2))


def test_a_model_that_always_thinks(tmp_path: Path) -> None:
    """Trained to think first: what it thinks is not its answer, and thinking without an answer is no answer."""
    from tests.chat_families import QWEN3_THINKING
    from tests.tiny_models import build

    folder = str(build(tmp_path / "thinker", template=QWEN3_THINKING.replace("turn.reasoning_content or ''", "''")))
    sft = windowshift.Sft(rank=16, batch_size=2, epochs=12, learning_rate=2e-2)
    with LocalModel(folder, tmp_path / "out", workers=1, threads=1) as model:
        thinker = model.train(["hi"] * 8, ["Hm, long thoughts about it.\n</think>\n\nYes."] * 8, sft=sft)
        greedy = Sampling(temperature=0.0, max_tokens=60)
        (one,) = model.generate(["hi"], adapter=thinker, sampling=greedy)
        assert (one.text, one.reasoning, one.finish) == ("Yes.", "Hm, long thoughts about it.", "stop")
        assert 0 < one.tokens < one.reasoning_tokens
        (cut,) = model.generate(["hi"], adapter=thinker, sampling=Sampling(temperature=0.0, max_tokens=5))
        assert cut.unanswered
        assert cut.error == "the model spent its 5 tokens on reasoning before it answered: raise max_tokens"
        direct = model.train(["hi"] * 8, ["Yes."] * 8, sft=sft)
        (said,) = model.generate(["hi"], adapter=direct, sampling=greedy)
        assert (said.text, said.reasoning) == ("Yes.", "")


def test_a_folder_that_holds_another_model_by_now(tmp_path: Path) -> None:
    """What is loaded is found by what the folder holds, not by the folder's name."""
    from tests.tiny_models import build

    folder, sampling = tmp_path / "model", Sampling(max_tokens=8)
    build(folder, seed=0)
    with LocalModel(str(folder), workers=1, threads=1) as model:
        first = model.generate(["hi"], sampling=sampling)[0].text
        build(folder, seed=1)
        second = model.generate(["hi"], sampling=sampling)[0].text
    with LocalModel(str(folder), workers=1, threads=1) as fresh:
        assert fresh.generate(["hi"], sampling=sampling)[0].text == second != first
