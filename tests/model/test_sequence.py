"""Ranks that share each sample (sequence parallelism): their losses and gradients are those of one process."""

import pytest

from support.launch import REPO, checked
from support.tiny import model_config
from vtok.assembly.architectures import meta_framework
from vtok.config import ConfigError
from vtok.sequence import SequenceGroup

WORKER = REPO / "tests/support/sequence_worker.py"
DECODERS = ("hunyuan", "hunyuan:checkpointing", "wan", "wan:checkpointing", "wan_experts")
AUTOENCODERS = ("hunyuan:autoencoder", "wan:autoencoder", "wan_experts:autoencoder")


def test_parts_are_consecutive_and_differ_by_one_row_at_most():
    assert SequenceGroup(4, 0, None).lengths(10) == [3, 3, 2, 2]
    assert SequenceGroup(4, 3, None).lengths(2) == [1, 1, 0, 0]


def test_ranks_that_do_not_divide_the_heads_are_refused(tiny_models):
    decoder = meta_framework(model_config(tiny_models)).decoder
    with pytest.raises(ConfigError, match="train.sequence_parallel 3 does not divide the 2 attention heads .* of 1, 2"):
        decoder.share(SequenceGroup(3, 0, None))


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.long)])
def test_losses_and_gradients_are_those_of_one_process(ranks, tiny_models, count):
    """Rows of all kinds of lengths, among them fewer than ranks; HunyuanVideo, Wan2.2-TI2V-5B and Wan2.1 in small."""
    checks = ("exchanges", *AUTOENCODERS, *DECODERS)
    result = checked(ranks.run(WORKER, tiny_models, *checks, ranks=count))
    assert all(result.stdout.count(f": {check} agrees") == count for check in checks)
