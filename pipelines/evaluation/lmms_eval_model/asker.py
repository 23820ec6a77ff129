"""Asks a model about one video after another. It is the same model, asked the same way, as in our own scorer."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pipelines.evaluation.understanding.asking import Sight, no_sight, sight
from pipelines.inference.load import Run
from pipelines.inference.understand import Look, Understanding
from vtok.understanding import answer_losses, generated_answer


class Asker:
    """Asks a model about videos. Questions about the same video, one after another, decode and embed it once.

    Args:
        run: The model, from :func:`pipelines.inference.load.load_run`.
        max_frames: Evenly spaced frames of a longer video.
    """

    def __init__(self, run: Run, max_frames: int):
        config, self.framework, _ = run
        self.understanding = Understanding(config, self.framework)
        self.look = Look(max_frames=max_frames)
        self.last: tuple[Path | None, Sight] = None, no_sight(self.framework)

    def sight(self, video: Path | None) -> Sight:
        """Returns what the model sees of a video, or of none.

        Raises:
            DataError: The video cannot be read.
        """
        if self.last[0] != video:
            seen = no_sight(self.framework) if video is None else self.seen(video)
            self.last = video, seen
        return self.last[1]

    def seen(self, video: Path) -> Sight:
        """Decodes and embeds a video; errors as in :meth:`sight`."""
        return sight(self.framework, *self.understanding.seen(video, self.look))

    def reply(self, video: Path | None, question: str, tokens: int, until: Sequence[str] = ()) -> str:
        """Returns what the model writes, greedily, up to the first of some texts.

        Args:
            video: Path of the video, or ``None``.
            question: The question.
            tokens: Longest reply.
            until: Texts before which the reply is cut.
        """
        text = generated_answer(self.framework, *self.sight(video), question, tokens)
        for end in until:
            text = text.split(end)[0]
        return text

    def losses(self, video: Path | None, question: str, answers: list[str]) -> list[Tensor]:
        """Computes -log p of each token of each answer, end tokens included: see :func:`answer_losses`."""
        return answer_losses(self.framework, *self.sight(video), question, answers)
