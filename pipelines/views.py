"""What the model sees of a clip: the views that a run's configuration asks for."""

from data_tools.video.views import View, decoder_view, tokeniser_view
from pipelines.config import RunConfig


def views_of(config: RunConfig, image_size: int) -> tuple[View, View | None]:
    """The tokeniser's and, if there is one, the decoder's view of a window, for a backbone that takes images of
    ``image_size``.
    """
    seconds, decoder = config.data.seconds, config.model.decoder
    tokeniser = tokeniser_view(seconds, config.model.tokeniser.fps, image_size, image_size)
    if not config.model.generates:
        return tokeniser, None
    return tokeniser, decoder_view(seconds, decoder.fps, *decoder.loss_size, decoder.loss_latent_frames)
