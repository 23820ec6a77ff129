"""Reading pretrained weights: every layout gives the libraries' own values, and what is wrong is named in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPVisionModel, LlavaNextForConditionalGeneration

from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.config import ConfigError, VTokConfig
from vtok.feature_extractor import build_feature_extractor
from vtok.mllm.packed_attention import PACKED_SDPA
from vtok.weights import combined_hash, content_hash, open_file
from vtok.weights.materialise import whole


@pytest.fixture
def models(tiny_models, tmp_path):
    """A copy of the tiny models to change."""
    return shutil.copytree(tiny_models, tmp_path / "models")


def rename(file: Path, change) -> None:
    """Rewrite a safetensors file with other keys; those that become ``None`` are left out."""
    stored = {change(key): value for key, value in load_file(file).items()}
    save_file({key: value for key, value in stored.items() if key is not None}, file)


def assert_same(framework, reference) -> None:
    ours, theirs = framework.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def built(models, **changes):
    torch.manual_seed(0)
    return build_framework(model_config(models, **changes))


def test_parameters_and_buffers_are_those_of_the_libraries(framework, tiny_models):
    llava = LlavaNextForConditionalGeneration.from_pretrained(tiny_models / "llava")
    hunyuan = tiny_models / "hunyuan"
    text_encoder = CLIPTextModel.from_pretrained(hunyuan, subfolder="text_encoder_2")
    clip = CLIPVisionModel.from_pretrained(tiny_models / "clip")
    pairs = [
        (framework.mllm.causal_lm.model, llava.model.language_model),
        (framework.mllm.lm_head, llava.lm_head),
        (framework.projection.projector, llava.model.multi_modal_projector),
        (framework.tokeniser.feature_extractor.clip, getattr(clip, "vision_model", clip)),
        (framework.decoder.text_encoder, text_encoder),
        (
            framework.decoder.transformer,
            HunyuanVideoTransformer3DModel.from_pretrained(hunyuan, subfolder="transformer"),
        ),
        (framework.decoder.vae, AutoencoderKLHunyuanVideo.from_pretrained(hunyuan, subfolder="vae")),
    ]
    for ours, theirs in pairs:
        for kind in ("named_parameters", "named_buffers"):
            stored, expected = dict(getattr(ours, kind)()), dict(getattr(theirs, kind)())
            assert stored.keys() == expected.keys()
            for name, value in stored.items():
                assert value.dtype == expected[name].dtype and torch.equal(value, expected[name]), name
    assert framework.mllm.causal_lm.generation_config.to_dict() == llava.generation_config.to_dict()
    # Ours hands each packed row to the one that the library chooses.
    assert llava.config.text_config._attn_implementation == "sdpa"
    assert framework.mllm.causal_lm.config._attn_implementation == PACKED_SDPA


def test_rotary_frequencies_stay_fp32_whatever_the_parameters_are(tiny_models, framework):
    half = build_framework(model_config(tiny_models), whole(torch.bfloat16))
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    rotary, expected = half.mllm.causal_lm.model.rotary_emb, framework.mllm.causal_lm.model.rotary_emb
    assert rotary.inv_freq.dtype == torch.float32 and torch.equal(rotary.inv_freq, expected.inv_freq)


def newer_llava(key: str) -> str:
    if key.startswith("language_model.lm_head"):
        return key.removeprefix("language_model.")
    return "model." + key.replace("language_model.model.", "language_model.")


def test_key_names_of_older_and_newer_transformers_load(models, framework):
    rename(models / "llava/model.safetensors", newer_llava)
    rename(models / "clip/model.safetensors", lambda key: f"vision_model.{key}")
    rename(models / "hunyuan/text_encoder_2/model.safetensors", lambda key: f"text_model.{key}")
    assert "model.language_model.embed_tokens.weight" in open_file(models / "llava/model.safetensors")
    assert_same(built(models), framework)


def test_clip_may_be_llavas_own_tower_or_half_of_a_whole_clip(models):
    stored = load_file(models / "clip/model.safetensors")
    config = json.loads((models / "clip/config.json").read_text())
    expected = build_feature_extractor(VTokConfig(weights=str(models / "clip")))
    for prefix in ("vision_tower.vision_model.", "model.vision_tower.", "vision_model."):
        tower = {prefix + key: value for key, value in stored.items()}
        save_file(tower | {"logit_scale": torch.zeros(1)}, models / "clip/model.safetensors")
        (models / "clip/config.json").write_text(json.dumps({"model_type": "any", "vision_config": config}))
        assert_same(build_feature_extractor(VTokConfig(weights=str(models / "clip"))), expected)


def test_several_files_with_an_index_and_pytorchs_own_files_load(models, framework):
    llava = LlavaNextForConditionalGeneration.from_pretrained(models / "llava")
    (models / "llava/model.safetensors").unlink()
    llava.save_pretrained(models / "llava", max_shard_size="1MB")
    assert len(list((models / "llava").glob("*.safetensors"))) > 2
    for part, name in (("clip", "pytorch_model"), ("hunyuan/vae", "diffusion_pytorch_model")):
        (file,) = (models / part).glob("*.safetensors")
        torch.save(load_file(file), models / part / f"{name}.bin")
        file.unlink()
    assert_same(built(models), framework)


def test_a_hub_id_is_read_from_its_cache_at_its_revision(models, framework, tmp_path, monkeypatch):
    """A cache as the hub's client lays it out, with two revisions; only the older one holds the right values."""
    repository = tmp_path / "hub/models--someone--clip"
    for commit in ("1" * 40, "2" * 40):
        shutil.copytree(models / "clip", repository / "snapshots" / commit)
    newer = repository / "snapshots" / ("2" * 40) / "model.safetensors"
    save_file({key: value + 1 for key, value in load_file(newer).items()}, newer)
    (repository / "refs").mkdir()
    for name, commit in (("v1", "1" * 40), ("main", "2" * 40)):
        (repository / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    expected = framework.tokeniser.feature_extractor
    assert_same(build_feature_extractor(VTokConfig(weights="someone/clip", revision="v1")), expected)
    latest = build_feature_extractor(VTokConfig(weights="someone/clip"))
    weight = "clip.embeddings.position_embedding.weight"
    assert torch.equal(latest.state_dict()[weight], expected.state_dict()[weight] + 1)
    with pytest.raises(ConfigError, match="tokeniser.weights.*'someone/clip' at revision v9"):
        build_feature_extractor(VTokConfig(weights="someone/clip", revision="v9"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_any_range_of_a_tensor_can_be_read_alone(tmp_path, monkeypatch, dtype, suffix):
    monkeypatch.setattr("vtok.weights.tensors.PIECE", 7)
    values = torch.randn(10, 5).to(dtype)
    stored, path = {"a": torch.zeros(3), "b": values, "c": torch.zeros(3)}, tmp_path / f"x.{suffix}"
    save_file(stored, path) if suffix == "safetensors" else torch.save(stored, path)
    tensor = open_file(path)["b"]
    assert tensor.shape == (10, 5) and tensor.dtype == dtype
    for start, stop in ((0, 50), (0, 0), (49, 50), (50, 50), (3, 31), (7, 14)):
        flat = torch.full((stop - start,), torch.nan)
        tensor.read_into(flat, start)
        assert torch.equal(flat, values.flatten()[start:stop].float())


def test_the_hash_tells_values_names_and_shapes_apart_but_not_files(tmp_path):
    def hashed(name, **tensors):
        save_file(tensors, tmp_path / name)
        return combined_hash({key: content_hash(value) for key, value in open_file(tmp_path / name).items()})

    a, b = torch.randn(4, 6), torch.randn(3)
    assert hashed("1.safetensors", a=a, b=b) == hashed("2.safetensors", b=b, a=a)
    changed = a.clone()
    changed[3, 5] = torch.nextafter(changed[3, 5], torch.tensor(9.0))
    others = [dict(a=changed, b=b), dict(a=a, c=b), dict(a=a.reshape(6, 4), b=b), dict(a=a.half(), b=b), dict(a=a)]
    hashes = {hashed(f"{i}.safetensors", **other) for i, other in enumerate([dict(a=a, b=b), *others])}
    assert len(hashes) == len(others) + 1


def test_what_is_wrong_is_one_line_that_names_the_file_and_the_key(models):
    def refused(*parts):
        with pytest.raises(ConfigError) as caught:
            built(models)
        assert "\n" not in str(caught.value)
        for part in parts:
            assert str(part) in str(caught.value), caught.value

    good = shutil.copytree(models, models.parent / "good")

    def restore(part):
        shutil.rmtree(models / part)
        shutil.copytree(good / part, models / part)

    config = json.loads((models / "llava/config.json").read_text())
    (models / "llava/config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    refused("mllm.weights", models / "llava", "'llava'", "'llava_next'")
    config["text_config"]["intermediate_size"] = 100
    (models / "llava/config.json").write_text(json.dumps(config))
    refused("mllm.weights", "llava/model.safetensors", "mlp.gate_proj.weight", "(384, 128)", "(100, 128)")
    restore("llava")

    LlavaNextForConditionalGeneration.from_pretrained(good / "llava").save_pretrained(
        models / "llava", max_shard_size="1MB"
    )
    (models / "llava/model.safetensors").unlink(missing_ok=True)
    index = json.loads((models / "llava/model.safetensors.index.json").read_text())["weight_map"]
    lost = index["language_model.model.norm.weight"]
    (models / "llava" / lost).unlink()
    refused("mllm.weights", models / "llava", lost, "is missing")
    restore("llava")

    rename(models / "hunyuan/vae/diffusion_pytorch_model.safetensors", lambda k: None if k == "quant_conv.bias" else k)
    refused("decoder.weights", "vae", "quant_conv.bias")
    vae = models / "hunyuan/vae/diffusion_pytorch_model.safetensors"
    vae.write_bytes((good / "hunyuan/vae" / vae.name).read_bytes()[:-1000])
    refused(vae, "lacks its last 1000 bytes")
    vae.write_bytes(b"<html>not found</html>")
    refused(vae, "not a safetensors file")
    restore("hunyuan")

    shutil.copytree(good / "hunyuan/vae", models / "hunyuan/transformer", dirs_exist_ok=True)
    refused("decoder.weights", "hunyuan/transformer", "AutoencoderKLHunyuanVideo", "HunyuanVideoTransformer3DModel")
    shutil.rmtree(models / "hunyuan/transformer")
    refused("decoder.weights", "hunyuan/transformer", "there is no config.json")
    restore("hunyuan")

    shutil.copytree(good / "hunyuan/text_encoder_2", models / "clip", dirs_exist_ok=True)
    refused("tokeniser.weights", models / "clip", "'clip_text_model'")


@pytest.mark.parametrize("sharded", [False, True])
def test_folders_that_hold_only_a_variant_load_and_are_exported(models, tmp_path, sharded):
    """``*.fp16.safetensors``, in one file or several: the values are those that the libraries read."""
    size = dict(max_shard_size="300KB") if sharded else {}
    kinds = {
        "llava": LlavaNextForConditionalGeneration,
        "clip": CLIPVisionModel,
        "hunyuan/transformer": HunyuanVideoTransformer3DModel,
        "hunyuan/vae": AutoencoderKLHunyuanVideo,
    }
    for folder, kind in kinds.items():
        kind.from_pretrained(models / folder, torch_dtype=torch.float16).save_pretrained(
            models / folder, variant="fp16", **size
        )
        for file in [*(models / folder).glob("*.safetensors"), *(models / folder).glob("*.index.json")]:
            if "fp16" not in file.name:
                file.unlink()
    indexed = ("llava/model", "hunyuan/transformer/diffusion_pytorch_model")
    assert all((models / f"{name}.safetensors.index.fp16.json").exists() == sharded for name in indexed)
    framework = built(models)
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(models / "hunyuan/transformer", variant="fp16")
    assert_same(framework.decoder.transformer, transformer.float())
    vae = AutoencoderKLHunyuanVideo.from_pretrained(models / "hunyuan/vae", variant="fp16")
    assert_same(framework.decoder.vae, vae.float())
    llava = LlavaNextForConditionalGeneration.from_pretrained(models / "llava", variant="fp16").float()
    assert_same(framework.mllm.causal_lm.model, llava.model.language_model)
    save_pretrained(framework, tmp_path / "saved")
    assert_same(from_pretrained(tmp_path / "saved").mllm, framework.mllm)
