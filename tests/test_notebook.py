"""The public API: the README's notebook example as it stands there, inside a running event loop, and bad input."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import windowshift
from windowshift import LocalModel, Sampling
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message

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
