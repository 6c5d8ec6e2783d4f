"""Pages as LaTeX: tables of booktabs that a paper takes as they are."""

from __future__ import annotations

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
    "†": r"\dag{}",
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
    "◆": r"$\diamond$",
    "\u00a0": "~",
}
_WORDS = str.maketrans(_SPECIAL)
PACKAGES = "% needs \\usepackage{booktabs,graphicx} and, with pdfLaTeX, UTF-8 (the default since 2018)"


def escape(text: str) -> str:
    """A text as LaTeX shows it, whatever stands in it."""
    return sanitise.line(text, len(text)).translate(_WORDS)


def latex(blocks: Iterable[Block]) -> str:
    """Draw headings, lines and tables as LaTeX.

    A table stands in a `table` of its own, no wider than the text; its caption is the heading above it, and the line
    below it its note.
    """
    parts = [PACKAGES]
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
    heads = " & ".join(escape(head.replace("\n", " ")) for head in table.heads)
    rows = [" & ".join(escape(item.text) for item in row) + r" \\" for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            *([f"\\caption{{{escape(caption)}}}"] if caption else []),
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}",
            r"\toprule",
            f"{heads} \\\\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )
