"""What leaves a workspace for a paper or a colleague: LaTeX, bundles, and the command that runs one cell again."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.generated_store import generate_store
from tests.rated_store import rate_store
from windowshift.__main__ import screens_asked_for
from windowshift.cli import app
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE, CellRow
from windowshift.core.plan.estimate import estimate
from windowshift.core.report.blocks import report_blocks
from windowshift.core.report.bundle import LEFT_OUT, _cells, make_bundle, opened
from windowshift.core.report.latex import escape, latex
from windowshift.core.report.page import Heading, Item, Line, Table
from windowshift.core.report.report import report
from windowshift.core.report.rerun_line import rerun_line
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.checksums import compare, seal
from windowshift.core.store.reader import Reader
from windowshift.rerun_command import which
from windowshift.tui.app import WindowshiftApp

SECRET = "a prompt of somebody else's"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "ws"
    writer = generate_store(folder, prompts=8, data_size=6)
    writer.close()
    generate_store(folder, name="other", prompts=5, data_size=4, generate=("long",), seed=1).close()
    with closing(sqlite3.connect(folder / "windowshift.db")) as connection, connection:
        connection.execute(
            "UPDATE completions SET text = ? WHERE job IN (SELECT job FROM experiment_jobs WHERE experiment = 2 EXCEPT "
            "SELECT job FROM experiment_jobs WHERE experiment = 1) AND row = 0",
            (SECRET,),
        )
        prompts = "INSERT INTO prompts (digest, key, text) VALUES ('0', 'k', ?)"
        connection.execute(prompts, (SECRET,))
        connection.execute("INSERT INTO phrases (text) VALUES (?)", (SECRET,))
        connection.execute("DELETE FROM checksums")
        for (job,) in connection.execute("SELECT DISTINCT job FROM completions").fetchall():
            seal(connection, job, "completions")
    return folder


@pytest.fixture(scope="module")
def bundle(workspace: Path) -> Path:
    out = workspace.parent / "med.zip"
    told = CliRunner().invoke(
        app, ["bundle", "med-short", "-w", str(workspace), "--out", str(out), "--sample", "3"], catch_exceptions=False
    )
    assert told.exit_code == 0
    return out


def test_a_report_as_latex(workspace: Path) -> None:
    told = CliRunner().invoke(app, ["report", "med-short", "-w", str(workspace), "--latex"], catch_exceptions=False)
    text = told.stdout
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") > 3
    assert r"med\_short" in text
    for table in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        rows = [row for row in table.split("\n") if row.endswith(r"\\")]
        assert len({row.replace(r"\&", "").count("&") for row in rows}) == 1
    # Nothing that pdfLaTeX does not know by itself.
    assert not set(re.findall(r"[^\x00-\x7f]", text)) - {"é"}
    assert r"\windowshiftletter{" not in text.split("\n\n", 1)[1]
    # Every number of the Markdown report is in it.
    markdown = CliRunner().invoke(app, ["report", "med-short", "-w", str(workspace), "--markdown"]).stdout
    numbers = re.compile(r"\d+\.\d+")
    assert sorted(numbers.findall(text)) == sorted(numbers.findall(markdown))
    both = CliRunner().invoke(app, ["report", "med-short", "-w", str(workspace), "--latex", "--json"])
    assert isinstance(both.exception, SpecError)


def test_latex_shows_what_stands_there() -> None:
    nasty = r"a_b & 100% of $x$ #1 {y} \input{z} ~^ <|> −1 ²"
    shown = escape(nasty)
    assert r"\textbackslash{}input\{z\}" in shown
    assert not re.search(r"(?<!\\)[&%#_]", shown)
    page = latex([Heading("A & B", 1), Line("50%", "bold"), Table(("a", "b\nc"), ((Item("x_1"), Item("2")),))])
    assert r"\section*{A \& B}" in page
    assert r"\textbf{50\%}" in page
    assert "a & b c \\\\\n\\midrule\nx\\_1 & 2 \\\\" in page


def test_a_key_in_an_address_of_the_spec_is_in_no_bundle(workspace: Path, tmp_path: Path) -> None:
    """Some gateways are asked with the key in the path: a spec holds it then, and a bundle is for others."""
    shutil.copytree(workspace, tmp_path / "ws")
    with closing(sqlite3.connect(tmp_path / "ws" / "windowshift.db")) as store, store:
        spec = (
            "backend_options: {openai: {base_url: 'https://gw.example/9f86d081884c7d65/v1'}}\n"
            "asked: [Sum up https://paper.example/hash/8bb0d291acd4acf06ef1.pdf, please]\n"
        )
        store.execute("UPDATE experiments SET spec = spec || ? WHERE name = 'med-short'", (spec,))
        seal(store, 1, "experiment")
    make_bundle(tmp_path / "ws", "med-short", tmp_path / "b.zip", sample=0)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert all(b"9f86d081" not in archive.read(name) for name in archive.namelist())
        assert b"https://gw.example/[key]/v1" in archive.read("spec.yaml")
        # What the model was asked is what a reader of the bundle asks again.
        assert b"Sum up https://paper.example/hash/8bb0d291acd4acf06ef1.pdf, please" in archive.read("spec.yaml")
    with opened(tmp_path / "b.zip") as found, closing(Reader(found)) as reader:
        assert compare(reader.connection) == []


NASTY = (
    r"a_b & 100% of $x$ #1 {y} \input{z} ~^ <|> −1 ²",
    "[0.1, 0.2] begins with a bracket",
    "* begins with a star",
    "’single’ “double” • ½ ∞ √ ÷ ∗ †",
    "ÀÿñöœŁ",
    "中文 русский ελληνικά हिन्दी 🐝 ́",
    "\x1b[31m\u202e\u200b\ufeff\x00",
    "",
)


@pytest.mark.slow
def test_latex_compiles(workspace: Path, tmp_path: Path) -> None:
    """With a LaTeX that stops at the first error: reports of both arms and of rates, and whatever a name may have."""
    if shutil.which("pdflatex") is None:
        pytest.fail("no LaTeX is installed: apt-get install texlive-latex-recommended (`.ci/run` does)")
    generate_store(tmp_path / "both", prompts=8, data_size=6, steering=True).close()
    rate_store(tmp_path / "rates").close()
    pages = []
    for folder in (workspace, tmp_path / "both", tmp_path / "rates"):
        with closing(Reader(folder)) as reader:
            name = reader.experiments()[-1].name
        pages.append(latex(report_blocks(report(folder, name), None)))
    rows = tuple((Item(name), Item(other)) for name in NASTY for other in NASTY)
    tables = [Table((name, name), rows) for name in NASTY]
    pages.append(latex([*(Heading(name, 2) for name in NASTY), *(Line(name, "bold") for name in NASTY), *tables]))
    whole = "\n".join([r"\documentclass{article}", r"\usepackage{booktabs,graphicx}", r"\begin{document}", *pages])
    (tmp_path / "page.tex").write_text(f"{whole}\n\\listoftables\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    for _ in range(2):  # the second reads what the first wrote down of captions
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "page.pdf").stat().st_size > 10_000


def test_a_bundle_has_what_another_person_needs(workspace: Path, bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("bundle.json"))
        for name, digest in manifest["files"].items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
        assert set(manifest["files"]) | {"bundle.json"} == set(archive.namelist())
        assert manifest["spec_sha256"] == hashlib.sha256(archive.read("spec.yaml")).hexdigest()
        assert {"python", "numpy", "torch"} <= set(manifest["versions"])
        assert manifest["model"]["rehearsal"] is True
        assert json.loads(archive.read("report.json")) == json.loads(
            json.dumps(report(workspace, "med-short").to_json())
        )
        lines = [json.loads(line) for line in archive.read("completions.jsonl").splitlines()]
        assert len(lines) == 56 * 3
        assert "rehearsal model" in archive.read("LICENCES.md").decode()
        # Nothing of another experiment, not even in the file's free pages.
        assert all(SECRET.encode() not in archive.read(name) for name in archive.namelist())
    again = workspace.parent / "again.zip"
    make_bundle(workspace, "med-short", again, sample=3)
    assert again.read_bytes() == bundle.read_bytes()
    with pytest.raises(SpecError, match="is there already"):
        make_bundle(workspace, "med-short", again)
    with pytest.raises(SpecError, match=r"ends in \.zip"):
        make_bundle(workspace, "med-short", workspace.parent / "bundle.tar")


async def test_a_bundle_is_opened_with_the_same_numbers(workspace: Path, bundle: Path) -> None:
    before = report(workspace, "med-short").to_json()
    with opened(bundle) as folder:
        assert report(folder, "med-short").to_json() == before
        with closing(Reader(folder)) as reader:
            assert [one.name for one in reader.experiments()] == ["med-short"]
            assert compare(reader.connection) == []
            texts = [row.text for row in reader.completions(reader.cells(1, "")[0].job, "length_chars")]
            assert [text == LEFT_OUT for text in texts] == [False] * 3 + [True] * 5
        shown = WindowshiftApp(folder, state=folder / "state.json")
        async with shown.run_test(size=(100, 30)) as pilot:
            await pilot.pause()
            assert shown.screen is not None
    assert not folder.exists()


def test_what_is_no_bundle_is_one_sentence(bundle: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.zip"
    plain.write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("x", "y")
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(tmp_path / "changed.zip", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[:-1] + b"?" if name == "windowshift.db" else data)
    assert screens_asked_for(["tui", str(plain)]) is None  # the short way to the screens leaves files alone
    for name, says in (("plain", "not a bundle"), ("empty", "not a bundle"), ("changed", "was changed after")):
        told = CliRunner().invoke(app, ["tui", str(tmp_path / f"{name}.zip")])
        assert isinstance(told.exception, SpecError)
        assert says in str(told.exception)


def test_a_bundles_table_runs_nothing_in_a_spreadsheet() -> None:
    lines = _cells([{"train": "=HYPERLINK(1)", "mean": -1.5, "ci95": [-2.0, -1.0]}]).splitlines()
    assert lines[1].startswith("'=HYPERLINK(1),-1.5,")


def test_a_damaged_bundle_is_one_sentence(bundle: Path, tmp_path: Path) -> None:
    """Whatever zip and its decompressors make of bytes that are none of theirs."""
    content, rng, said = bundle.read_bytes(), random.Random(1), set()
    with zipfile.ZipFile(bundle) as archive:
        begins = archive.getinfo("windowshift.db").header_offset + 30 + len("windowshift.db")
    for number in range(60):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.choice((rng.randrange(len(content)), -rng.randrange(1, 900)))] ^= 1 << rng.randrange(8)
        if number == 0:
            damaged = bytearray(content)
            damaged[begins] |= 0b110  # a kind of block that there is none of
        (tmp_path / "damaged.zip").write_bytes(damaged)
        try:
            with opened(tmp_path / "damaged.zip"):
                pass
        except SpecError as error:
            said.add(str(error))
    assert not any("\n" in one for one in said)
    assert any("decompressing" in one for one in said)
    assert len(said) > 5


def test_what_goes_wrong_behind_an_opened_bundle_is_not_the_bundles_fault(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Path] = []
    monkeypatch.setattr("windowshift.tui.launch.run", lambda folder, **_: shown.append(folder) or 0)
    told = CliRunner().invoke(app, ["tui", str(bundle)])
    assert (told.exit_code, told.exception, len(shown)) == (0, None, 1)
    with pytest.raises(KeyError, match="elsewhere"), opened(bundle):
        raise KeyError("elsewhere")


# -- one cell again ---------------------------------------------------------------------------------

SPEC = """\
name: grid
model: microworld
prompts: microworld
conditions:
  generate: [med_short, long]
  train: [short, {prefix_group: x, name: odd}, long]
  evaluate: [short, no_prefix]
data: {size: 4}
sft: {rank: 2, batch_size: 2}
sampling: {prompts: 3, max_tokens: 8}
seeds: [0, 1]
""".replace("{prefix_group: x, name: odd}", "very_long")


@pytest.mark.parametrize("cell", ["med_short/long/short", "long/short/no_prefix", "base/short"])
def test_a_cell_by_itself_has_the_jobs_that_it_has_in_the_grid(tmp_path: Path, cell: str) -> None:
    whole = plan_spec(parse_spec(SPEC), SPEC, tmp_path)
    part = [job for job in whole.jobs if job.id in whole.needed_for(*which(cell), 1)]
    assert len([job for job in part if job.kind == "train"]) == (0 if cell.startswith("base") else 1)
    assert all(job.inputs.get("seed", 1) == 1 for job in part if job.kind == "train")
    assert {parent for job in part for parent in job.parents} <= {job.id for job in part}
    evaluated = [job for job in part if job.kind == "evaluate"]
    assert len(evaluated) <= 2  # the cell, and the base model's beside it
    assert {job.parents[0] for job in part if job.kind == "score"} >= {job.id for job in evaluated}


LINKED = {
    "contrasts": ("med_short/no_prefix/short", "contrasts: [{of: short, against: base, evaluate: [no_prefix]}]"),
    "checkpoints": ("med_short/short/short", "checkpoints: {at: [2], evaluate: [no_prefix]}"),
    "a name of another list": ("med_short/kind/kind", ""),
    "a control of what stands later": ("med_short/later~irrelevant/short", ""),
    "stages of an inline one": ("med_short/staged/later", ""),
    "a mix": ("med_short+long/mixed/short", ""),
    "the base model alone": ("base/only", ""),
}


@pytest.mark.parametrize("case", LINKED)
def test_a_cell_is_found_whatever_its_conditions_are_made_of(tmp_path: Path, case: str) -> None:
    cell, more = LINKED[case]
    text = f"""\
name: grid
model: microworld
prompts: microworld
conditions:
  generate: [med_short]
  train:
    - short
    - no_prefix
    - {{name: kind, phrases: ['Be kind:']}}
    - {{control: irrelevant, of: later}}
    - {{name: staged, stages: [{{train: kind}}, {{train: no_prefix}}]}}
    - {{name: mixed, mix: [{{fraction: 0.5, generate: med_short, train: kind}},
                          {{fraction: 0.5, generate: long, train: short}}]}}
  evaluate: [short, no_prefix, kind, {{name: later, phrases: ['Be good:', 'Good:']}}]
  base: [{{name: only, phrases: ['Only this:']}}]
data: {{size: 4}}
sampling: {{prompts: 3, max_tokens: 8}}
{more}
"""
    whole = plan_spec(parse_spec(text), text, tmp_path)
    needed = whole.needed_for(*which(cell), 0)
    jobs = {one.job for one in whole.cells if "/".join((one.generate, one.train, one.evaluate)).lstrip("/") == cell}
    assert jobs & needed
    said = estimate(whole.part(needed), tmp_path)  # before a run of it is paid for
    assert sum(count for _, count in said.jobs.values()) == len(needed) < len(whole.jobs)


def test_names_with_slashes_in_them_name_a_cell() -> None:
    row = CellRow(1, "prefix", "d", "t", "e", 0, 0, True, 1, "done", 1, 1, None)
    cells = [
        replace(row, generate=generate, train=train, evaluate=evaluate)
        for generate, train, evaluate in (
            ("d", "a/b", "c"), ("d/a", "b/x", "c"), ("d", "a", "b/x"), ("", BASE, "e/f"), ("d", "a/b", "x/c"),
        )
    ]  # fmt: skip
    assert which("d/a/b/c", cells) == ("d", "a/b", "c")
    assert which("d/a/b%2Fx", cells) == ("d", "a", "b/x")
    assert which("d%2fa/b%2fx/c", cells) == ("d/a", "b/x", "c")
    assert which("base/e/f", cells) == which("base/e%2Ff") == ("", "base", "e/f")
    with pytest.raises(SpecError, match=r"names 2 of them.*: write d%2Fa/b%2Fx/c or d/a%2Fb/x%2Fc"):
        which("d/a/b/x/c", cells)
    with pytest.raises(SpecError, match="is not GENERATE/TRAIN/EVALUATE"):
        which("q/a/b/x/c", cells)
    for cell in cells:
        line = shlex.split(rerun_line("x", Path("ws"), (cell.generate, cell.train, cell.evaluate)))
        assert which(line[3], cells) == (cell.generate, cell.train, cell.evaluate)


def test_d_of_a_row_whose_names_hold_slashes_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_store(tmp_path / "ws", prompts=4, data_size=6).close()
    with closing(sqlite3.connect(tmp_path / "ws" / "windowshift.db")) as store, store:
        store.execute("UPDATE cells SET train = 'very/long' WHERE train = 'very_long'")
        store.execute("DELETE FROM checksums")
    asked: list[tuple[str, str]] = []

    def export_dataset(_: Path, __: str, generate: str, train: str, *___: object, **____: object) -> int:
        asked.append((generate, train))
        return 6

    monkeypatch.setattr("windowshift.core.report.export.export_dataset", export_dataset)
    for named in ("med_short/very/long", "med_short/very%2Flong", "med_short/short"):
        words = ["export", "med-short", "--dataset", named, "-w", str(tmp_path / "ws"), "--out", "d.jsonl"]
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert asked == [("med_short", "very/long")] * 2 + [("med_short", "short")]
    words[3] = "med_short/a/b/c"
    assert "takes GENERATE/TRAIN" in str(CliRunner().invoke(app, words).exception)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rerun", "med-short", "a/b"], "is not GENERATE/TRAIN/EVALUATE"),
        (["rerun", "med-shrt", "a/b/c"], "med-shrt"),
    ],
)
def test_what_cannot_be_run_again_is_one_sentence(workspace: Path, arguments: list[str], says: str) -> None:
    told = CliRunner().invoke(app, [*arguments, "-w", str(workspace), "--into", str(workspace.parent / "new")])
    assert isinstance(told.exception, SpecError)
    assert says in str(told.exception)
    same = CliRunner().invoke(app, ["rerun", "x", "a/b/c", "-w", str(workspace), "--into", str(workspace)])
    assert "choose another one" in str(same.exception)
    plan = plan_spec(parse_spec(SPEC), SPEC, workspace)
    for cell, says in (
        ("long/lnog/short", "no train condition 'lnog' under 'short': did you mean 'long'"),
        ("lonk/long/short", "no generate condition 'lonk' of 'long': did you mean 'long'"),
        ("long/long/sort", "no evaluate condition 'sort': did you mean 'short'"),
    ):
        with pytest.raises(SpecError, match=says):
            plan.needed_for(*which(cell), 0)


@pytest.mark.slow
def test_a_cell_that_is_run_again_gives_the_same_texts(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(SPEC, encoding="utf-8")
    ran = CliRunner().invoke(app, ["run", str(tmp_path / "grid.yaml"), "-w", str(tmp_path / "ws"), "-q"])
    assert ran.exit_code == 0, ran.output
    command = [
        "rerun",
        "grid",
        "long/short/no_prefix",
        "-w",
        str(tmp_path / "ws"),
        "--into",
        str(tmp_path / "again"),
        "-q",
    ]
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert "3 of 3 completions are the same" in again.output
