"""The interface of a tracker: what shows a run's figures, captions and videos. Only rank 0 has trackers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.engine.watching.examples import Video


class Tracker:
    """Shows one run.

    Args:
        output: The run's folder.
        step: The step that the run starts from.
        settings: The run's configuration, by dotted names.

    Raises:
        ConfigError: The tracker cannot be started.
    """

    def __init__(self, output: Path, step: int, settings: Mapping[str, Any]):
        raise NotImplementedError

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Shows figures by their tags, such as ``loss/loss_dec``."""
        raise NotImplementedError

    def text(self, tag: str, text: str, step: int) -> None:
        """Shows a text in Markdown."""
        raise NotImplementedError

    def video(self, tag: str, video: Video, step: int) -> None:
        """Shows a video."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
