"""The video tokeniser, in the strategy that the configuration names.

To add a strategy, write a subclass of :class:`vtok.tokeniser.base.Tokeniser` in a file here and enter it in
``STRATEGIES``.
"""

from vtok.config import VTokConfig, member
from vtok.feature_extractor import FeatureExtractor
from vtok.tokeniser.base import Place, TokenCounts, Tokeniser, VisualFeatures
from vtok.tokeniser.cuts import CutTokeniser
from vtok.tokeniser.frames import FrameTokeniser
from vtok.tokeniser.none import NoTokeniser
from vtok.tokeniser.omnitokenizer import OmniTokeniser
from vtok.tokeniser.training_free import TrainingFreeTokeniser
from vtok.tokeniser.video_lavit import VideoLavitTokeniser
from vtok.tokeniser.vtok import VTokTokeniser

__all__ = ["Place", "TokenCounts", "Tokeniser", "VTokTokeniser", "VisualFeatures", "build_tokeniser"]

STRATEGIES: dict[str, type[Tokeniser]] = {
    "vtok": VTokTokeniser,
    "vtok-cuts": CutTokeniser,
    "frames": FrameTokeniser,
    "none": NoTokeniser,
    "training_free": TrainingFreeTokeniser,
    "video-lavit": VideoLavitTokeniser,
    "omnitokenizer": OmniTokeniser,
}


def build_tokeniser(config: VTokConfig, feature_extractor: FeatureExtractor | None = None) -> Tokeniser:
    """Builds the tokeniser of ``config.strategy``.

    Args:
        config: The settings.
        feature_extractor: ``F``. Built from ``config`` if omitted.
    """
    return member(STRATEGIES, config.strategy, "tokeniser.strategy")(config, feature_extractor)
