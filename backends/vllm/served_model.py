"""Whether vLLM serves the very model that a spec names."""

from __future__ import annotations

from collections.abc import Sequence

from windowshift.backends.local.model_folder import locate
from windowshift.backends.vllm.engine import Served
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.home import at_home


def find_served(base: str, served: Sequence[Served], where: str) -> Served:
    """The served model that `base` is.

    A folder is compared with the folder that vLLM loaded; where vLLM runs elsewhere and that folder is not
    to be seen from here, the names decide.

    Raises:
        BackendError: there is none, with what is served in its place.
    """
    folder = locate(base)
    for one in served:
        root = at_home(one.root)
        if folder is None:
            if base in (one.root, one.name) and not root.is_dir():
                return one
            continue
        if root.is_dir() and root.resolve() == folder.resolve():
            return one
        if not root.is_dir() and base in (one.root, one.name):
            return one
    names = ", ".join(f"'{one.name}'" if one.name == one.root else f"'{one.name}' ({one.root})" for one in served)
    raise BackendError(
        f"{where} serves {names or 'no model'}, and not '{base}': start vLLM with  "
        f"--model {base if folder is None else folder}"
    )
