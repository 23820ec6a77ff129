"""What a rank keeps, and what loading takes: from the engine's own tensors and the kernel's own figures."""

import json
import shutil

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from support.launch import REPO, assert_user_error, checked, deepspeed
from vtok.assembly.tiny import TRANSFORMER

ALL_SHARDED = {"stage3_param_persistence_threshold": 0}
CASES = {
    "sharded": ALL_SHARDED,
    "persistent": {"stage3_param_persistence_threshold": 2000},
    "host": ALL_SHARDED | {"offload_param": {"device": "cpu", "pin_memory": False}},
    "secondary": ALL_SHARDED | {"zero_hpz_partition_size": 2},
    "whole": {"stage": 2},
}
BF16 = 2  # bytes


def lines(output: str, marker: str) -> list[dict]:
    return [json.loads(line.removeprefix(marker)) for line in output.splitlines() if line.startswith(marker)]


def reports(ranks, models, count: int, cases: dict) -> dict[str, list[dict]]:
    """Each case's reports, one a rank."""
    worker = REPO / "tests/support/residency_worker.py"
    found = lines(checked(ranks.run(worker, models, json.dumps(cases), ranks=count)).stdout, "REPORT ")
    by_case = {case: [report for report in found if report["case"] == case] for case in cases}
    assert all(len(of_case) == count for of_case in by_case.values())
    return by_case


@pytest.fixture(scope="module")
def two_ranks(ranks, tiny_models):
    return reports(ranks, tiny_models, 2, CASES)


@pytest.fixture(scope="module")
def one_rank(ranks, tiny_models):
    return reports(ranks, tiny_models, 1, {"sharded": ALL_SHARDED})


@pytest.mark.slow
def test_each_rank_keeps_its_share_of_the_frozen_parts_and_nothing_besides(one_rank, two_ranks):
    """No gradient, no master copy and no moments: the optimiser's tensors are as large as the trainable part."""
    for ranks, found in ((1, one_rank["sharded"]), (2, two_ranks["sharded"])):
        for report in found:
            kept = report["bytes"]
            assert kept["frozen"] == pytest.approx(BF16 * report["frozen"] / ranks, rel=0.02)
            assert kept["trainable"] == pytest.approx(BF16 * report["trainable"] / ranks, rel=0.02)
            assert kept["master"] == pytest.approx(4 * report["trainable"] / ranks, rel=0.02)
            assert kept["moments"] == 2 * kept["master"]
            assert kept["gradients"] == kept["trainable"]
            assert not kept.keys() & {"persistent", "gathered", "secondary"}
            assert report["frozen_gradients"] == report["frozen_optimised"] == report["trainable_left_out"] == 0


@pytest.mark.slow
def test_persistent_parameters_are_reported_apart(two_ranks):
    for report in two_ranks["persistent"]:
        kept, small = report["bytes"], BF16 * report["small"]
        assert kept["persistent"] == pytest.approx(small + small / 2, rel=0.02)  # the whole, and its shard
        total = BF16 * (report["frozen"] + report["trainable"])
        assert kept["frozen"] + kept["trainable"] == pytest.approx((total - small) / 2, rel=0.02)


@pytest.mark.slow
def test_zero_2_and_the_secondary_partition_keep_what_they_are_for(two_ranks):
    for report in two_ranks["whole"]:
        assert report["bytes"]["frozen"] == BF16 * report["frozen"]
        assert report["bytes"]["master"] == pytest.approx(4 * report["trainable"] / 2, rel=0.02)
    for report in two_ranks["secondary"]:  # groups as large as the world: as much again
        assert report["bytes"]["secondary"] >= report["bytes"]["frozen"]


@pytest.mark.long
def test_training_does_not_depend_on_where_the_shards_lie(one_rank, two_ranks):
    """The worker checks that each case starts from the files' own values. Frozen shards in host memory: on a CPU this
    shows that the step runs so, not that a GPU is relieved of them.
    """
    expected = one_rank["sharded"][0]["losses"]
    for found in two_ranks.values():
        for report in found:
            assert report["losses"] == pytest.approx(expected, rel=2e-2)  # bf16
            assert report["losses"][1] < report["losses"][0]
    assert two_ranks["host"][0]["shard_devices"] == ["cpu"]


@pytest.mark.long
def test_the_frozen_parts_have_the_same_hashes_on_any_number_of_ranks(one_rank, two_ranks):
    expected = one_rank["sharded"][0]["hashes"]
    assert expected.keys() == {"feature_extractor", "diffusion_transformer", "autoencoder", "text_encoder"}
    assert all(report["hashes"] == expected for found in two_ranks.values() for report in found)


@pytest.mark.slow
def test_a_file_that_only_one_rank_lacks_ends_the_run_on_all(ranks, tiny_models, tmp_path):
    result = ranks.run(REPO / "tests/support/missing_file_worker.py", shutil.copytree(tiny_models, tmp_path / "m"))
    assert_user_error(result, "decoder.weights", "hunyuan/vae")


@pytest.fixture(scope="module")
def larger_models(tiny_models, tmp_path_factory):
    return write_larger_models(tiny_models, tmp_path_factory.mktemp("larger") / "models")


def write_larger_models(tiny_models, folder):
    """The tiny models with a wider language model: 350 MB of random bf16 in files of at most 64 MB."""
    shutil.copytree(tiny_models, folder)
    stored = json.loads((folder / "llava/config.json").read_text())
    stored["text_config"] |= dict(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=11, num_attention_heads=8, head_dim=128
    )
    with torch.device("meta"):
        llava = LlavaNextForConditionalGeneration(LlavaNextConfig.from_dict(stored))
    llava.to(torch.bfloat16).to_empty(device="cpu")
    for parameter in llava.parameters():
        parameter.data.normal_(std=0.02)
    (folder / "llava/model.safetensors").unlink()
    llava.save_pretrained(folder / "llava", max_shard_size="64MB")
    transformer = HunyuanVideoTransformer3DModel(**TRANSFORMER | dict(text_embed_dim=1024))
    transformer.save_pretrained(folder / "hunyuan/transformer")
    return folder


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
def test_loading_takes_no_more_memory_than_the_shard_and_the_largest_tensor(tiny_models, larger_models, ranks):
    worker = REPO / "tests/support/loading_worker.py"
    found = lines(checked(deepspeed(ranks, worker, tiny_models, larger_models)).stdout, "LOADED ")
    assert len(found) == ranks
    for report in found:
        assert report["shard"] == pytest.approx(report["total"] / ranks, rel=0.02) and report["total"] > 300e6
        assert report["peak"] <= 1.2 * (report["shard"] + report["largest"]), report
        assert report["peak"] >= report["shard"]  # else the measurement is at fault
