"""What `mkdocs` calls while it builds the site: the generated pages are added to those of `docs/`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference."""
    from mkdocs.structure.files import File

    sys.path.insert(0, str(Path(__file__).parents[1]))  # mkdocs loads this file by its path
    from bench.reference import pages

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
