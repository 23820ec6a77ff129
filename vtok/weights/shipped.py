"""Models that come with the package, named like hub ids: ``shapes/clip``, ``shapes/llava-next`` and so on.

They are trained on rendered clips of simple shapes (``pipelines/shapes_models``). Their cards say how, and how well.
"""

from pathlib import Path

PREFIX, SHIPPED = "shapes/", Path(__file__).parents[1] / "shapes_models"


def folder_of(weights: str) -> Path | None:
    """The folder that ``weights`` names, the user's own or a shipped one; ``None`` for a hub id."""
    if Path(weights).is_dir():
        return Path(weights)
    shipped = SHIPPED / weights.removeprefix(PREFIX)
    return shipped if weights.startswith(PREFIX) and shipped.is_dir() else None


def folder_or_id(weights: str) -> str:
    """The folder that ``weights`` names, or else the hub id: what transformers and diffusers open."""
    return str(folder_of(weights) or weights)
