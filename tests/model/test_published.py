import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from vtok.assembly.architectures import QWEN25_VL_7B, meta_framework


def test_the_published_models_build_on_the_meta_device_with_their_parameter_counts():
    config = parse_run_arguments(["--config", str(PRESETS / "llava_next_8b_hunyuan.yaml")]).config
    framework = meta_framework(config.model)
    assert all(p.is_meta for p in framework.parameters())
    billions = {name: round(count / 1e9, 2) for name, count in framework.parameter_counts().items()}
    assert billions["language_model"] == 8.03
    assert billions["diffusion_transformer"] == 12.82
    assert billions["feature_extractor"] == 0.30
    for name, parameter in framework.named_parameters():
        frozen = name.startswith(("decoder.", "tokeniser.feature_extractor."))
        assert frozen or name.startswith(("mllm.", "projection.", "tokeniser.motion_encoder.", "visual_head.")), name
        assert parameter.requires_grad == (not frozen), name
    assert sum(p.numel() for p in framework.parameters()) == sum(framework.parameter_counts().values())


def test_qwen25_vl_builds_on_the_meta_device_with_its_parameter_count():
    """8.29 B in all, as many as the library's class has, and nothing of a decoder beside them."""
    config = parse_run_arguments(["--config", str(PRESETS / "qwen2.5-vl_7b.yaml")]).config
    framework = meta_framework(config.model)
    assert all(p.is_meta for p in framework.parameters())
    counts = framework.parameter_counts()
    assert list(counts) == ["language_model", "phi_vis + P", "g_phi", "visual_head", "feature_extractor"]
    published = counts["language_model"] + counts["feature_extractor"]
    assert published == 8_292_166_656 and counts["visual_head"] == 0
    with torch.device("meta"):
        library = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(QWEN25_VL_7B))
    assert sum(p.numel() for p in library.parameters()) == published
    for name, parameter in framework.named_parameters():
        assert parameter.requires_grad == (not name.startswith("tokeniser.feature_extractor.")), name
    assert framework.tokeniser.feature_extractor.image_size == 336 and framework.mllm.positions_per_second == 2
