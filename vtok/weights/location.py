"""Where a pretrained part lies: a folder, a shipped model, or a hub id, which is read through the hub's cache."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError

from vtok.config import ConfigError
from vtok.weights.library import library_errors
from vtok.weights.shipped import folder_of

FETCH = "fetch it again"


@dataclass(frozen=True)
class Location:
    """Where a pretrained part lies.

    Attributes:
        what: The part's name in error messages.
        setting: The key of the configuration that names it.
        weights: Folder, shipped model or hub id.
        revision: Branch, tag or commit of a hub id.
        subfolder: Subfolder of the folder or repository.
    """

    what: str
    setting: str
    weights: str
    revision: str | None = None
    subfolder: str = ""

    def find(self, name: str) -> Path | None:
        """Returns the file ``name``, or ``None`` if it does not exist. Downloads it into the hub's cache if needed.

        Raises:
            ConfigError: ``weights`` is not a folder, and the hub does not give it.
        """
        if folder := folder_of(self.weights):
            path = folder / self.subfolder / name
            return path if path.is_file() else None
        try:
            return Path(hf_hub_download(self.weights, name, subfolder=self.subfolder or None, revision=self.revision))
        except EntryNotFoundError:
            return None
        except (OSError, HFValidationError) as error:
            raise self.error(f"no such folder, and not on the hub: {first_line(error)}") from error

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads the JSON file ``name``; raises ConfigError if it is missing, not JSON or no object."""
        path = self.find(name)
        if path is None:
            raise self.missing(name)
        try:
            stored = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise self.error(f"{name} is not valid JSON: {first_line(error)}") from error
        if not isinstance(stored, dict):
            raise self.error(f"{name} should hold one object {{...}}, and holds a {type(stored).__name__}: {FETCH}")
        return stored

    def require_plain(self, stored: Mapping[str, Any]) -> None:
        """Raises ConfigError if a configuration says that its weights are quantised, in itself or in a section."""
        sections = (stored, *(section for section in stored.values() if isinstance(section, dict)))
        found = next((found for section in sections if (found := section.get("quantization_config"))), None)
        if found:
            method = found.get("quant_method") if isinstance(found, dict) else None
            raise self.error(
                f"its weights are quantised ({method or 'quantization_config'}): name the weights in bf16, fp16 or fp32"
            )

    def building(self, name: str) -> AbstractContextManager[None]:
        """Within, what a library raises at the content of the file ``name`` becomes a ConfigError."""
        return library_errors(lambda problem: self.error(f"its {name} cannot be used: {problem}"))

    def missing(self, *names: str) -> ConfigError:
        """Makes the error that says these files do not exist."""
        asked = "" if folder_of(self.weights) else "; no folder, and the hub and its cache give no such file"
        return self.error(f"there is no {' and no '.join(names)}{asked}")

    def error(self, problem: str) -> ConfigError:
        """Makes an error about this part."""
        place = f"{self.weights}/{self.subfolder}".rstrip("/")
        version = f" at revision {self.revision}" if self.revision else ""
        return ConfigError(f"{self.setting}: no {self.what} in {place!r}{version}: {problem}")


# Reads a part's architecture, given its location and the name of the file.
ReadConfig = Callable[[Location, str], dict[str, Any]]


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text. Libraries may write many; users get one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
