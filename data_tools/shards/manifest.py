"""Read `manifest.json` and `manifest.npy`. One that is damaged is an error that says what repairs it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.errors import DataError
from data_tools.shards.layout import EARLIER_ROW, MANIFEST, MANIFEST_ROWS, ROW, VERSION

# As other loaders take their data: a tar, a pattern of tars, a command.
NAMES_TARS = re.compile(r"\.tar(\.\w+)?$|^pipe:|\{\d+\.\.\d+\}|\*")


def read_manifest(folder: Path) -> dict:
    """The content of a folder's manifest.json.

    Raises:
        DataError: there is none or no manifest.npy, it is damaged, or it has another version; or `folder` names tars.
    """
    if NAMES_TARS.search(str(folder)) and not folder.is_dir():
        raise DataError(
            f"{folder} names tars: name the folder that holds them; if another tool wrote them, run `vtok-shards index "
            "FOLDER` first"
        )
    if not (folder / MANIFEST).is_file():
        state = "holds no finished dataset (no manifest)" if folder.is_dir() else "does not exist"
        raise DataError(f"{folder} {state}: run `vtok-shards build INPUT --output {folder}`")
    if not (folder / MANIFEST_ROWS).is_file():
        raise DataError(f"{folder / MANIFEST_ROWS} is missing: {repair_of(folder)}")
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except ValueError:
        manifest = None
    return checked_manifest(manifest, folder)


def checked_manifest(manifest: Any, folder: Path | str) -> dict:
    """The parsed manifest.json of a folder or URL, if it has all fields. Raises DataError as `read_manifest`."""
    try:
        version = manifest["version"]
        shards = manifest["shards"] if version == VERSION else []
        sound = version != VERSION or sum(shard["samples"] for shard in shards) == manifest["samples"]
        sound = sound and all({"name", "bytes", "sha256"} <= shard.keys() for shard in shards) and "hash" in manifest
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise DataError(f"{folder}/{MANIFEST} is damaged: {repair_of(folder)}")
    if version != VERSION:
        raise DataError(f"{folder}: manifest version {version}, this program reads {VERSION}: build the dataset again")
    return manifest


def precomputed_of(folder: Path) -> dict | None:
    """How the stored views of a dataset were made; None if there are none, or no manifest says so."""
    try:
        return json.loads((folder / MANIFEST).read_bytes()).get("precomputed")
    except (OSError, ValueError, AttributeError):
        return None


def read_rows(path: Path, manifest: dict, folder: Path | str) -> np.ndarray:
    """The rows of a manifest.npy, memory-mapped, `ROW` or `EARLIER_ROW` (N,).

    Args:
        path: the file.
        manifest: as `checked_manifest` gives it.
        folder: of the dataset, a path or a URL.

    Raises:
        DataError: it is damaged, or does not fit the manifest.
        OSError: it cannot be read.
    """
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception:  # numpy raises errors of many kinds at damage
        raise DataError(f"{folder}/{MANIFEST_ROWS} is damaged: {repair_of(folder)}") from None
    if rows.dtype not in (ROW, EARLIER_ROW) or rows.shape != (manifest["samples"],):
        raise DataError(f"{folder}/{MANIFEST_ROWS} does not fit {MANIFEST}: {repair_of(folder)}")
    return rows


def repair_of(folder: Path | str) -> str:
    """What the user can do about a damaged manifest of a folder or URL."""
    if isinstance(folder, Path):
        return f"run `vtok-shards index {folder}`"
    return "run `vtok-shards index DIR` where its shards lie"
