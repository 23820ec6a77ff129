"""The motion codec of the strategy ``video-lavit``: motion vectors to codes, and back (after Jin et al., 2024,
Video-LaViT, arXiv 2402.03161, section 3.1).

config       its sizes: the published form, and one with VTok's number of tokens
vectors      frames -> motion vectors, by an mpeg4 encoder in memory
blocks       attention over space and time
codebook     latents -> codes
model        the autoencoder that ``pipelines/train_motion_codec.py`` trains; its frozen half in the framework
folder       its files
"""

from vtok.motion_codec.config import MotionCodecConfig, codec_config
from vtok.motion_codec.model import MotionCodec, MotionTokens
from vtok.motion_codec.vectors import motion_vectors

__all__ = ["MotionCodec", "MotionCodecConfig", "MotionTokens", "codec_config", "motion_vectors"]
