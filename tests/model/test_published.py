from pipelines.command_line import parse_run_arguments
from pipelines.config_files import PRESETS
from vtok.architectures import meta_framework


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
