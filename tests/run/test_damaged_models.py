"""Folders of models that are damaged or do not fit: a dry run and a run say the same, in one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.vtok_training.dry_run import checked_model
from support.damage import GONE, content, fields, tensors, without
from support.tiny import model_config, wan_config, with_strategy
from vtok.assembly.build import build_framework
from vtok.config import ConfigError
from vtok.weights import open_file

HEADER = "model.safetensors"
CONFIGS = {
    "wan": wan_config,
    "omnitokenizer": lambda models: with_strategy(model_config(models), models, strategy="omnitokenizer"),
    "motion_codec": lambda models: with_strategy(model_config(models), models, strategy="video-lavit"),
}
SETTINGS = {
    "llava": "mllm.weights", "clip": "tokeniser.weights", "hunyuan": "decoder.weights", "wan": "decoder.weights",
    "omnitokenizer": "OmniTokenizer", "motion_codec": "motion codec",
}  # fmt: skip


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
        config.tiny_models, config.model = False, CONFIGS.get(part, model_config)(models)
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


def text(**changes):
    """Fields of the language model in the config.json of a LLaVA."""
    return fields("config.json", **{f"text_config__{name}": value for name, value in changes.items()})


def header(entries: object):
    """A safetensors file with these entries, and some bytes."""
    stored = json.dumps(entries).encode()
    return lambda folder: (folder / HEADER).write_bytes(len(stored).to_bytes(8, "little") + stored + bytes(64)) and None


def index(change):
    """The weights in one file with an index, which ``change`` makes of the right one."""

    def damage(folder):
        right = {"weight_map": dict.fromkeys(open_file(folder / HEADER), "model-1.safetensors")}
        (folder / HEADER).rename(folder / "model-1.safetensors")
        (folder / f"{HEADER}.index.json").write_text(json.dumps(change(right)))

    return damage


def pickled(change):
    """PyTorch's own file, of what ``change`` makes of the tensors."""

    def damage(folder):
        torch.save(change(load_file(folder / HEADER)), folder / "pytorch_model.bin")
        (folder / HEADER).unlink()

    return damage


UNUSABLE = {
    "llava": [
        *(text(hidden_size=value) for value in ("128", None, 0, 1.5, 10**15)),
        *(text(num_attention_heads=value) for value in (3, 0, "4")),
        *(text(model_type=value) for value in ("foo", ["llama"], "clip_text_model", "mamba")),
        *(text(rope_parameters=value) for value in ("x", {"rope_type": "foo", "rope_theta": 1e4})),
        text(hidden_act="foo"), text(pad_token_id=10**6), text(dtype="foo"), text(head_dim=0),
        fields("config.json", projector_hidden_act="foo"),
        fields("config.json", text_config="llama"),
        fields("config.json", vision_config="x"),
        fields("config.json", model_type=["llava_next"]),
        *(content("config.json", value) for value in ("[]", "null", "5", "{", "[" * 100_000)),
        *(content("generation_config.json", value) for value in ("[]", "null", "[" * 100_000)),
        *(content("tokenizer_config.json", value) for value in ("[]", "null", "{")),
        *(content("tokenizer.json", value) for value in ("[]", "{}")),
        content("processor_config.json", "[]"),
        fields("tokenizer_config.json", eos_token=5),
        fields("tokenizer_config.json", model_max_length="x"),
        *(header(value) for value in ([], None, 5, {"a": 5}, {"a": {}})),
        header({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}),
        header({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}),
        header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}),
        *(index(lambda right, value=value: value) for value in ({}, [], {"weight_map": []}, {"weight_map": None})),
        index(lambda right: {"weight_map": dict.fromkeys(right["weight_map"], 1)}),
        index(lambda right: {"weight_map": right["weight_map"] | {"vision_tower.x": None}}),
        *(pickled(lambda tensors, value=value: value) for value in ([1], None, {"state_dict": [1]})),
    ],
    "clip": [
        *(fields("config.json", patch_size=value) for value in (0, "8", None, [8, 8])),
        *(fields("config.json", vision_config=value) for value in (None, "x", [])),
        fields("config.json", hidden_act="foo"),
        content("config.json", "[1]"),
    ],
    "hunyuan": [
        fields("transformer/config.json", num_attention_heads="4"),
        fields("transformer/config.json", attention_head_dim=0),
        fields("transformer/config.json", qk_norm="foo"),
        fields("transformer/config.json", rope_axes_dim=[4]),
        *(fields("vae/config.json", scaling_factor=value) for value in (None, "x")),
        fields("vae/config.json", spatial_compression_ratio=0),
        *(fields("scheduler/scheduler_config.json", shift=value) for value in (None, "7", 0, [1])),
        *(fields("text_encoder_2/config.json", hidden_size=value) for value in ("32", 0)),
        *(content(f"{part}/config.json", "[]") for part in ("transformer", "vae", "text_encoder_2")),
        content("scheduler/scheduler_config.json", "[]"),
        content("tokenizer_2/tokenizer_config.json", "[]"),
    ],
    "wan": [
        content("model_index.json", "[]"),
        fields("transformer/config.json", num_attention_heads="4"),
        fields("transformer/config.json", patch_size=[1, 2]),
        *(fields("vae/config.json", scale_factor_spatial=value) for value in ("x", 0, None)),
        *(fields("scheduler/scheduler_config.json", flow_shift=value) for value in (None, "7")),
        fields("text_encoder/config.json", d_model="x"),
    ],
    "omnitokenizer": [
        content("config.json", "[]"),
        *(fields("config.json", patch_size=value) for value in ("x", 0)),
        fields("config.json", embedding_dim=0),
        fields("config.json", spatial_pos="x"),
    ],
    "motion_codec": [content("config.json", "[]"), fields("config.json", codes=2.5), fields("config.json", strides=5)],
}  # fmt: skip
CASES = [pytest.param(part, damage, id=f"{part}{n}") for part, damages in UNUSABLE.items()
         for n, damage in enumerate(damages)]  # fmt: skip


@pytest.mark.parametrize("part, damage", CASES)
def test_files_that_cannot_be_used_are_one_line_that_names_them(checked, part, damage):
    run, dry = checked(part, damage)
    assert run == dry != ""
    assert "\n" not in run and len(run) < 600
    assert f"/{part}" in run or SETTINGS[part] in run


QUANTISED = {"quantization_config": {"quant_method": "awq", "bits": 4}}


@pytest.mark.parametrize(
    "part, damage",
    [
        ("llava", fields("config.json", **QUANTISED)),
        ("llava", text(**QUANTISED)),
        ("clip", fields("config.json", **QUANTISED)),
        ("hunyuan", fields("transformer/config.json", **QUANTISED)),
        ("hunyuan", fields("text_encoder_2/config.json", **QUANTISED)),
    ],
)
def test_quantised_weights_are_refused_when_they_are_loaded(checked, part, damage):
    """They would train from wrong values, and an export would fail in the end."""
    run, dry = checked(part, damage)
    assert run == dry and "quantised (awq)" in run and part in run


def test_a_file_that_only_an_export_reads_is_missed_at_the_start(checked):
    def split(right):
        files = {key: "model-2.safetensors" if "vision" in key else file for key, file in right["weight_map"].items()}
        return {"weight_map": files}

    run, dry = checked("llava", index(split))
    assert run == dry and "model-2.safetensors" in run and "is missing" in run


def test_an_error_of_ours_keeps_its_kind(tiny_models, monkeypatch):
    """Only what the libraries build is guarded."""
    monkeypatch.setattr("vtok.assembly.architectures.build_tokeniser", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_framework(model_config(tiny_models))
