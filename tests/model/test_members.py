"""The tables of the families: what is in them is built by name, what is not is refused in one line."""

import pytest

from vtok.config import ConfigError, DecoderConfig, MLLMConfig, VisualHeadConfig, VTokConfig
from vtok.feature_extractor import backbone
from vtok.mllm import published
from vtok.tokeniser import build_tokeniser
from vtok.video_decoder import decoder_kind
from vtok.visual_head import build_visual_head


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: build_tokeniser(VTokConfig(strategy="x")),
            "tokeniser.strategy is 'x'.* one of vtok, vtok-cuts, frames, none",
        ),
        (lambda: backbone(VTokConfig(backbone="x")), "tokeniser.backbone is 'x'.* one of clip, vgg19"),
        (lambda: published(MLLMConfig(kind="x")), "mllm.kind is 'x'.* one of llava-next"),
        (lambda: build_visual_head(VisualHeadConfig(kind="x"), 8, 8), "visual_head.kind is 'x'.* one of gmm"),
        (lambda: decoder_kind(DecoderConfig(kind="x")), "decoder.kind is 'x'.* one of hunyuan"),
    ],
)
def test_an_unknown_member_is_refused_with_the_known_ones(build, message):
    with pytest.raises(ConfigError, match=message) as refused:
        build()
    assert "\n" not in str(refused.value)
