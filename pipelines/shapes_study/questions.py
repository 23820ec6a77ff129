"""Which option of a multiple-choice question a model finds likeliest.

The model sees the question without the options, as in training. The options of the shapes world are of nearly equal
length, so the likelihood is not normalised.
"""

from torch import Tensor

from data_tools.items import Item
from vtok.framework import VTokFramework
from vtok.understanding import answer_losses


def likeliest(framework: VTokFramework, visual: Tensor, num_frames: int, item: Item) -> str:
    """Returns the option with the largest probability, its end token included.

    Args:
        framework: The model.
        visual: Embeddings of the video's tokens, (1, L, d).
        num_frames: Frames of the video.
        item: The item.
    """
    losses = answer_losses(framework, visual, [num_frames], item.question, list(item.options))
    return min(zip(item.options, losses), key=lambda pair: float(pair[1].sum()))[0]
