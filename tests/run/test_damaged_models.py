"""Folders of models that are damaged or do not fit: a dry run and a run say the same, in one line."""

import shutil

import pytest

from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.vtok_training.dry_run import checked_model
from support.damage import GONE, content, fields, tensors, without
from support.tiny import model_config, wan_config
from vtok.assembly.build import build_framework
from vtok.config import ConfigError


@pytest.fixture
def checked(tiny_models, tmp_path):
    """A function that damages a copy of one tiny model, and returns what a run and its dry run say of it."""

    def check(part: str, damage) -> tuple[str, str]:
        models = tmp_path / "models"
        models.mkdir()
        for path in tiny_models.iterdir():
            shutil.copytree(path, models / path.name) if path.name == part else (models / path.name).symlink_to(path)
        damage(models / part)
        config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
        config.tiny_models, config.model = False, (wan_config if part == "wan" else model_config)(models)
        return said(lambda: build_framework(config.model)), said(lambda: checked_model(config, tmp_path / "run"))

    return check


def said(work) -> str:
    """What an error tells the user; empty if there is none."""
    try:
        work()
    except ConfigError as error:
        return str(error)
    return ""


FEWER = [
    ("llava", fields("config.json", text_config__num_hidden_layers=2), "2 of language_model.model.layers", "hold 4"),
    ("llava", fields("config.json", text_config__num_hidden_layers=1), "of 1 layers", "at least 2"),
    ("llava", fields("config.json", multimodal_projector_bias=False), "multi_modal_projector.linear_1.bias", "without"),
    ("llava", tensors("model.safetensors", "language_model.model.layers.0.self_attn.q_proj.bias"), "q_proj.bias", ""),
    ("clip", fields("config.json", num_hidden_layers=2), "2 of encoder.layers", "hold 3"),
    ("hunyuan", fields("transformer/config.json", num_single_layers=0), "0 of single_transformer_blocks", "hold 1"),
    ("hunyuan", fields("text_encoder_2/config.json", num_hidden_layers=1), "1 of encoder.layers", "hold 2"),
    ("hunyuan", fields("vae/config.json", layers_per_block=0), "resnets.1", ""),
    ("wan", fields("transformer/config.json", num_layers=1), "1 of blocks", "hold 2"),
    ("wan", fields("text_encoder/config.json", num_layers=1), "1 of encoder.block", "hold 2"),
]


@pytest.mark.parametrize("part, damage, told", [(part, damage, told) for part, damage, *told in FEWER])
def test_a_config_that_describes_less_than_is_stored_is_refused(checked, part, damage, told):
    """Weights that the model has no place for would be left out silently."""
    run, dry = checked(part, damage)
    assert run == dry and part in run and "config.json" in run
    assert all(words in run for words in told)


HARMLESS = {
    "llava": [
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq", "model.image_newline", "value_head.weight",
        "vision_tower.vision_model.embeddings.position_ids", "vision_tower.vision_model.encoder.layers.9.norm.weight",
    ],
    "clip": ["logit_scale", "text_model.encoder.layers.9.mlp.fc1.weight", "visual_projection.weight"],
    "wan": ["text_encoder/lm_head.weight", "text_encoder/decoder.block.9.layer.0.SelfAttention.q.weight"],
}  # fmt: skip


@pytest.mark.parametrize("part", HARMLESS)
def test_other_models_in_the_same_file_do_no_harm(checked, part):
    folder = "text_encoder/" if part == "wan" else ""
    names = (name.removeprefix(folder) for name in HARMLESS[part])
    assert checked(part, tensors(f"{folder}model.safetensors", *names)) == ("", "")


TOKENIZERS = [
    (without("chat_template.jinja"), "no chat template", "chat_template.jinja"),
    (content("chat_template.jinja", "{% if %}"), "the chat template of mllm.weights", ""),
    (content("chat_template.jinja", "{{ 1 / 0 }}"), "the chat template of mllm.weights", ""),
    (content("chat_template.jinja", "{{ messages[9]['content'] }}"), "the chat template of mllm.weights", ""),
    (fields("tokenizer_config.json", eos_token=GONE, pad_token=GONE), "no end token", "eos_token"),
]


@pytest.mark.parametrize("damage, problem, mended_by", TOKENIZERS)
def test_a_tokenizer_that_cannot_chat_is_refused_when_it_is_loaded(checked, damage, problem, mended_by):
    run, dry = checked("llava", damage)
    assert run == dry and "mllm.weights" in run and problem in run and mended_by in run
