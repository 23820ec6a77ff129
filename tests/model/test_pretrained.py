import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlavaNextForConditionalGeneration

from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import from_pretrained, portable, save_pretrained
from vtok.config import ConfigError, ModelConfig, VTokConfig


@pytest.fixture(scope="module")
def trained(tiny_models, tmp_path_factory):
    """A framework with every trained weight moved, and the folder it was saved to; LLaVA's processor files too."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(tiny_models, source, dirs_exist_ok=True)
    (source / "llava/preprocessor_config.json").write_text('{"size": {"shortest_edge": 64}}')
    framework = build_framework(model_config(source)).eval()
    with torch.no_grad():
        for parameter in framework.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    for scale in framework.tokeniser.feature_scale.values():
        scale.set(torch.randn_like(scale.mean), torch.rand_like(scale.std) + 0.5)
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_pretrained(framework, folder)
    return framework, folder, source


def test_a_saved_framework_is_the_same_framework(trained, tmp_path, monkeypatch):
    """Every tensor, the losses, the prompt's ids; also when the folder was moved and the process is elsewhere."""
    framework, folder, _ = trained
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    monkeypatch.chdir(tmp_path)
    again = from_pretrained("moved").eval()
    state, expected = again.state_dict(), framework.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    batch = make_batch(framework)
    with torch.no_grad():
        assert torch.equal(again(batch)["loss"], framework(batch)["loss"])
    assert again.text.question("What?") == framework.text.question("What?")


def test_transformers_opens_it_as_the_llava_next_it_has_become(trained):
    """Language model and projector are the trained ones, vision tower and ``image_newline`` the original's."""
    framework, folder, source = trained
    llava = LlavaNextForConditionalGeneration.from_pretrained(folder)
    original = LlavaNextForConditionalGeneration.from_pretrained(source / "llava")
    trained_parts = framework.mllm.causal_lm.state_dict() | {
        f"projector.{name}": value for name, value in framework.projection.projector.state_dict().items()
    }
    opened = {f"model.{name}": value for name, value in llava.model.language_model.state_dict().items()}
    opened["lm_head.weight"] = llava.lm_head.weight
    opened |= {f"projector.{n}": value for n, value in llava.model.multi_modal_projector.state_dict().items()}
    assert opened.keys() == trained_parts.keys()
    assert all(torch.equal(opened[name], trained_parts[name]) for name in opened)
    assert torch.equal(llava.model.image_newline, original.model.image_newline)
    tower, expected = llava.model.vision_tower.state_dict(), original.model.vision_tower.state_dict()
    assert all(torch.equal(tower[name], expected[name]) for name in expected)
    assert not torch.equal(llava.lm_head.weight, original.lm_head.weight)
    text = "A red circle"
    assert AutoTokenizer.from_pretrained(folder)(text).input_ids == framework.text.tokenizer(text).input_ids
    assert json.loads((folder / "preprocessor_config.json").read_text()) == {"size": {"shortest_edge": 64}}


def test_a_revision_is_of_the_hub_s_id_and_not_of_the_folder():
    """The language model lies in the folder from now on; the frozen parts stay where, and what, they were."""
    config = ModelConfig()
    config.mllm.revision, config.decoder.revision = "v1", "v2"
    stored = portable(config)
    assert (stored.mllm.weights, stored.mllm.revision) == (".", None)
    assert (stored.decoder.weights, stored.decoder.revision) == (config.decoder.weights, "v2")


def test_a_fresh_projector_stays_out_of_llava_s(tiny_models, tmp_path):
    """Tokens of another width have a projector that LLaVA's vision tower does not fit."""
    tokeniser = VTokConfig(weights=f"{tiny_models}/clip", token_dim=48, fps=4, motion_tokens_per_second=4)
    framework = build_framework(model_config(tiny_models, tokeniser=tokeniser))
    save_pretrained(framework, tmp_path / "model")
    LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "model")
    again = from_pretrained(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(again.projection.parameters(), framework.projection.parameters()))


def test_folders_that_are_not_whole_are_one_clear_error(trained, tmp_path):
    framework, folder, source = trained
    with pytest.raises(ConfigError, match="not empty"):
        save_pretrained(framework, folder)
    with pytest.raises(ConfigError, match="no vtok_config.json"):
        from_pretrained(source / "llava")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    state = load_file(broken / "vtok.safetensors")
    save_file(state | {"tokeniser.feature_scale.motion.std": torch.zeros(3)}, broken / "vtok.safetensors")
    with pytest.raises(ConfigError, match="tokeniser.feature_scale.motion.std should be \\(64,\\), found \\(3,\\)"):
        from_pretrained(broken)
    del state["tokeniser.feature_scale.motion.std"]
    save_file(state, broken / "vtok.safetensors")
    with pytest.raises(ConfigError, match="tokeniser.feature_scale.motion.std should be \\(64,\\), found nothing"):
        from_pretrained(broken)
    (broken / "vtok_config.json").write_text('{"tokeniser": {"colour": 1}}')
    with pytest.raises(ConfigError, match="does not hold a model's settings"):
        from_pretrained(broken)
