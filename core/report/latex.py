"""Pages as LaTeX: tables of booktabs that a paper takes as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from windowshift.core.contract import sanitise
from windowshift.core.report.page import Block, Heading, Line, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "±": r"$\pm$",
    "²": "$^2$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "‖": r"$\Vert$",
    "α": r"$\alpha$",
    "′": r"$'$",
    "†": r"$\dagger$",  # not \dag: in text it is a bitmap where LaTeX has only its first fonts
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
    "◆": r"$\diamond$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "÷": r"$\div$",
    "∗": r"$\ast$",
    "•": r"$\bullet$",
    "½": r"$\frac{1}{2}$",
    "¼": r"$\frac{1}{4}$",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
}
_WORDS = str.maketrans(_SPECIAL)
_OTHER = re.compile(r"[^\x00-\x7fÀ-ÅÇ-ÏÑ-ÖØ-Ýà-åç-ïñ-öø-ýÿ]")
"""What pdfLaTeX has no letter for by itself."""
HEAD = """\
% needs \\usepackage{booktabs,graphicx} and, with pdfLaTeX, UTF-8 (the default since 2018)
% A letter that pdfLaTeX has not is its code point there; XeLaTeX and LuaLaTeX show it, in a font that has it.
\\ifdefined\\windowshiftletter\\else\\protected\\def\\windowshiftletter#1#2{\\ifdefined\\Umathchar#2\\else[U+#1]\\fi}\\fi"""


def escape(text: str) -> str:
    """A text as LaTeX shows it, whatever stands in it."""
    shown = sanitise.line(text, len(text)).translate(_WORDS)
    return _OTHER.sub(lambda found: f"\\windowshiftletter{{{ord(found[0]):04X}}}{{{found[0]}}}", shown)


def latex(blocks: Iterable[Block]) -> str:
    """Draw headings, lines and tables as LaTeX.

    A table stands in a `table` of its own, no wider than the text; its caption is the heading above it, and the line
    below it its note.
    """
    parts = [HEAD]
    caption = ""
    for block in blocks:
        if isinstance(block, Heading):
            caption = block.text
            parts.append(f"\\{'section' if block.level == 1 else 'subsection'}*{{{escape(block.text)}}}")
        elif isinstance(block, Line):
            text = escape(block.text)
            parts.append(f"\\textbf{{{text}}}" if "bold" in block.style else text)
        else:
            parts.append(_table(block, caption))
    return "\n\n".join(parts) + "\n"


def _table(table: Table, caption: str) -> str:
    heads = _row(head.replace("\n", " ") for head in table.heads)
    rows = [_row(item.text for item in row) for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            *([f"\\caption{{{escape(caption)}}}"] if caption else []),
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}",
            r"\toprule",
            heads,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )


def _row(cells: Iterable[str]) -> str:
    # What ends the row above would take a bracket or a star for an argument of its own.
    line = " & ".join(map(escape, cells))
    return f"{{}}{line} \\\\" if line.startswith(("[", "*")) else f"{line} \\\\"
