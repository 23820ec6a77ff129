"""Losses and gradients that are not finite: the step is dropped on all ranks and leaves no trace; many end the run."""

from support.launch import REPO, checked, deepspeed

CASES = ("zero3.json:fp32", "zero3.json:bf16", "zero2.json:fp32", "zero2.json:bf16", "zero3_offload.json:fp32")


def test_a_dropped_step_leaves_no_trace(tiny_models):
    """Two ranks, two micro-batches a step; rank 1's first or second has a loss of NaN or inf, or an inf gradient."""
    result = checked(deepspeed(2, REPO / "tests/support/finite_worker.py", tiny_models, *CASES))
    for case in CASES:
        assert result.stdout.count(f"{case} leaves no trace") == 2
