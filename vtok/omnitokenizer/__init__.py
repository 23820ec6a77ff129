"""OmniTokenizer: one codec of images and videos (Wang et al., 2024, arXiv 2406.09399).

config       its sizes; the published ones
layers       attention over windows, frames and time; names as in the published checkpoints
model        the autoencoder that ``pipelines/train_omnitokenizer.py`` trains
checkpoint   published .ckpt files, and our folders
"""

from vtok.omnitokenizer.config import OmniTokenizerConfig, omni_config
from vtok.omnitokenizer.model import Encoding, OmniTokenizer

__all__ = ["Encoding", "OmniTokenizer", "OmniTokenizerConfig", "omni_config"]
