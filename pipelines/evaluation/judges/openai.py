"""``openai``: any model behind an OpenAI-compatible server, such as vLLM's or llama.cpp's, sees frames of the video."""

import io
from base64 import b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.items import Item
from pipelines.evaluation.judges.endpoint import Endpoint
from pipelines.evaluation.options import LETTERS, PROMPT, listed, parse_option
from vtok.tokeniser.layout import evenly_spaced

QUALITY = 90  # of JPEG


@dataclass(frozen=True)
class OpenAIJudgeConfig:
    """The settings of the judge.

    Args:
        url: Address of the server up to ``/v1``.
        model: Name of the model there.
        frames: Evenly spaced frames of the video that the model sees.
        longest_side: Larger frames are reduced to so many pixels.
        prompt: The text of the question.
        max_tokens: The longest answer.
    """

    url: str
    model: str
    frames: int = 16
    longest_side: int = 768
    prompt: str = PROMPT
    max_tokens: int = 16


class OpenAIJudge:
    """Answers any multiple-choice question about any video. A reply that names no option or several counts as none.

    Args:
        config: The settings.
        endpoint: The server.
    """

    def __init__(self, config: OpenAIJudgeConfig, endpoint: Endpoint):
        self.config = config
        self.endpoint = endpoint
        self.settings = {"judge": "openai", "judge_settings": asdict(config)}

    @classmethod
    def at(cls, url: str, model: str, cache: Path) -> "OpenAIJudge":
        """Returns the judge of a model at an address, with a folder for its replies."""
        return cls(OpenAIJudgeConfig(url, model), Endpoint(url, cache))

    def refusal(self, item: Item) -> str | None:
        """Returns why the judge cannot answer an item, or ``None`` if it can."""
        return f"{item.id} has more options than letters" if len(item.options) > len(LETTERS) else None

    def answer(self, frames: np.ndarray, times: list[float], item: Item) -> str | None:
        """Answers an item's question; see :meth:`Judge.answer`. Of the times the model is told the video's length."""
        return parse_option(self.endpoint.reply(self.chat(frames, times, item)), item.options)

    def chat(self, frames: np.ndarray, times: list[float], item: Item) -> dict[str, Any]:
        """Returns the request for one question about one video."""
        config = self.config
        places = evenly_spaced(len(frames), min(config.frames, len(frames)))
        pictures = [{"type": "image_url", "image_url": {"url": self.picture(frames[place])}} for place in places]
        seconds = times[places[-1]] - times[places[0]]
        told = f"These are {len(places)} frames of a video, in order, over {seconds:.1f} seconds."
        asked = config.prompt.format(question=item.question, options=listed(item.options))
        content = [{"type": "text", "text": told}, *pictures, {"type": "text", "text": asked}]
        return {
            "model": config.model, "messages": [{"role": "user", "content": content}], "temperature": 0,
            "max_tokens": config.max_tokens,
        }  # fmt: skip

    def picture(self, frame: np.ndarray) -> str:
        """Returns a frame (H, W, 3) ``uint8`` as a JPEG in a data URI, reduced if it is large."""
        image = Image.fromarray(frame)
        image.thumbnail((self.config.longest_side, self.config.longest_side))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
