"""The frozen image encoder: a CLIP, trained on frames and texts about them.

Half of the texts describe a single frame. Each of these comes with a negative text in which two colours are exchanged;
without it a bag of words would solve the task. The other half are the clips' captions. The gate trains a probe on the
features that the tokeniser reads, and asks it which of two shapes has which colour.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPVisionModel

from data_tools.draws import Draws
from data_tools.shapes import COLOURS, SHAPES, caption_of, item_of, render, scene_of
from pipelines.engine import distributed
from pipelines.shapes_models import scenes
from pipelines.shapes_models.config import ClipConfig
from pipelines.shapes_study.fitting import fit, mean_of_first, mean_of_last
from pipelines.shapes_study.stages import gate
from vtok.assembly.tiny import BOS, EOS, train_tokenizer, wrapped
from vtok.feature_extractor import CLIPFeatureExtractor
from vtok.feature_extractor.pixels import CLIP_MEAN, CLIP_STD, normalise
from vtok.spatial_encoder import pool_grid
from vtok.video_decoder.hunyuan import CLIP_TEXT_LENGTH

CLIP, TEXT, TOKENIZER = "clip", "text_encoder", "tokenizer.json"
TOKENIZER_SCENES = 3000
BINDS = 0.9  # the gate's least accuracy
GATE_QUESTIONS = 600
PROBE_DIM = 128


def make(folder: Path, config: ClipConfig, size: int, seed: int) -> dict[str, Any]:
    """Trains a CLIP and writes ``folder/clip``, ``folder/text_encoder`` and ``folder/tokenizer.json``.

    Args:
        folder: Folder of the stage.
        config: The settings.
        size: Side of a frame in pixels.
        seed: Seed of weights and data.

    Returns:
        The first and the last loss, and the gate.
    """
    tokenizer = train_tokenizer(texts_of_scenes(seed))
    tokenizer.save(str(folder / TOKENIZER))
    torch.manual_seed(seed)
    model = CLIPModel(architecture(config, tokenizer, size)).to(distributed.device())
    losses = fit(model, lambda step: contrastive_loss(model, tokenizer, config, size, seed, step), config.fit, folder)
    save_halves(model, folder)
    figures = {"first_loss": mean_of_first(losses), "last_loss": mean_of_last(losses)}
    return figures | binding_gate(folder, config, size, seed)


def texts_of_scenes(seed: int) -> list[str]:
    """Returns captions, questions, options and descriptions of some scenes, to train the tokenizer on."""
    texts = []
    for position in range(TOKENIZER_SCENES):
        scene, draws = scenes.scene_at(seed, position)
        item = item_of(scene, draws, "x")
        told = [item.prompt, caption_of(scene, draws, detailed=True), scenes.picture_caption(scene, 0)]
        texts += [*told, item.question, *item.options]
    return texts


def architecture(config: ClipConfig, tokenizer: Tokenizer, size: int) -> CLIPConfig:
    """Returns transformers' configuration of the CLIP to train."""
    ids = dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), map(tokenizer.token_to_id, (BOS, EOS, EOS))))
    vocabulary = dict(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=CLIP_TEXT_LENGTH)
    return CLIPConfig(
        text_config=config.text | vocabulary | ids | dict(projection_dim=config.projection_dim),
        vision_config=config.vision | dict(image_size=size, projection_dim=config.projection_dim),
        projection_dim=config.projection_dim,
    )


def contrastive_loss(
    model: CLIPModel, tokenizer: Tokenizer, config: ClipConfig, size: int, seed: int, step: int
) -> Tensor:
    """Returns InfoNCE in both directions, a scalar. Texts with exchanged colours are extra negatives for pictures."""
    pictures, captions, wrong = [], [], []
    for position in range(step * config.fit.batch_size, (step + 1) * config.fit.batch_size):
        scene, draws = scenes.scene_at(seed, TOKENIZER_SCENES + position)
        frame = draws.integer("frame", scenes.FRAMES)
        pictures.append(scenes.frames_of(scene, size)[frame])
        told = position % 2
        captions.append(caption_of(scene, draws) if told else scenes.picture_caption(scene, frame))
        if not told and (swapped := scenes.swapped_caption(scene, frame)):
            wrong.append(swapped)
    pixels = normalise(torch.stack(pictures).to(model.device), CLIP_MEAN, CLIP_STD, torch.float32)
    images = F.normalize(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output), dim=-1)
    pooled = model.text_model(input_ids=text_ids(tokenizer, captions + wrong).to(model.device)).pooler_output
    texts = F.normalize(model.text_projection(pooled), dim=-1)
    logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T
    own = torch.arange(len(images), device=model.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, : len(images)].T, own)) / 2


def text_ids(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Returns token ids (n, L). Shorter texts are padded with end tokens, as CLIP's text tower expects."""
    wrap = wrapped(tokenizer, f"{BOS} $A {EOS}", model_max_length=CLIP_TEXT_LENGTH)
    return wrap(texts, padding=True, truncation=True, return_tensors="pt").input_ids


def save_halves(model: CLIPModel, folder: Path) -> None:
    """Writes each tower as a model of its own, as the pipeline loads them."""
    towers = (CLIP, CLIPVisionModel(model.config.vision_config), model.vision_model), (
        TEXT, CLIPTextModel(model.config.text_config), model.text_model,
    )  # fmt: skip
    for name, alone, tower in towers:
        inner = getattr(alone, "vision_model", getattr(alone, "text_model", alone))  # nested in some releases
        inner.load_state_dict(tower.state_dict())
        alone.save_pretrained(folder / name)


# ---------------------------------------------------------------- gate


class Probe(nn.Module):
    """Finds a shape among the tokens of a frame by attention and predicts its colour.

    Args:
        dim: Width of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.shape = nn.Embedding(len(SHAPES), PROBE_DIM)
        self.inward = nn.Linear(dim, PROBE_DIM)
        self.attention = nn.MultiheadAttention(PROBE_DIM, 4, batch_first=True)
        self.colour = nn.Sequential(nn.Linear(PROBE_DIM, PROBE_DIM), nn.GELU(), nn.Linear(PROBE_DIM, len(COLOURS)))

    def forward(self, tokens: Tensor, shape: Tensor) -> Tensor:
        """Maps tokens (n, S, d) and numbers of shapes (n,) to logits (n, colours)."""
        inside = self.inward(tokens)
        return self.colour(self.attention(self.shape(shape)[:, None], inside, inside, need_weights=False)[0][:, 0])


def binding_gate(folder: Path, config: ClipConfig, size: int, seed: int) -> dict[str, Any]:
    """Trains a probe and asks it for the colour of a shape, in combinations that the encoder never saw.

    The probe is trained on all combinations. Trained without the unseen ones, it would learn that a shape never has
    certain colours.
    """
    extractor = CLIPFeatureExtractor(CLIPVisionModel.from_pretrained(folder / CLIP)).eval()
    clips = config.probe_clips
    trained = colour_questions(extractor, size, seed, range(clips), "all")
    asked = colour_questions(extractor, size, seed, range(clips, clips + GATE_QUESTIONS), "test")
    mean, std = trained[0].mean((0, 1)), trained[0].std((0, 1)) + 1e-6
    torch.manual_seed(seed)
    probe = Probe(trained[0].shape[-1])

    def loss(step: int) -> Tensor:
        chosen = torch.randint(
            len(trained[0]), (config.probe.batch_size,), generator=torch.Generator().manual_seed(step)
        )
        tokens, shape, colour = (x[chosen] for x in trained)
        return F.cross_entropy(probe((tokens - mean) / std, shape), colour)

    (folder / "probe").mkdir(exist_ok=True)
    fit(probe, loss, config.probe, folder / "probe")
    with torch.no_grad():
        right = int((probe((asked[0] - mean) / std, asked[1]).argmax(-1) == asked[2]).sum())
    return gate("the encoder binds colours to shapes", right, GATE_QUESTIONS, BINDS)


@torch.no_grad()
def colour_questions(
    extractor: CLIPFeatureExtractor, size: int, seed: int, numbers: range, split: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled tokens (n, 16, d) of pictures of two shapes, the shape asked for (n,) and its colour (n,)."""
    labels, tokens, shapes, colours = tuple(COLOURS), [], [], []
    for number in numbers:
        draws = Draws(seed + scenes.OFFSET + 1, number)
        scene = scene_of("colour", labels[number % len(labels)], draws, split)
        frame = torch.from_numpy(render(scene, 1, size)).permute(0, 3, 1, 2)
        tokens.append(pool_grid(extractor(frame), 4)[0])
        shapes.append(SHAPES.index(scene.things[0].shape))
        colours.append(labels.index(scene.things[0].colour))
    return torch.stack(tokens), torch.tensor(shapes), torch.tensor(colours)
