"""The page of ``app.py``: a clip becomes tokens, a caption and answers; a prompt becomes a video."""

import argparse
import tempfile
from pathlib import Path

import gradio
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from data_tools.shapes import render_clips
from data_tools.video.media import save_mp4
from pipelines.inference.tokenise import frames_of, picture_of, tokenise
from vtok.config import ConfigError
from vtok.pipeline import VTokPipeline

DESCRIBE = "Describe this video."
EXAMPLES, EXAMPLE_SEED = 6, 5  # rendered clips to choose from
SHOWN = 256  # least side of a shown video in pixels; smaller ones are enlarged by a whole factor
LONGEST, STEPS = 10.0, 20


def serve(a: argparse.Namespace) -> None:
    """Runs the command ``app.py`` until it is interrupted.

    Args:
        a: The arguments that ``app.py`` parsed.

    Raises:
        ConfigError: The model cannot be opened, or the port is in use.
    """
    pipeline = VTokPipeline.from_pretrained(a.model)
    with tempfile.TemporaryDirectory() as folder:
        page = page_of(pipeline, a.model, Path(folder))
        try:
            page.launch(server_name=a.host, server_port=a.port or None, quiet=True, allowed_paths=[folder])
        except OSError as error:
            raise ConfigError(f"cannot listen at {a.host}:{a.port}: {error}") from error


def page_of(pipeline: VTokPipeline, name: str, folder: Path) -> gradio.Blocks:
    """Builds the page.

    Args:
        pipeline: The model.
        name: Its name, for the title.
        folder: Keeps example clips and generated videos.
    """
    render_clips(folder / "clips", EXAMPLES, EXAMPLE_SEED)
    examples = [[str(path)] for path in sorted((folder / "clips").glob("*.mp4"))]

    def look(video: str | None) -> tuple[Image | None, str]:
        return looked_at(pipeline, video) if video else (None, "")

    def ask(video: str | None, question: str) -> str:
        if not video:
            raise gradio.Error("choose a clip first")
        return pipeline.understand(frames_of(pipeline.framework.tokeniser, Path(video)), question or DESCRIBE)

    def make(prompt: str, seconds: float, seed: float) -> str:
        if not prompt.strip():
            raise gradio.Error("write a prompt first")
        return made(pipeline, prompt, seconds, int(seed), folder)

    with gradio.Blocks(title="VTok") as page:
        gradio.Markdown(f"# VTok\nOne model, {name}, understands and generates video.")
        with gradio.Tab("Understand"):
            clip = gradio.Video(label="Clip", elem_id="clip")
            gradio.Examples(examples, clip, label="Rendered clips")
            tokens = gradio.Image(label="Tokens: key frame with its grid, residuals over time", elem_id="tokens")
            caption = gradio.Textbox(label="Caption", elem_id="caption")
            question = gradio.Textbox(label="Question", elem_id="question")
            answer = gradio.Textbox(label="Answer", elem_id="answer")
            clip.change(look, clip, [tokens, caption])
            question.submit(ask, [clip, question], answer)
        with gradio.Tab("Generate"):
            prompt = gradio.Textbox(label="Prompt", elem_id="prompt")
            seconds = gradio.Slider(1, LONGEST, value=3, step=0.5, label="Seconds")
            seed = gradio.Number(value=0, precision=0, label="Seed")
            start = gradio.Button("Generate", elem_id="start")
            video = gradio.Video(label="Video", elem_id="video", autoplay=True, loop=True)
            gradio.on([start.click, prompt.submit], make, [prompt, seconds, seed], video)
    return page


def looked_at(pipeline: VTokPipeline, video: str) -> tuple[Image, str]:
    """Returns the picture of a video's tokens, and its caption."""
    path, tokeniser = Path(video), pipeline.framework.tokeniser
    tensors, key_frame, _ = tokenise(tokeniser, path)
    return picture_of(tokeniser, path, tensors, key_frame), pipeline.understand(frames_of(tokeniser, path), DESCRIBE)


def made(pipeline: VTokPipeline, prompt: str, seconds: float, seed: int, folder: Path) -> str:
    """Makes a video of a prompt and returns the path of its file."""
    frames = pipeline.generate(prompt, seconds, steps=STEPS, seed=seed)
    path = folder / f"video-{len(list(folder.glob('video-*.mp4'))):04d}.mp4"
    save_mp4(enlarged(frames), pipeline.framework.config.decoder.fps, path)
    return str(path)


def enlarged(frames: Tensor) -> Tensor:
    """Enlarges frames (F, 3, H, W) ``uint8`` by a whole factor so that they can be seen."""
    factor = max(1, -(-SHOWN // min(frames.shape[-2:])))
    return F.interpolate(frames, scale_factor=float(factor), mode="nearest")
