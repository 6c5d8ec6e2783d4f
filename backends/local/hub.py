"""Models of the hub: their commits and configurations, asked for once and quickly."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from windowshift.core.contract.errors import BackendError, MissingExtraError
from windowshift.core.contract.hub import offline

_COMMIT = re.compile("[0-9a-f]{40}")


def hub_config(base: str, revision: str | None) -> Path:
    """The config.json of a hub model, fetched or from the cache; no weights are loaded.

    Raises:
        BackendError: it cannot be had.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtraError("backend 'local'", "local", "huggingface_hub") from error
    try:
        return Path(hf_hub_download(base, "config.json", revision=revision, local_files_only=offline()))
    except Exception as error:  # the client raises kinds of its own, of httpx and of the file system
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"config.json of model '{base}' cannot be had from the hub or its cache: {reason}"
        ) from error


@cache
def resolved(base: str, revision: str | None) -> str | None:
    """The commit that a hub id's branch or tag stands for now, or in the cache on disk; else `revision` itself.

    Asked once in a process, so that all of a run is about one commit.

    Raises:
        BackendError: the hub was asked, and has no such model or revision for this account.
    """
    if known_commit(revision):
        return revision
    missing = ""
    try:
        from huggingface_hub import HfApi
    except ImportError:
        return revision  # whoever loads it says that the library is missing
    if not offline():
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        # The client raises kinds of its own, of httpx too; whoever loads the model says which.
        with suppress(Exception):
            try:
                return str(HfApi().model_info(base, revision=revision, timeout=10).sha or revision)
            except RepositoryNotFoundError:
                missing = f"the hub has no model '{base}' for this account: check the name, or log in to the hub"
            except RevisionNotFoundError:
                missing = f"model '{base}' has no revision '{revision}' on the hub: check  revision:"
        if missing:
            raise BackendError(missing)
    found = snapshot(base, revision)
    return revision if found is None else found.name


def known_commit(revision: str | None) -> bool:
    """Whether a revision is a commit, and so stands for one content for ever."""
    return revision is not None and bool(_COMMIT.fullmatch(revision))


def snapshot(base: str, revision: str | None) -> Path | None:
    """The folder in the hub's cache on disk that a hub id stands for; None where it was never fetched."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(base, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None
