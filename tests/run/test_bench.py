"""The figures: that they can be measured, and those that are bounds whatever the machine."""

import json
import multiprocessing
import time

import numpy as np
import pytest
from PIL import Image

from data_tools.buckets import Bucket, choose_buckets
from data_tools.shards import ROW, ShardReader
from data_tools.streaming.grouping import GroupedOrder
from data_tools.video.decode import validate
from pipelines import bench
from pipelines.bench import main
from pipelines.benchmarks import buckets, figures, scaling
from pipelines.benchmarks.data import moving_clip, resuming, write_large_index
from pipelines.benchmarks.figure import Figure
from pipelines.benchmarks.models import SMALL, random_batch, random_framework
from pipelines.benchmarks.prefill import prefilling
from pipelines.benchmarks.prefill_plot import plot_prefill
from pipelines.benchmarks.processes import together
from pipelines.benchmarks.profile import is_product
from pipelines.benchmarks.step import calls_of
from support.ends import kill_myself, sleep_for_ever
from support.launch import checked, python


@pytest.fixture(scope="module")
def clip():
    return moving_clip(1.0, 12, 90, 160)


def test_the_bench_of_the_data_runs(clip, capsys):
    assert validate(clip).frames == 12
    main(["data", "--quick", "--json"])
    assert "PyAV path / decord, CPU time" in [figure["name"] for figure in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize("what", ["tokeniser", "prefill", "sample", "profile", "vidtok"])
def test_the_bench_of_the_model_runs(what, capsys):
    main([what, "--quick", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures and all(figure["value"] > 0 for figure in figures)


@pytest.mark.long
@pytest.mark.parametrize("what", ["step", "run", "checkpoint", "fsdp", "host"])
def test_the_bench_of_steps_and_of_runs_runs(what):
    """In a process of its own, for DeepSpeed's group."""
    result = checked(python("pipelines/bench.py", what, "--quick", "--json"))
    assert all(figure["value"] >= 0 for figure in json.loads(result.stdout.splitlines()[-1]))


def test_the_simulated_manifest_is_what_its_text_says_and_buckets_save_on_it():
    rows = buckets.simulated_manifest(20_000)
    assert np.array_equal(rows[:100], buckets.simulated_manifest(20_000)[:100])
    image, text, silent = rows["frames"] == 1, rows["frames"] == 0, (rows["frames"] > 1) & (rows["words"] == 0)
    assert [kind.mean() for kind in (image, text, silent)] == pytest.approx([0.12, 0.05, 0.03], abs=0.01)
    assert np.median(rows["duration"][rows["frames"] > 1]) == pytest.approx(6, rel=0.05)
    assert (rows["width"][image] <= 2048).all() and not rows["width"][text].any()
    largest, by_tokens = Bucket(320, 576, 121), np.array([1.0, 1e4, 1e6])
    one = buckets.measured(rows, [largest], by_tokens, 5.0, 24.0)
    chosen = buckets.measured(rows, choose_buckets(rows, largest, 5.0, 24.0, "crop"), by_tokens, 5.0, 24.0)
    assert chosen.padding <= 0.03 < 0.2 < one.padding and one.wasted > one.padding and one.cut == 0
    assert chosen.wasted <= 0.03 and chosen.cropped < one.cropped / 4 and chosen.cut < 0.03
    assert buckets.imbalance(np.array([1, 1, 2, 4, 9]), ranks=2) == pytest.approx((1 + 4) / (1 + 3))


def test_a_piece_of_work_that_fails_ends_the_others():
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="exit code -9"):
        together(lambda end: end(), [(sleep_for_ever,), (kill_myself,)])
    assert time.monotonic() - started < 60 and not multiprocessing.active_children()


def test_a_check_tells_what_has_become_worse(monkeypatch, tmp_path, capsys):
    """By more than a tenth, in the direction of its bound; what is better or has no bound is let be."""
    monkeypatch.setattr(bench, "RATIOS", tmp_path / "ratios.json")
    values = dict(fast=1.0, small=1.0, free=1.0)

    def measured(quick):
        yield Figure("fast", values["fast"], at_least=0.95)
        yield Figure("small", values["small"], at_most=1.1)
        yield Figure("free", values["free"])
        yield Figure("took, s", 3.0, at_most=5, is_ratio=False)

    monkeypatch.setitem(figures.FIGURES, "step", measured)
    main(["step", "--keep"])
    assert json.loads((tmp_path / "ratios.json").read_text()) == {"step": values}
    for change, worse in (
        (dict(fast=0.91, small=1.09), []), (dict(fast=2.0, small=0.5, free=9.0), []),
        (dict(fast=0.89), ["fast"]), (dict(fast=1.0, small=1.11), ["small"]),
    ):  # fmt: skip
        values |= change
        with pytest.raises(SystemExit) as ended:
            main(["step", "--check"])
        assert ended.value.code == (1 if worse else 0)
        told = capsys.readouterr().err.splitlines()
        assert [line.split(": ")[2] for line in told] == worse


def test_operators_that_are_matrix_products():
    products = ("aten::mm", "aten::mkldnn_convolution", "aten::_scaled_dot_product_flash_attention_for_cpu_backward")
    assert all(map(is_product, products)) and not any(map(is_product, ("aten::mul", "aten::silu", "aten::copy_")))


def test_two_ranks_are_compared_with_two_runs(tmp_path, monkeypatch):
    """The ratio of the slower process's seconds of a step, apart over together; each way starts two processes."""
    started = []

    def pretend(work, calls, start_method):
        started.append([(call[1], call[2]) for call in calls])
        for output, rank, ranks, port, *_ in calls:
            (output / f"{port}-{rank}.seconds").write_text(str(2.0 + rank if ranks == 1 else 4.0 * (rank + 1)))

    monkeypatch.setattr(scaling, "together", pretend)
    assert scaling.efficiency(tmp_path, repeats=1) == 2.0 / 8.0
    assert sorted(started) == [[(0, 1), (0, 1)], [(0, 2), (1, 2)]]


def test_reading_a_long_video_costs_one_token_a_frame(tmp_path):
    """S + T against S x T, in tokens and in what the cache keeps of them."""
    found = prefilling(tmp_path, (5, 40), SMALL)
    ours, theirs = found[40]["vtok"], found[40]["frames"]
    assert ours.visual_tokens == 16 + 40 * 6 - 1 and theirs.visual_tokens == 16 * 40 * 6
    assert ours.tokens / theirs.tokens == pytest.approx(ours.cache / theirs.cache) and ours.cache < 0.1 * theirs.cache
    plot_prefill(found, tmp_path / "prefill.png")
    assert Image.open(tmp_path / "prefill.png").width > 1000


def test_a_step_is_taken_apart_into_calls_that_do_its_work(tmp_path):
    """Made again, the calls give every trained weight of the language model a gradient, in one pass of it."""
    framework = random_framework(tmp_path, SMALL)
    calls = calls_of(framework, random_batch(framework, 2))
    names = [type(call.function.__self__).__name__ for call in calls]
    assert (
        names.count("LlamaModel") == names.count("HunyuanVideoTransformer3DModel") == names.count("LanguageHead") == 1
    )
    framework.zero_grad()
    for call in calls:
        call()
    assert all(p.grad is not None for p in framework.mllm.parameters())
    assert [call.with_gradients for call, name in zip(calls, names) if "KLHunyuan" in name] == [False]


def test_a_run_resumes_at_once_in_an_index_of_five_million(clip, tmp_path):
    """160 MB of mapping a node, read as it is needed; next to nothing in each process."""
    far = resuming(tmp_path, clip)
    assert far["index_mb"] <= 200 and far["own_mb"] < 20
    assert far["open_s"] <= 1 and far["first_batch_s"] < 2


def test_grouping_resumes_at_once_too(clip, tmp_path):
    write_large_index(tmp_path, clip, 200_000)
    reader = ShardReader(tmp_path)
    assert reader.rows.dtype == ROW and len(reader) == 200_000
    started = time.perf_counter()
    order = GroupedOrder(reader.order(0), lambda rows: reader.facts(rows)["length"], 1600, 16, seed=0)
    rows = [order.row(position) for position in range(190_000, 190_016)]
    assert time.perf_counter() - started < 1 and len(np.unique(rows)) == 16
