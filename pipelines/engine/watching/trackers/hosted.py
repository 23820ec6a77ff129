"""wandb, MLflow, SwanLab and trackio as trackers, through accelerate's interface to them.

Each has its own environment variables, for its server, its login and its offline mode (``WANDB_MODE=offline``,
``SWANLAB_MODE=offline``; MLflow and trackio write to this machine unless they are told of a server). The project is
``NAME_PROJECT``, such as ``WANDB_PROJECT``, else ``vtok``. The run's id is in ``OUTPUT/trackers.json``, so that a
resumed run goes on in the same place.
"""

import html
import json
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from data_tools.video.media import encode_gif
from pipelines.engine.watching.examples import Video
from pipelines.engine.watching.trackers.base import Tracker
from vtok.config import ConfigError
from vtok.weights import first_line

IDS = "trackers.json"
PROJECT = "vtok"


class Hosted(Tracker):
    """A tracker of accelerate's. What it cannot show is lost after a warning: a run of weeks goes on without it.

    Attributes:
        name: Its name, which is that of its package.
        own: The package.
        tracker: accelerate's interface to it.
        media: Folder of the videos until :meth:`close`.
    """

    name: str

    def __init__(self, output: Path, step: int, settings: Mapping[str, Any]):
        self.told = False
        self.media = TemporaryDirectory()
        self.own: ModuleType = import_module(self.name)
        path = output / IDS
        ids = json.loads(path.read_text()) if path.exists() else {}
        project = os.environ.get(f"{self.name.upper()}_PROJECT", PROJECT)
        PartialState()  # accelerate's trackers need it, since they write to its log
        try:
            options = self.options(output, ids.get(self.name))
            self.tracker = LOGGER_TYPE_TO_CLASS[self.name](project, **options)
            self.tracker.start()
            if self.name not in ids:
                self.tracker.store_init_configuration(dict(settings))
        except Exception as error:  # of any kind: the package is another's
            raise ConfigError(f"track: {self.name} cannot be started: {first_line(error)}") from error
        path.write_text(json.dumps(ids | {self.name: self.run_id()}))

    def options(self, output: Path, run_id: str | None) -> dict[str, Any]:
        """Returns the package's own options for a new run, or for the one with the id."""
        raise NotImplementedError

    def run_id(self) -> str:
        """Returns the id of the run that was started."""
        raise NotImplementedError

    def show_text(self, tag: str, text: str, step: int) -> None:
        """Shows a text."""
        raise NotImplementedError

    def show_video(self, tag: str, path: Path, caption: str, step: int) -> None:
        """Shows a GIF."""
        raise NotImplementedError

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.attempt(self.tracker.log, dict(values), step)

    def text(self, tag: str, text: str, step: int) -> None:
        self.attempt(self.show_text, tag, text, step)

    def video(self, tag: str, video: Video, step: int) -> None:
        path = Path(self.media.name) / f"{step}_{tag.replace('/', '_')}.gif"
        path.write_bytes(encode_gif(video.frames, video.fps))
        self.attempt(self.show_video, tag, path, video.prompt, step)

    def close(self) -> None:
        self.attempt(self.tracker.finish)
        self.media.cleanup()

    def attempt(self, show: Callable[..., None], *arguments: Any) -> None:
        """Calls the package. The first failure is told in one line."""
        try:
            show(*arguments)
        except Exception as error:  # of any kind: the package is another's, and so is its server
            if not self.told:
                print(f"warning: {self.name} lost something: {first_line(error)}", file=sys.stderr, flush=True)
            self.told = True


class WandB(Hosted):
    """Weights & Biases. It shows no step twice: of steps that a resumed run repeats, the first figures stay."""

    name = "wandb"

    def options(self, output: Path, run_id: str | None) -> dict[str, Any]:
        return {"id": run_id or new_id(), "name": output.name, "resume": "allow", "dir": str(output)}

    def run_id(self) -> str:
        return self.tracker.run.id

    def show_text(self, tag: str, text: str, step: int) -> None:
        self.tracker.log({tag: self.own.Html(f"<pre>{html.escape(text)}</pre>", inject=False)}, step)

    def show_video(self, tag: str, path: Path, caption: str, step: int) -> None:
        self.tracker.log({f"{tag}/video": self.own.Video(str(path), caption=caption, format="gif")}, step)


class MLflow(Hosted):
    """MLflow. Without ``MLFLOW_TRACKING_URI`` it writes to ``OUTPUT/mlflow.db``. Texts and videos are artifacts."""

    name = "mlflow"

    def options(self, output: Path, run_id: str | None) -> dict[str, Any]:
        if "MLFLOW_TRACKING_URI" in os.environ:
            return {"run_id": run_id, "run_name": output.name}
        place = output.absolute()
        self.own.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
        return {"run_id": run_id, "run_name": output.name, "logging_dir": f"{place}/mlflow_files"}

    def run_id(self) -> str:
        return self.tracker.active_run.info.run_id

    def show_text(self, tag: str, text: str, step: int) -> None:
        self.own.log_text(text, f"{tag}/{step:08d}.md")

    def show_video(self, tag: str, path: Path, caption: str, step: int) -> None:
        self.own.log_artifact(str(path), tag)


class SwanLab(Hosted):
    """SwanLab."""

    name = "swanlab"

    def options(self, output: Path, run_id: str | None) -> dict[str, Any]:
        own = {"id": run_id or new_id(), "name": output.name, "resume": "allow"}
        return own | {"log_dir": str(output / "swanlog")}

    def run_id(self) -> str:
        return self.tracker.init_kwargs["id"]

    def show_text(self, tag: str, text: str, step: int) -> None:
        self.tracker.log({tag: self.own.Text(text)}, step)

    def show_video(self, tag: str, path: Path, caption: str, step: int) -> None:
        self.tracker.log({f"{tag}/video": self.own.Video(str(path), caption=caption)}, step)


class Trackio(Hosted):
    """trackio. It writes to ``TRACKIO_DIR``, by default in the hub's cache. Its runs are known by their names."""

    name = "trackio"

    def options(self, output: Path, run_id: str | None) -> dict[str, Any]:
        return {"name": run_id or f"{output.name}-{new_id()[:6]}", "resume": "allow"}

    def run_id(self) -> str:
        return self.tracker.init_kwargs["name"]

    def show_text(self, tag: str, text: str, step: int) -> None:
        self.tracker.log({tag: self.own.Markdown(text)}, step)

    def show_video(self, tag: str, path: Path, caption: str, step: int) -> None:
        self.tracker.log({f"{tag}/video": self.own.Video(str(path), caption=caption, format="gif")}, step)


def new_id() -> str:
    """Returns an id of 21 letters and digits, as SwanLab wants it."""
    return uuid.uuid4().hex[:21]
