"""Plans of more GPUs than the batch has samples: traffic by link, waiting, advice, and the table of `--scaling`."""

import json
from dataclasses import replace

import pytest

from pipelines import plan
from pipelines.cli.config_files import PRESETS, save_config
from pipelines.metering.kinds import FLOP_KINDS, MEMORY
from pipelines.metering.meter import BACKWARD
from pipelines.planning.advice import changes, divisions, use_of_gpus
from pipelines.planning.forecast import Scenario, forecast
from pipelines.planning.hardware import Hardware
from pipelines.planning.memory import Parameter
from pipelines.planning.network import (
    BACKWARD_PASS,
    FORWARD_PASS,
    NOTHING,
    Received,
    all_to_all,
    fewest_together,
    from_neighbour,
    ring,
    waiting_seconds,
)
from pipelines.planning.rates import Rates
from pipelines.planning.scaling import efficiency, scaling, table
from pipelines.planning.sharding import read_sharding
from pipelines.planning.time import Seconds
from pipelines.planning.traffic import traffic
from support.launch import REPO
from support.tiny import planned_config

ZERO3 = REPO / "deepspeed_configs/zero3.json"
PAPER = PRESETS / "llava_next_8b_hunyuan.yaml"
COUNTS = (2, 4, 8, 16)
SLOW_GPU = Rates(host_seconds=1e-6, **dict.fromkeys((*FLOP_KINDS, MEMORY), 1e9))


@pytest.fixture
def tiny(tiny_models):
    """A global batch of 4, a transformer with two heads, nodes of four GPUs, which are slower than their host."""
    config = planned_config(tiny_models)
    config.train.micro_batch_size = 1
    return Scenario(config, ZERO3, Hardware(gpus=8, gpus_per_node=4), rates=SLOW_GPU)


# ---------------------------------------------------------------- links


@pytest.mark.parametrize(
    "ranks, group, per_node, here",
    [(8, 8, 8, 8), (16, 16, 8, 8), (16, 4, 8, 4), (12, 12, 8, 4), (24, 3, 8, 1), (192, 12, 8, 4), (4, 4, 1, 1)],
)
def test_ranks_of_a_group_in_one_node(ranks, group, per_node, here):
    assert fewest_together(ranks, group, per_node) == here


def test_bytes_of_a_ring_and_of_an_exchange_by_link():
    # 16 ranks on two nodes: a ring enters a node once, through the adapters of its 8 ranks.
    assert ring(1500, 16, 16, 8, FORWARD_PASS) == Received(1500 - 188, 188, FORWARD_PASS)
    assert ring(700, 8, 8, 8, FORWARD_PASS) == Received(700, 0, FORWARD_PASS)
    assert ring(700, 16, 16, 1, BACKWARD_PASS) == Received(0, 700, BACKWARD_PASS)
    # Twelve ranks share a sample: the four alone in a node receive from three there and from eight elsewhere.
    assert all_to_all(1100, 24, 12, 8) == Received(300, 800, NOTHING)
    assert all_to_all(300, 64, 4, 8) == Received(300, 0, NOTHING)
    assert all_to_all(0, 4, 1, 4) == Received(0, 0, NOTHING)
    # Some rank of these twelve has its neighbour in another node.
    assert from_neighbour(1100, 24, 12, 8) == Received(0, 1100, NOTHING)
    assert from_neighbour(300, 64, 4, 8) == Received(300, 0, NOTHING)


def test_traffic_of_one_matrix_by_link():
    """1,600 trained weights in bf16, 16 GPUs on two nodes, two micro-steps; gradients move in fp32."""
    sharding = replace(read_sharding(ZERO3, 2), persistence_threshold=0)
    one = [Parameter("trained", 1600, True)]
    moved = traffic(one, 16, 2, sharding, per_node=8)
    # 1600 x 2 bytes x 2 x 15/16 are 6000, an eighth of which enters the node through this GPU; gradients twice that.
    assert moved["all-gather trained, forward"] == Received(5250, 750, FORWARD_PASS)
    assert moved["all-gather trained, backward"] == Received(5250, 750, BACKWARD_PASS)
    assert moved["reduce-scatter gradients"] == Received(10500, 1500, BACKWARD_PASS)
    within = traffic(one, 16, 2, replace(sharding, secondary_partition=8), per_node=8)
    assert within["all-gather trained, backward"] == Received(5600, 0, BACKWARD_PASS)  # x 7/8
    assert within["all-gather trained, forward"] == moved["all-gather trained, forward"]
    stage2 = traffic(one, 16, 2, replace(sharding, stage=2), per_node=8)
    assert stage2["all-gather updated weights"] == Received(2625, 375, NOTHING)


def test_a_step_waits_for_what_computation_does_not_hide():
    hardware = Hardware(nvlink=100, infiniband=10)
    seconds = {"part": Seconds(1.0, 0.5), "part" + BACKWARD: Seconds(0.5, 2.0)}  # 1 s and 2 s, twice
    hidden = {"gather": Received(200 * 10**9, 0, FORWARD_PASS), "again": Received(0, 40 * 10**9, BACKWARD_PASS)}
    assert waiting_seconds(hidden, seconds, 2, hardware) == 0
    assert waiting_seconds(hidden, seconds, 1, hardware) == pytest.approx(1 + 2)
    exchange = {"exchange": Received(100 * 10**9, 5 * 10**9, NOTHING)}
    assert waiting_seconds(hidden | exchange, seconds, 2, hardware) == pytest.approx(1.0)  # both links at once
    slower = replace(hardware, infiniband=1)
    assert waiting_seconds(hidden | exchange, seconds, 2, slower) == pytest.approx(40 - 4 + 5)


# ---------------------------------------------------------------- advice


def test_divisions_keep_the_batch_and_use_whole_nodes():
    assert set(divisions(4, [1, 2], 8, 4)) == {(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2)}
    assert (2, 3) not in divisions(2, [1, 3], 8, 4) and (4, 3) in divisions(4, [1, 3], 12, 4)


def test_a_plan_says_what_the_other_gpus_could_do(tiny):
    def advice(gpus):
        return use_of_gpus(replace(tiny, hardware=replace(tiny.hardware, gpus=gpus)))

    assert advice(8) == "--train.sequence_parallel 2 keeps 4: every 2 GPUs share their samples"
    assert "--train.sequence_parallel 2 --train.global_batch_size 8" in advice(16)
    assert "--gpus 8 --train.sequence_parallel 2, 8 idle" in advice(16)
    assert "\n" not in advice(16)


def test_sharing_samples_is_a_remedy_for_memory(tiny):
    on_four = replace(tiny, hardware=replace(tiny.hardware, gpus=4))
    (change,) = [c for c in changes(on_four) if "sequence_parallel" in c.options]
    assert change.options == "--train.sequence_parallel 2"
    assert forecast(change.scenario).saved < forecast(on_four).saved


# ---------------------------------------------------------------- the table


def test_rows_keep_the_batch_or_use_all_gpus(tiny):
    ways = scaling(tiny, COUNTS)
    assert [(w.gpus, w.planned.batch.global_batch_size, w.idle) for w in ways] == [
        (2, 4, 0), (4, 4, 0), (8, 4, 0), (16, 4, 8), (16, 8, 0),
    ]  # fmt: skip
    kept = [w for w in ways if w.planned.batch.global_batch_size == 4]
    assert all(after.planned.run_days <= before.planned.run_days for before, after in zip(kept, kept[1:]))
    # More GPUs never take fewer GPU-hours; the same plan with idle GPUs takes twice as many.
    assert all(after.gpu_hours >= before.gpu_hours * 0.999 for before, after in zip(kept, kept[1:]))
    assert kept[-1].gpu_hours == pytest.approx(2 * kept[-2].gpu_hours) and efficiency(ways[0], ways) == 1
    again = replace(tiny, config=replace(tiny.config, train=replace(tiny.config.train, sequence_parallel=2)))
    shared = forecast(replace(again, hardware=replace(tiny.hardware, gpus=8)))
    assert kept[-1].planned.step_seconds == shared.step_seconds  # it is the plan's own forecast
    lines = table(ways, price=2)
    assert len(lines) == 2 + len(ways) and all(line.count("|") == 12 for line in lines) and "| 8 |" in lines[5]
    assert lines[0].count("cost") == 1 and "cost" not in table(ways)[0]


def test_slower_links_never_make_a_run_faster(tiny):
    shared = replace(tiny.config, train=replace(tiny.config.train, sequence_parallel=2))
    steps = [
        forecast(replace(tiny, config=shared, hardware=replace(tiny.hardware, **links))).step_seconds
        for links in ({}, dict(infiniband=1e-6), dict(nvlink=1e-6), dict(infiniband=1e-6, nvlink=1e-6))
    ]
    assert steps[0] < steps[1] <= steps[3] and steps[0] < steps[2] <= steps[3]


def test_numbers_of_gpus_on_which_nothing_fits_have_a_row(tiny):
    small = replace(tiny, hardware=replace(tiny.hardware, gpu_memory=1.0))
    (way,) = scaling(small, (2,))
    assert way.planned is None and "does not fit" in table([way])[2] and efficiency(way, [way]) is None


def test_the_command_writes_a_table_a_picture_and_json(capsys, tiny_models, tmp_path):
    save_config(planned_config(tiny_models), tmp_path / "config.yaml")
    picture = tmp_path / "scaling.png"
    command = ["--config", str(tmp_path / "config.yaml"), "--scaling"]
    plan.main([*command, "--picture", str(picture)])
    printed = capsys.readouterr().out
    assert "| 1,024 |" in printed and "300 GB/s" in printed and "40 GB/s" in printed and "estimated" in printed
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size < 100_000
    plan.main([*command, "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["gpus"] for row in rows if row["batch"]["global_batch_size"] == 4] == [2**k for k in range(3, 11)]
    assert rows[0]["efficiency"] == 1 and rows[0]["gpu_hours"] == pytest.approx(rows[0]["run_days"] * 24 * 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--picture", "x.png"], "add --scaling"),
        (["--scaling", "--picture", "x.jpg"], "the name must end in .png"),
        (["--scaling", "--picture", "missing/x.png"], "there is no folder missing"),
        (["--nvlink", "0"], "--nvlink must be positive"),
        (["--scaling", "--train.epochs", "1"], "set train.max_steps"),
    ],
)
def test_what_the_user_can_mend_is_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        plan.main(["--config", str(PAPER), *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1


def test_stages_are_refused(capsys):
    with pytest.raises(SystemExit) as end:
        plan.main(["--config", str(PRESETS / "llava_next_8b_hunyuan_stages.yaml"), "--scaling"])
    assert end.value.code == 2 and "leave the stages out" in capsys.readouterr().err
