from functools import partial

import pytest

from support.launch import REPO, checked

WORKER = REPO / "tests/support/gradient_worker.py"
slow, long = (partial(pytest.param, marks=mark) for mark in (pytest.mark.slow, pytest.mark.long))


@pytest.mark.parametrize(
    "count, accumulation, checkpointing", [long(1, 1, False), long(2, 1, False), (2, 2, False), slow(2, 1, True)]
)
def test_zero3_gradients_equal_the_reference(ranks, tiny_models, count, accumulation, checkpointing):
    """1 rank x 4, 2 x 2, 2 x 1 x (accumulate 2), and 2 x 2 with gradient checkpointing in MLLM and decoder."""
    result = checked(ranks.run(WORKER, tiny_models, "hunyuan", accumulation, checkpointing, "zero3.json", ranks=count))
    assert result.stdout.count("gradients agree") == count


# Samples in global order, as in `support.tiny.mixed_batch`; s and l are about several media, d counts in L_dec.
MIXES = {1: "ttvd:isvl", 2: "tvlt:qpss"}  # by accumulation: on two ranks, two samples a rank, or one


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [long(1), 2])
def test_zero3_gradients_of_mixed_samples_equal_the_reference(ranks, tiny_models, accumulation):
    """One rank has only texts while the other has only clips; kinds change from one micro-step to the next."""
    mixes = MIXES[accumulation]
    result = checked(ranks.run(WORKER, tiny_models, f"mixed:{mixes}", accumulation, False, "zero3.json"))
    assert result.stdout.count("gradients agree") == 2 * len(mixes.split(":"))


@pytest.mark.slow
def test_zero3_gradients_of_videos_of_unlike_length_through_wan_equal_those_of_one_process(ranks, tiny_models):
    """Wan's autoencoder takes a video in pieces of four frames: three on one rank, one on the other."""
    result = checked(ranks.run(WORKER, tiny_models, "mixed_wan:tvvt:vtqv", 2, False, "zero3.json", timeout=120))
    assert result.stdout.count("gradients agree") == 4


@pytest.mark.slow
def test_zero3_gradients_through_wan_equal_those_of_one_process(ranks, tiny_models):
    """2 x 1 x (accumulate 2), with gradient checkpointing; the adapter's among them."""
    result = checked(ranks.run(WORKER, tiny_models, "wan", 2, True, "zero3.json"))
    assert result.stdout.count("gradients agree") == 2


@pytest.mark.parametrize(
    "count, variant, accumulation, checkpointing, configs",
    [
        slow(2, "hunyuan/2", 2, True, ("zero3.json",)),
        long(2, "wan/2", 2, False, ("zero3.json", "zero2.json")),
        long(2, "mixed/2:ttvd:isvl", 2, True, ("zero3.json",)),
        slow(2, "mixed_wan/2:tvvt:vtqv", 4, True, ("zero3.json",)),
        long(2, "parts/2", 2, False, ("zero3.json",)),
        long(2, "decoder_lora/2", 2, True, ("zero2.json", "zero3.json")),
        long(2, "compiled_fp8/2", 2, True, ("zero3.json",)),
        long(4, "hunyuan/2", 2, False, ("zero3.json",)),
    ],
)
def test_gradients_on_ranks_that_share_samples_equal_the_reference(
    ranks, tiny_models, count, variant, accumulation, checkpointing, configs
):
    """Two ranks for each sample; on four ranks there are two such groups."""
    result = checked(ranks.run(WORKER, tiny_models, variant, accumulation, checkpointing, *configs, ranks=count))
    batches = max(1, variant.count(":"))
    assert result.stdout.count("gradients agree") == count * len(configs) * batches


@pytest.mark.slow
@pytest.mark.parametrize("count, accumulation, checkpointing", [long(1, 1, False), (2, 2, True)])
def test_gradients_of_parts_equal_the_reference(ranks, tiny_models, count, accumulation, checkpointing):
    """Each part has its own groups in the optimiser, under ZeRO-2 and ZeRO-3. What is frozen has no gradient."""
    configs = "zero2.json", "zero3.json"
    result = checked(ranks.run(WORKER, tiny_models, "parts", accumulation, checkpointing, *configs, ranks=count))
    assert all(result.stdout.count(f"{name}: ") == count for name in configs)


@pytest.mark.slow
@pytest.mark.parametrize("variant, count", [long("lora", 1), long("lora", 2), ("dora", 2), ("decoder_lora", 2)])
def test_gradients_of_adapters_equal_those_of_plain_peft(ranks, tiny_models, variant, count):
    """Each rank accumulates twice, with gradient checkpointing, under ZeRO-2 and ZeRO-3."""
    configs = "zero2.json", "zero3.json"
    result = checked(ranks.run(WORKER, tiny_models, variant, 2, True, *configs, ranks=count))
    assert all(result.stdout.count(f"{name}: ") == count for name in configs)


@pytest.mark.long
@pytest.mark.parametrize("variant", ["compiled", "compiled_fp8"])
def test_gradients_of_compiled_blocks_equal_the_reference(ranks, tiny_models, variant):
    """2 x 1 x (accumulate 2), with gradient checkpointing: lengths differ between micro-steps and between ranks.

    The backend is the one without code generation, which compiles in seconds.
    """
    result = checked(ranks.run(WORKER, tiny_models, variant, 2, True, "zero3.json"))
    assert result.stdout.count("gradients agree") == 2


@pytest.mark.slow
def test_gradients_of_the_other_configurations_equal_the_reference(ranks, tiny_models):
    """2 x 1 x (accumulate 2). Under hpZ, last since DeepSpeed keeps its groups, every parameter has its second copy."""
    others = ("zero2.json", "zero3_offload.json", "zero3_hpz.json")
    result = checked(ranks.run(WORKER, tiny_models, "hunyuan", 2, False, *others))
    assert all(result.stdout.count(f"{name}: ") == 2 for name in others)


@pytest.mark.slow
def test_in_bf16_sharded_wan_keeps_its_fp32_parts_and_loses_as_in_one_process(ranks, tiny_models):
    worker = REPO / "tests/support/fp32_worker.py"
    result = checked(ranks.run(worker, tiny_models, "zero2.json", "zero3.json", "zero3_hpz.json"))
    assert result.stdout.count("FP32 PARTS KEPT") == 2
