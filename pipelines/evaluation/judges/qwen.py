"""``qwen2.5-vl``: a pretrained model sees the video and answers with an option's letter."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from data_tools.items import Item
from pipelines.cli.config_files import read_yaml
from pipelines.cli.errors import one_line
from pipelines.engine import distributed
from pipelines.evaluation.options import LETTERS, PROMPT, listed, parse_option
from vtok.config import ConfigError, require
from vtok.feature_extractor.qwen25_vl import fit, patchify
from vtok.mllm.qwen25_vl import VIDEO_TOKEN
from vtok.tokeniser.layout import evenly_spaced
from vtok.weights import first_line

TEXT, VIDEO = 0, 2  # token types; the model finds the tokens of a video by them


@dataclass
class QwenJudgeConfig:
    """The settings of the judge.

    Args:
        weights: Hub id or folder.
        revision: Branch, tag or commit of a hub id.
        frames: Evenly spaced frames of the video that the model sees.
        min_pixels: Smaller frames are enlarged to this many pixels.
        max_pixels: Larger frames are reduced to this many pixels.
        prompt: The text of the question; ``{question}`` and ``{options}`` are filled in.
        max_new_tokens: The longest answer.

    Raises:
        ConfigError: A number is out of range, or the prompt lacks a placeholder.
    """

    weights: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    revision: str | None = None
    frames: int = 16
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    prompt: str = PROMPT
    max_new_tokens: int = 16

    def __post_init__(self):
        require(self.frames >= 1, "frames must be at least 1")
        require(0 < self.min_pixels <= self.max_pixels, "min_pixels must be positive and at most max_pixels")
        require("{question}" in self.prompt and "{options}" in self.prompt, "prompt needs {question} and {options}")

    @classmethod
    def from_yaml(cls, path: Path) -> "QwenJudgeConfig":
        """Reads the settings from a YAML file.

        Raises:
            ConfigError: The file is unreadable, or a setting does not exist or is wrong.
        """
        try:
            return cls(**read_yaml(path))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {one_line(error).removeprefix('QwenJudgeConfig.__init__() ')}") from error


class QwenJudge:
    """Answers any multiple-choice question about any video. A reply that names no option or several counts as none.

    Args:
        config: The settings.

    Raises:
        ConfigError: The weights cannot be loaded.
    """

    def __init__(self, config: QwenJudgeConfig):
        self.config = config
        self.settings = {"judge": "qwen2.5-vl", "judge_settings": asdict(config)}
        device = distributed.device()
        options = dict(revision=config.revision or "main")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(config.weights, **options)
            self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                config.weights, dtype=torch.float32 if device.type == "cpu" else torch.bfloat16,
                device_map={"": device}, **options,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load the judge {config.weights!r}: {first_line(error)}") from error
        self.model.eval().requires_grad_(False)

    def refusal(self, item: Item) -> str | None:
        """Returns why the judge cannot answer an item, or ``None`` if it can."""
        return f"{item.id} has more options than letters" if len(item.options) > len(LETTERS) else None

    def answer(self, frames: np.ndarray, times: list[float], item: Item) -> str | None:
        """Answers an item's question; see :meth:`Judge.answer`."""
        return parse_option(self.reply(frames, times, item), item.options)

    @torch.no_grad()
    def reply(self, frames: np.ndarray, times: list[float], item: Item) -> str:
        """Returns the model's reply, decoded greedily."""
        inputs = self.inputs(frames, times, item)
        ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.config.max_new_tokens)
        return self.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def inputs(self, frames: np.ndarray, times: list[float], item: Item) -> dict[str, torch.Tensor]:
        """Returns the arguments of the model's forward for one question about one video."""
        vision, config = self.model.config.vision_config, self.config
        places = evenly_spaced(len(frames), min(config.frames, len(frames)))
        chosen = torch.from_numpy(frames[places]).permute(0, 3, 1, 2)
        fitted = fit(chosen, vision, config.min_pixels, config.max_pixels)
        video = patchify(fitted.to(self.model.device), vision, self.model.dtype)
        gap = (times[places[-1]] - times[places[0]]) / max(len(places) - 1, 1)

        text = config.prompt.format(question=item.question, options=listed(item.options))
        messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
        chat = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if chat.count(VIDEO_TOKEN) != 1:
            raise ConfigError(f"the chat template of {config.weights!r} shows no video: is it Qwen2.5-VL's?")
        chat = chat.replace(VIDEO_TOKEN, VIDEO_TOKEN * video.tokens(vision))
        ids = self.tokenizer(chat, return_tensors="pt").input_ids.to(self.model.device)
        return dict(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=torch.where(ids == self.model.config.video_token_id, VIDEO, TEXT),
            pixel_values_videos=video.patches,
            video_grid_thw=video.grid,
            second_per_grid_ts=torch.tensor([gap * vision.temporal_patch_size], device=ids.device),
        )
