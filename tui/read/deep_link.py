"""A link into a workspace: `EXPERIMENT[/GENERATE[/TRAIN[/EVALUATE]]]`."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.core.contract.errors import SpecError


@dataclass(frozen=True, slots=True)
class DeepLink:
    """An experiment, and how far into it: a page of its grid, a row, a cell."""

    experiment: str
    generate: str | None = None
    train: str | None = None
    evaluate: str | None = None

    @property
    def text(self) -> str:
        """The link as it is typed."""
        return "/".join(part for part in (self.experiment, self.generate, self.train, self.evaluate) if part)


def parse_link(text: str) -> DeepLink:
    """Read a link.

    Raises:
        SpecError: it has empty parts, or more than four.
    """
    parts = text.strip("/").split("/")
    if not all(parts) or len(parts) > 4:
        raise SpecError(f"--open takes EXPERIMENT/GENERATE/TRAIN/EVALUATE, or its first parts alone, not '{text}'")
    return DeepLink(*parts)
