"""Checks that Wan's parts fit together."""

from diffusers.models import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5EncoderModel

from vtok.config import DecoderConfig, require
from vtok.video_decoder.base import FRAMES_PER_LATENT


def require_fit(
    config: DecoderConfig, transformer: WanTransformer3DModel, vae: AutoencoderKLWan, text_encoder: UMT5EncoderModel
) -> None:
    """Raises :class:`ConfigError` unless the parts fit together and the transformer takes videos of these sizes."""
    found, wanted = text_encoder.config.d_model, transformer.config["text_dim"]
    require(found == wanted, f"Wan's transformer reads text of width {wanted}, its text_encoder gives {found}")
    found, wanted = vae.config["z_dim"], transformer.config["in_channels"]
    require(found == wanted, f"Wan's transformer reads latents of {wanted} channels, its vae gives {found}")
    ratio = vae.config["scale_factor_temporal"]
    require(
        ratio == FRAMES_PER_LATENT,
        f"the decoder's videos have 4k + 1 frames, but its vae has {ratio} frames to a latent frame",
    )
    whole, space = transformer.config["patch_size"], vae.config["scale_factor_spatial"]
    require(
        len(whole) == 3 and all(isinstance(side, int) and side > 0 for side in (*whole, space)),
        f"{config.weights}: the transformer's patch_size should be three sides and the vae's scale_factor_spatial one, "
        f"not {whole} and {space}",
    )
    _, *patch = whole
    for height, width in ((config.height, config.width), config.loss_size):
        multiples = [space * side for side in patch]
        require(
            height % multiples[0] == 0 and width % multiples[1] == 0,
            f"{config.weights} makes videos of multiples of {multiples[0]} x {multiples[1]} pixels, not "
            f"{height}x{width}: set decoder.height and decoder.width (or loss_height and loss_width)",
        )
