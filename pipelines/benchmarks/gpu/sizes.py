"""The shapes that are measured: the published models', and tiny ones that only show that the kit runs."""

from dataclasses import dataclass, field
from typing import Any

# Of each model, by the class or the type that its configuration names: what a size changes of the published one.
Changes = dict[str, dict[str, Any]]

NARROW: Changes = {
    "llava_next": {
        "text_config": dict(
            hidden_size=64, intermediate_size=224, num_attention_heads=4, num_key_value_heads=1, vocab_size=2048
        ),
        "vision_config": dict(hidden_size=16, intermediate_size=64, num_attention_heads=2, num_hidden_layers=2),
        "image_token_index": 2047,
    },
    "clip_vision_model": dict(hidden_size=16, intermediate_size=64, num_attention_heads=2),
    "clip_text_model": dict(hidden_size=16, intermediate_size=64, num_attention_heads=2, vocab_size=2048),
    "HunyuanVideoTransformer3DModel": dict(
        num_attention_heads=2, attention_head_dim=24, text_embed_dim=64, pooled_projection_dim=16,
        rope_axes_dim=(4, 10, 10),
    ),
    "AutoencoderKLHunyuanVideo": dict(block_out_channels=(2, 4, 8, 8), norm_num_groups=2),
}  # fmt: skip


def shallow(layers: int) -> Changes:
    """The narrow models with so many layers each."""
    changed = {
        "llava_next": {"text_config": dict(num_hidden_layers=layers)},
        "clip_vision_model": dict(num_hidden_layers=3, image_size=56),
        "clip_text_model": dict(num_hidden_layers=1),
        "HunyuanVideoTransformer3DModel": dict(num_layers=1, num_single_layers=1, num_refiner_layers=1),
        "AutoencoderKLHunyuanVideo": dict(layers_per_block=1),
    }
    return merged(NARROW, changed)


def merged(base: dict, changes: dict) -> dict:
    """``base`` with ``changes``, section by section."""
    return base | {
        key: merged(base.get(key, {}), value) if isinstance(value, dict) else value for key, value in changes.items()
    }


@dataclass(frozen=True)
class Sizes:
    """
    Attributes:
        tiny: whether the figures mean nothing.
        patience: share of a part's usual seconds that it takes at this size.
        repeats: of each measurement.
        models: changes of the published models where one is measured at its own width.
        whole: changes of them for a whole step.
        video: (frames, height, width) of the decoder's view.
        tiles: further ones that the autoencoder encodes.
        text_rows, states: of the conditioning: its rows and their width.
        packed: lengths of the rows that the language model gets.
        product: side of the square matrices whose product is the card's ceiling.
        copied: bytes that are copied on the device and to the host.
        vidtok, clip: changes of VidTok's configuration; (frames, side) of what it is given.
        compiler: backend of torch.compile.
        clips: (number, seconds, frames per second, height, width).
    """

    tiny: bool = False
    patience: float = 1.0
    repeats: int = 5
    models: Changes = field(default_factory=dict)
    whole: Changes = field(default_factory=lambda: NARROW)
    video: tuple[int, int, int] = (121, 320, 576)
    tiles: tuple[tuple[int, int, int], ...] = ((17, 720, 1280), (17, 256, 256))
    text_rows: int = 150
    states: int = 4096
    packed: tuple[int, ...] = (140, 210)
    product: int = 8192
    copied: int = 4 << 30
    vidtok: dict[str, int] = field(default_factory=dict)
    clip: tuple[int, int] = (17, 256)
    compiler: str = "inductor"
    clips: tuple[int, float, int, int, int] = (64, 5.0, 24, 720, 1280)


FULL = Sizes()
TINY = Sizes(
    tiny=True, patience=0.02, repeats=1, models=shallow(4), whole=shallow(3), video=(5, 32, 48), tiles=((5, 32, 32),),
    text_rows=6, states=64, packed=(7, 9), product=64, copied=1 << 20, vidtok=dict(ch=8, num_res_blocks=1),
    clip=(5, 16), compiler="eager", clips=(4, 1.0, 12, 90, 160),
)  # fmt: skip
