"""The folder of an adapter: which weights at the service it stands for, and its PEFT files where they were fetched."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from windowshift.core.contract.errors import BackendError

FILE = "tinker.json"
PEFT = ("adapter_config.json", "adapter_model.safetensors")
SCHEME = "tinker://"


@dataclass(frozen=True, slots=True)
class RemoteAdapter:
    """Sampler weights at a server: their path, the base model, and the examples that they were trained on."""

    path: str
    server: str
    model: str
    examples: int

    @classmethod
    def read(cls, adapter: str) -> RemoteAdapter:
        """Read what an adapter's folder says; ``tinker://...`` itself may stand in its place.

        Raises:
            BackendError: it is neither.
        """
        if adapter.startswith(SCHEME):
            return cls(adapter, "", "", 0)
        path = Path(adapter) / FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise BackendError(
                f"adapter '{adapter}' is none of Tinker's: it is no folder with a {FILE}, and no {SCHEME} path"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise BackendError(f"adapter '{adapter}': {FILE} cannot be read ({error})") from error

    def note(self, folder: Path) -> None:
        """Write down in an adapter's folder which weights it stands for."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def complete(folder: Path, *, peft: bool) -> bool:
    """Whether an adapter's folder is there, with its PEFT files where `peft` asks for them."""
    return all((folder / name).is_file() for name in (FILE, *(PEFT if peft else ())))
