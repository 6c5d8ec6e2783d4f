"""A steering vector's file in a notebook: what it is, and the pushes that are made with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Steering, Tokens
from windowshift.core.contract.html_table import html_page
from windowshift.core.contract.number_format import number
from windowshift.core.contract.vector_file import VectorHeader, read_header


@dataclass(frozen=True, slots=True)
class LocalVector:
    """A steering vector on disk; any windowshift vector file can be opened with `open`."""

    path: Path
    header: VectorHeader

    def __repr__(self) -> str:
        header = self.header
        return f"<LocalVector {header.name!r}: {len(header.norms)} layers x {header.width}, {str(self.path)!r}>"

    def _repr_html_(self) -> str:
        header, made = self.header, self.header.provenance
        sides = f": {made.positive} ({made.positive_count}) − {made.negative} ({made.negative_count})"
        lines = [f"{made.how}{sides if made.positive else ''}, on {made.model}", str(self.path)]
        rows = [
            (
                f"{layer}{' (in use)' if layer == header.layer else ''}",
                number(norm),
                "not measured" if header.rms is None else number(header.rms[layer]),
            )
            for layer, norm in enumerate(header.norms)
        ]
        return html_page(f"vector {header.name}", lines, ("layer", "norm", "RMS norm of the residual stream"), rows)

    @classmethod
    def open(cls, path: str | Path) -> LocalVector:
        """Open a vector file.

        Raises:
            SpecError: the file cannot be read or is not a windowshift vector.
        """
        return cls(Path(path), read_header(path))

    def at(
        self,
        alpha: float | None = None,
        *,
        dose: float | None = None,
        layer: int | None = None,
        tokens: Tokens = "all",
    ) -> Steering:
        """A push by h + alpha * v at a layer (the vector's own by default).

        Give `alpha`, or `dose` in units of the residual stream's RMS norm.

        Raises:
            SpecError: neither or both are given, or the vector has no such layer.
        """
        if (alpha is None) == (dose is None):
            raise SpecError("a push needs alpha or dose, one of the two")
        used = self.header.layer_in_use(layer)
        if alpha is None:
            alpha = self.header.alpha_of(float(dose or 0.0), used)
        return Steering(str(self.path), alpha, used, tokens)

    def ablation(self, *, layer: int | None = None, tokens: Tokens = "all") -> Steering:
        """The direction projected out at a layer.

        Raises:
            SpecError: the vector has no such layer.
        """
        return Steering(str(self.path), 0.0, self.header.layer_in_use(layer), tokens, ablate=True)
