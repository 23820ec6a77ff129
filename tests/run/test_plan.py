"""Planning: against the real step of the tiny models, and the figures known of the published ones."""

import json
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines import plan
from pipelines.cli.config_files import PRESETS, save_config
from pipelines.cli.parsing import parse_run_arguments
from pipelines.engine.batch_plan import BatchPlan
from pipelines.metering.flops import sample_flops
from pipelines.metering.step import gradients_dropped, measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from pipelines.planning import report
from pipelines.planning.advice import suggestions
from pipelines.planning.forecast import Scenario, forecast
from pipelines.planning.hardware import Hardware
from pipelines.planning.memory import gathered_memory, kept_memory, parameters_of
from pipelines.planning.network import NOTHING, Received
from pipelines.planning.rates import Rates, card_file, cards, rates_of
from pipelines.planning.sharding import read_sharding
from pipelines.planning.traffic import traffic
from support.launch import REPO, checked
from support.live_memory import LiveMemory
from support.tiny import CAPTIONS, planned_batch, planned_config, qwen_config, wan_config
from vtok.assembly.build import build_framework
from vtok.assembly.tiny import write_tiny_models
from vtok.config import ConfigError, LossConfig
from vtok.sequence import SequenceGroup

ZERO3 = REPO / "deepspeed_configs/zero3.json"
PAPER = PRESETS / "llava_next_8b_hunyuan.yaml"
STATE = {"trained weights", "gradients", "master weights", "moments", "EMA"}


@pytest.fixture(scope="module")
def paper():
    """The paper's run on 16 GPUs."""
    return Scenario(parse_run_arguments(["--config", str(PAPER)]).config, ZERO3, Hardware(gpus=16))


@pytest.fixture(scope="module")
def paper_forecast(paper):
    return forecast(paper)


@pytest.fixture(scope="module")
def paper_parameters(paper):
    return parameters_of(meta_copy(paper.config.model, "bf16"))


# ---------------------------------------------------------------- the published models


@pytest.mark.parametrize("gpus, gigabytes", [(8, 23.5), (16, 11.7), (32, 5.9), (64, 2.9)])
def test_state_of_the_published_models_per_gpu(paper_parameters, gpus, gigabytes):
    """8.03 B trained at 20 bytes and the frozen parts at 2; our own 0.16 B trained additions are 2 % more."""
    shares = kept_memory(paper_parameters, gpus, read_sharding(ZERO3, 2))
    state = sum(share.bytes for share in shares if share.name in STATE or share.name.startswith("frozen")) / 1e9
    trained = sum(p.size for p in paper_parameters if p.trained)
    additions = (trained - 8_030_785_536) * 20 / gpus / 1e9
    assert round(state - additions, 1) == gigabytes
    assert state == pytest.approx(gigabytes, rel=0.03)


def test_flops_of_the_published_models(paper, paper_forecast):
    """5 s at 320 x 576 are 31 x 20 x 36 latent tokens; the checkpointed frozen transformer takes 2.4 PFLOP for them."""
    framework = meta_copy(paper.config.model, "bf16")
    load = typical_workload(paper.config, framework, 1)
    patch = framework.decoder.transformer.config.patch_size
    frames = (load.video.num_frames - 1) // framework.decoder.latents_per_frame + 1
    assert frames * (load.video.height // 8 // patch) * (load.video.width // 8 // patch) == 22_320
    decoder = paper_forecast.flops["diffusion_transformer"]
    assert decoder.hardware == pytest.approx(2.4e15, rel=0.02)
    # Forward, then one product for each of the forward's linear layers and two for each of attention's.
    assert decoder.model == pytest.approx(decoder.hardware - 0.676e15, rel=0.01)


def test_steps_time_and_cost_follow_from_work_and_rates(paper_forecast):
    assert paper_forecast.steps == 312_500 and paper_forecast.rates == Rates()
    seconds = paper_forecast.seconds
    assert paper_forecast.step_seconds == pytest.approx(sum(max(phase) for phase in seconds.values()))
    assert paper_forecast.run_days == pytest.approx(312_500 * paper_forecast.step_seconds / 86400)
    assert paper_forecast.run_cost == pytest.approx(paper_forecast.run_days * 24 * 16 * 2.5)
    # The host's assumed time is that of this very micro-step: the language model waits for it, the transformer not.
    assert sum(phase.host for phase in seconds.values()) == pytest.approx(Rates().host_seconds, rel=0.02)
    assert seconds["language_model"].host > seconds["language_model"].device
    assert seconds["diffusion_transformer"].host < seconds["diffusion_transformer"].device
    # Forward and backward of the transformer's products and attention at their own rates, and what moves memory.
    products = 0.61e15 / 600e12 * 1.5 + 0.742e15 / 400e12 + 0.742e15 / 250e12
    transformer = seconds["diffusion_transformer"].device + seconds["diffusion_transformer backward"].device
    assert products < transformer < 1.4 * products


def test_host_memory_of_the_published_models(paper_forecast, paper_parameters):
    """Copies of fp32 masters, two moments and the EMA, in whole pages."""
    copies, batches, process = (share.bytes for share in paper_forecast.host)
    trained = sum(p.size for p in paper_parameters if p.trained)
    assert copies == pytest.approx(trained * 16 / 16, rel=1e-3)
    pixels = 31 * 3 * 336 * 336 + 121 * 3 * 320 * 576
    assert batches == 17 * pixels  # four loader processes
    assert paper_forecast.host_bytes == 8 * (copies + batches + process) and paper_forecast.fits_host


def test_encoders_whose_results_are_stored_cost_nothing(paper, paper_forecast):
    stored = forecast(replace(paper, stored=("features", "captions")))
    absent = {"feature_extractor", "text_encoder"}
    assert not absent & (stored.parameters.keys() | stored.phases.keys() | stored.flops.keys() | stored.seconds.keys())
    frozen = {share.name for share in stored.kept if share.name.startswith("frozen")}
    assert frozen == {"frozen autoencoder", "frozen diffusion_transformer"}
    saved = sum(paper_forecast.parameters[part] for part in absent) * 2 / 16
    kept = [sum(share.bytes for share in one.kept) for one in (paper_forecast, stored)]
    assert kept[0] - kept[1] == pytest.approx(saved, rel=0.03)  # biases and norms are whole on every rank
    others = paper_forecast.phases.keys() - absent
    assert all(stored.phases[name] == paper_forecast.phases[name] for name in others if name != "update")


def test_traffic_of_zero3(paper_parameters):
    """Trained weights are gathered twice, encoders once; fp32 gradients are scattered; accumulation multiplies."""
    sharding = replace(read_sharding(ZERO3, 2), persistence_threshold=0)
    moved = {name: received.total for name, received in traffic(paper_parameters, 16, 2, sharding, 8).items()}
    trained = sum(p.size for p in paper_parameters if p.trained)
    encoders = sum(p.size for p in paper_parameters if not p.trained and p.part != "diffusion_transformer")
    received = 2 * 15 / 16
    assert moved["all-gather trained, forward"] == moved["all-gather trained, backward"]
    assert moved["all-gather trained, forward"] == pytest.approx(trained * 2 * received)
    assert moved["reduce-scatter gradients"] == pytest.approx(trained * 4 * received)
    once = moved["all-gather frozen, forward"] - moved["all-gather frozen, backward"]
    assert once == pytest.approx(encoders * 2 * received)
    within_a_node = traffic(paper_parameters, 16, 2, replace(sharding, secondary_partition=8), 8)
    assert within_a_node["all-gather trained, backward"].total == pytest.approx(trained * 2 * 2 * 7 / 8)


def test_other_ways_of_sharding(paper_parameters):
    sharding = read_sharding(ZERO3, 2)
    total = sum(p.size for p in paper_parameters)
    trained = sum(p.size for p in paper_parameters if p.trained)

    def shares(**changes):
        return {share.name: share for share in kept_memory(paper_parameters, 16, replace(sharding, **changes))}

    stage2 = shares(stage=2)
    weights = [share.bytes for name, share in stage2.items() if name.startswith("frozen") or name == "trained weights"]
    assert sum(weights) == 2 * total and stage2["moments"].bytes == pytest.approx(8 * trained / 16)
    offloaded = shares(offload_optimizer=True, offload_parameters=True)
    assert {name for name, share in offloaded.items() if not share.on_host} == {
        "persistent parameters",
        "reduce bucket",
    }
    assert shares(secondary_partition=8)["secondary partition"].bytes == 2 * (total // 8)
    small = sum(p.size for p in paper_parameters if p.size <= 100_000)
    assert shares()["persistent parameters"].bytes == 2 * small
    assert "persistent parameters" not in shares(persistence_threshold=0)


def test_a_single_gpu_gathers_what_lies_on_its_host(paper_parameters):
    sharding = read_sharding(ZERO3, 2)
    limit = 2 * (sharding.max_live + sharding.prefetch)
    assert gathered_memory(paper_parameters, 1, sharding) == 0
    assert gathered_memory(paper_parameters, 1, replace(sharding, offload_parameters=True)) == limit


# ---------------------------------------------------------------- against the real step of the tiny models


@pytest.mark.parametrize("checkpointing", [False, True])
def test_flops_equal_those_of_a_real_step(tiny_models, checkpointing):
    """Torch's own counter on the real forward and backward, attention taken apart into products."""
    config = planned_config(tiny_models, checkpointing)
    framework = build_framework(config.model).train()
    before = torch.get_rng_state()
    flops = sample_flops(config, framework)
    assert torch.equal(torch.get_rng_state(), before)
    load = typical_workload(config, framework, 1, text=framework.text)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        framework(planned_batch(load))["loss"].backward()
    assert sum(part.hardware for part in flops.values()) == pytest.approx(counter.get_total_flops(), rel=1e-3)
    repeated = {name: part.hardware - part.model for name, part in flops.items()}
    assert repeated.pop("heads") > 0  # the language head's chunks are always computed again
    assert (sum(repeated.values()) > 0) == checkpointing
    without = sample_flops(planned_config(tiny_models), build_framework(planned_config(tiny_models).model))
    assert sum(part.model for part in flops.values()) == pytest.approx(sum(part.model for part in without.values()))


def test_a_decoder_loss_every_fourth_step_costs_a_quarter(tiny_models):
    config = planned_config(tiny_models)
    rarer = replace(config, model=replace(config.model, loss=LossConfig(dec_every=4)))
    always, seldom = (sample_flops(c, build_framework(c.model)) for c in (config, rarer))
    for part, flops in always.items():
        share = 4 if part in ("diffusion_transformer", "autoencoder", "text_encoder") else 1
        assert seldom[part].hardware == pytest.approx(flops.hardware / share)


DEPTH = 6


def deepened(framework):
    """The framework with six layers in every stack, which share their weights."""
    language_model, decoder = framework.mllm.causal_lm.model, framework.decoder
    stacks = [(decoder.transformer, name) for name in decoder.stacks] if decoder else []
    for module, name in [(language_model, "layers"), *stacks]:
        setattr(module, name, torch.nn.ModuleList([getattr(module, name)[0]] * DEPTH))
    language_model.config.num_hidden_layers = DEPTH
    if getattr(language_model.config, "layer_types", None):
        language_model.config.layer_types = language_model.config.layer_types[:1] * DEPTH
    return framework


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_qwen")
    write_tiny_models(folder, CAPTIONS, mllm="qwen2.5-vl")
    return folder


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["hunyuan", "wan", "wan_experts", "qwen"])
def test_bytes_are_those_of_a_real_step_of_deep_models(tiny_models, tiny_qwen, kind, checkpointing):
    """Peak, and what is alive between forward and backward; the real step's batch is there before it is counted."""
    config = planned_config(tiny_models, checkpointing)
    if kind == "qwen":
        config.model = qwen_config(tiny_qwen)
        config.model.mllm.gradient_checkpointing = checkpointing
    elif kind != "hunyuan":
        expert = "high_noise" if kind == "wan_experts" else None
        decoder = wan_config(tiny_models, kind, expert=expert, gradient_checkpointing=checkpointing).decoder
        config.model = replace(config.model, decoder=decoder)
    framework = deepened(build_framework(config.model).train())
    load = typical_workload(config, framework, 2, text=framework.text)
    batch = planned_batch(load)
    with gradients_dropped(framework), LiveMemory([*framework.parameters(), *framework.buffers()]) as live:
        loss = framework(batch)["loss"]
        kept = live.alive()
        loss.backward()
    step = measure_step(deepened(meta_copy(config.model, "fp32")), load)
    assert step.peak - load.bytes == pytest.approx(live.peak, rel=0.02)
    assert step.kept == pytest.approx(kept, rel=0.03)


def trained_by_default(models) -> int:
    return sum(meta_copy(planned_config(models).model, "fp32").parameter_counts(trained_only=True).values())


SOME = {"language_model.layers.3": 1e-5, "g_phi": 1e-4, "visual_head": 1e-3}


@pytest.mark.slow
@pytest.mark.parametrize(
    "count, checkpointing, parts, shared_by",
    [
        *(pytest.param(count, count != 2, None, 1, marks=pytest.mark.long) for count in (1, 2, 4)),
        (2, True, SOME, 1),
        (2, False, None, 2),
    ],
)
def test_memory_of_a_real_step(ranks, tiny_models, count, checkpointing, parts, shared_by):
    """The engine's own tensors and what autograd saves; EMA is not DeepSpeed's and left out on both sides.

    With only some parts trained, the rest costs no gradient, no master weight and no moment.
    """
    worker, told = REPO / "tests/support/plan_worker.py", json.dumps(parts)
    result = checked(ranks.run(worker, tiny_models, checkpointing, told, shared_by, ranks=count))
    measured = [json.loads(figures) for figures in re.findall(r"MEASURED (\{.*?\})", result.stdout)]
    assert len(measured) == count
    config = planned_config(tiny_models, checkpointing, parts)
    config.train.sequence_parallel = shared_by
    planned = forecast(Scenario(config, ZERO3, Hardware(gpus=count)))
    shares = {share.name: share.bytes for share in planned.kept}
    engine = sum(size for name, size in shares.items() if name not in ("EMA", "reduce bucket"))
    assert sum(rank["masters"] for rank in measured) == pytest.approx(sum(planned.trained.values()), rel=0.01)
    assert (sum(planned.trained.values()) < 0.4 * trained_by_default(tiny_models)) == (parts is not None)
    for rank in measured:
        assert rank["trained"] == sum(planned.trained.values())
        assert rank["bucket"] == shares["reduce bucket"]
        assert engine == pytest.approx(rank["engine"], rel=0.01)
        assert planned.saved == pytest.approx(rank["saved"], rel=0.1)
        assert engine + planned.saved == pytest.approx(rank["engine"] + rank["saved"], rel=0.1)


def test_ranks_that_share_samples_divide_what_the_transformer_takes(tiny_models):
    """The rest stays whole on each rank. A sample has the same FLOPs."""
    config = planned_config(tiny_models)
    alone = forecast(Scenario(config, ZERO3, Hardware(gpus=2)))
    config.train.sequence_parallel = 2
    shared = forecast(Scenario(config, ZERO3, Hardware(gpus=4)))
    assert shared.batch == BatchPlan(4, 4, 2, 1, 2) and shared.flops == alone.flops
    for phase in ("diffusion_transformer", "diffusion_transformer backward"):
        # Of so small a model the text and the noise level, which stay whole, are a large part.
        assert shared.seconds[phase].device < 0.85 * alone.seconds[phase].device
    assert shared.seconds["language_model"] == alone.seconds["language_model"]
    assert shared.saved < alone.saved
    # Per rank and sample: half of the tokens, of width 48, four times in each of two blocks, forward and backward, and
    # half of them from the other rank, in four bytes. A video has 2 s at 8/s, 5 latent frames of 2 x 2 tokens.
    tokens = 5 * 2 * 2
    assert shared.traffic["all-to-all of shared samples"].total == 2 * tokens / 2 * 48 * 4 * 2 * 2 / 2 * 4


@pytest.mark.parametrize("kind", ["wan", "wan_experts"])
def test_ranks_that_share_samples_divide_the_pieces_of_wans_autoencoder(monkeypatch, tiny_models, kind):
    """The plan's bytes of frames are those that the step exchanges."""
    config = planned_config(tiny_models)
    expert = "high_noise" if kind == "wan_experts" else None
    config.model = replace(config.model, decoder=wan_config(tiny_models, kind, expert=expert).decoder)
    alone = forecast(Scenario(config, ZERO3, Hardware(gpus=2)))
    moved, from_rank_before = [], SequenceGroup.from_rank_before

    def counted(sequence, own):
        moved.append(own.nbytes)
        return from_rank_before(sequence, own)

    monkeypatch.setattr(SequenceGroup, "from_rank_before", counted)
    config.train.sequence_parallel = 2
    shared = forecast(Scenario(config, ZERO3, Hardware(gpus=4)))
    # 17 frames: the first, and four pieces, of which a rank runs two.
    assert shared.seconds["autoencoder"].device < 0.75 * alone.seconds["autoencoder"].device
    assert shared.traffic["frames of shared videos"] == Received(sum(moved), 0, NOTHING)
    stored = forecast(Scenario(config, ZERO3, Hardware(gpus=4), stored=["latents"]))
    assert "frames of shared videos" not in stored.traffic and "all-to-all of shared samples" in stored.traffic


# ---------------------------------------------------------------- advice


@pytest.fixture
def tiny(tiny_models, tmp_path):
    """One GPU, with a reduce bucket that does not dwarf the tiny models."""
    (tmp_path / "zero3.json").write_text('{"zero_optimization": {"stage": 3, "reduce_bucket_size": 100000}}')
    return Scenario(planned_config(tiny_models), tmp_path / "zero3.json", Hardware(gpus=1, reserve=0))


def test_every_suggestion_fits_when_planned_again(tiny):
    needed = forecast(tiny)
    tight = replace(tiny, hardware=replace(tiny.hardware, gpu_memory=0.97 * needed.gpu_bytes / 1e9))
    assert needed.fits and not forecast(tight).fits
    found = suggestions(tight)
    options = [suggestion.options for suggestion in found]
    assert "--train.micro_batch_size 1" in options
    assert "--model.decoder.loss_latent_frames 2" in options
    for suggestion in found:
        assert suggestion.forecast.fits and suggestion.forecast.gpu_bytes < needed.gpu_bytes


@pytest.mark.slow
def test_changes_are_combined_where_none_is_enough(tiny):
    least = min(suggestion.forecast.gpu_bytes for suggestion in suggestions(tight_by(tiny, 0.999)))
    (together,) = suggestions(replace(tiny, hardware=replace(tiny.hardware, gpu_memory=(least - 1e5) / 1e9)))
    assert together.options.count("--") > 1 and together.forecast.fits


@pytest.mark.slow
def test_nothing_is_suggested_where_nothing_helps(tiny):
    assert suggestions(tight_by(tiny, 0.01)) == []


def tight_by(scenario, share):
    """The scenario on GPUs with that share of the memory it needs."""
    memory = share * forecast(scenario).gpu_bytes / 1e9
    return replace(scenario, hardware=replace(scenario.hardware, gpu_memory=memory))


# ---------------------------------------------------------------- the command


def run_plan(capsys, *arguments):
    plan.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_table_and_json_say_the_same(capsys, tiny_models, tmp_path):
    save_config(planned_config(tiny_models), tmp_path / "config.yaml")
    arguments = ("--config", tmp_path / "config.yaml", "--gpus", 2, "--gpu-memory", 80)
    table = run_plan(capsys, *arguments)
    figures = json.loads(run_plan(capsys, *arguments, "--json"))
    total = f"{figures['gpu_memory']['total'] / 1e9:.2f} GB"
    assert any(total in line and "fits in 80 GB" in line for line in table.splitlines())
    assert figures["gpu_memory"]["fits"] and figures["suggestions"] == [] and figures["notes"] == []
    memory = figures["gpu_memory"]
    assert memory["total"] == sum(memory["kept"].values()) + max(memory["phases"].values()) + memory["reserve"]
    assert figures["batch"] == dict(
        global_batch_size=4, ranks=2, micro_batch_size=2, accumulation=1, sequence_parallel=1
    )
    for part in ("language_model", "diffusion_transformer", "autoencoder"):
        assert part in table
    assert "rates (assumed)" in table and figures["rates"] == {**vars(Rates())}
    host = figures["host_memory"]
    assert host["total_per_node"] == 2 * sum(host["of_a_rank"].values()) and host["fits"]
    assert f"{host['total_per_node'] / 1e9:.2f} GB" in table


def test_time_follows_from_the_rates_of_a_card(capsys, tiny_models, tmp_path, monkeypatch):
    """Those that were measured take the place of the assumed ones."""
    save_config(planned_config(tiny_models), tmp_path / "config.yaml")
    monkeypatch.setattr(plan, "rates_of", partial(rates_of, folder=tmp_path))
    stored = {"card": "Test GPU", "rates": {"linear": 1e9, "host_seconds": 1e-3}}
    card_file("Test GPU", tmp_path).write_text(json.dumps(stored))
    assert cards(tmp_path) == ["assumed", "test_gpu"]
    arguments = ("--config", tmp_path / "config.yaml", "--card", "test_gpu")
    table = run_plan(capsys, *arguments)
    figures = json.loads(run_plan(capsys, *arguments, "--json"))
    assert "rates (measured on Test GPU)" in table
    assert figures["rates"]["linear"] == 1e9 and figures["rates"]["attention"] == Rates().attention
    for seconds in figures["seconds_per_micro_step"].values():
        assert seconds["host"] < 1e-3
    assert figures["step_seconds"] > sum(flops["hardware"] for flops in figures["flops_per_sample"].values()) / 2e9


def test_a_tiled_autoencoder_is_told(paper, paper_forecast):
    assert not paper_forecast.tiled and report.notes_on(paper, paper_forecast) == []
    (note,) = report.notes_on(paper, replace(paper_forecast, tiled=True))
    assert "320 x 576 in tiles" in note


@pytest.mark.parametrize("gpus, smallest", [(8, 8), (3, 6)])
def test_data_parallelism_ends_at_the_global_batch(capsys, tiny_models, tmp_path, gpus, smallest):
    save_config(planned_config(tiny_models), tmp_path / "config.yaml")
    arguments = ("--config", tmp_path / "config.yaml", "--gpus", gpus)
    figures = json.loads(run_plan(capsys, *arguments, "--json"))
    note, advice = figures["notes"]
    assert "data parallelism ends at the global batch" in note and f"the smallest that can is {smallest}," in note
    assert figures["batch"]["global_batch_size"] == smallest
    assert figures["steps"] == -(-10 * 4 // smallest)
    assert ("--train.sequence_parallel 2 keeps 4" if gpus == 8 else "--gpus 2 --train.sequence_parallel 1") in advice
    table = run_plan(capsys, *arguments)
    assert note in table and advice in table


def test_a_run_s_folder_with_tiny_models_can_be_planned(capsys, tiny_models, tmp_path):
    """A run names its tiny models relative to its folder."""
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    (tmp_path / "models").symlink_to(tiny_models)
    config.model.mllm.weights, config.model.decoder.weights = "models/llava", "models/hunyuan"
    config.model.tokeniser.weights = "models/clip"
    save_config(config, tmp_path / "config.yaml")
    figures = json.loads(run_plan(capsys, "--config", tmp_path / "config.yaml", "--json"))
    assert {part["part"] for part in figures["parameters"]} >= {"language_model", "diffusion_transformer"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config", "none.yaml"], "none.yaml"),
        (["--config", PRESETS / "tiny.yaml"], "written when a run starts"),
        (["--config", PAPER, "--gpus", "0"], "--gpus must be positive"),
        (["--config", PAPER, "--card", "abacus"], "--card abacus: no rates were measured on it: choose one of assumed"),
        (["--config", PAPER, "--ds_config", "none.json"], "none.json"),
        (["--config", PAPER, "--train.max_step", "3"], "did you mean --train.max_steps"),
    ],
)
def test_what_the_user_can_mend_is_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        run_plan(capsys, *arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1


def test_an_automatic_second_copy_is_shared_by_the_ranks_of_a_node(paper_parameters):
    sharding = read_sharding(ZERO3.with_name("zero3_hpz.json"), 2, ranks_per_node=8)
    (copy,) = [share for share in kept_memory(paper_parameters, 16, sharding) if share.name == "secondary partition"]
    assert copy.bytes == 2 * sum(p.size for p in paper_parameters) // 8


def test_a_stage_that_is_not_planned_is_refused(tmp_path):
    (tmp_path / "zero1.json").write_text('{"zero_optimization": {"stage": 1}}')
    with pytest.raises(ConfigError, match="stage 1 cannot be planned"):
        read_sharding(tmp_path / "zero1.json", 2)


# ---------------------------------------------------------------- data


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """(shards of six clips of 2 s, two of 0.5 s and a text; a run's configuration)."""
    folder = tmp_path_factory.mktemp("mix")
    rows = []
    for name, clips, frames in (("long", 6, 16), ("short", 2, 4)):
        render_clips(folder / name, clips, seed=frames, frames=frames, fps=8)
        rows += [{"path": f"{name}/{n:03d}.mp4", "caption": "A clip."} for n in range(clips)]
    rows.append({"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hi."}]})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    build_shards(folder, folder / "out", progress=False)
    return folder / "out"


@pytest.mark.parametrize(
    "buckets", [*(pytest.param(one, marks=pytest.mark.slow) for one in (None, ["32x32x2", "64x64x0.5"])), "auto"]
)
def test_a_plan_says_what_the_mix_of_the_data_costs(mixed, tiny_models, tmp_path, capsys, buckets):
    config = planned_config(tiny_models)
    config.data.shards, config.data.buckets = str(mixed), buckets
    save_config(config, tmp_path / "config.yaml")
    plan.main(["--config", str(tmp_path / "config.yaml"), "--gpus", "1", "--json"])
    planned = json.loads(capsys.readouterr().out)
    mix = planned["mix"]
    assert [kind["samples"] for kind in mix["kinds"]][-1] == 1 and mix["samples"] == 9
    assert sorted(kind["samples"] for kind in mix["kinds"]) == [1, 2, 6]
    costs = [kind["samples"] * kind["flops"] for kind in mix["kinds"]]
    assert mix["flops_per_sample"] == pytest.approx(sum(costs) / 9)
    assert (
        min(kind["flops"] for kind in mix["kinds"][:-1])
        < mix["flops_per_sample"]
        < max(kind["flops"] for kind in mix["kinds"])
    )
    assert mix["run_days"] == pytest.approx(10 * mix["step_seconds"] / 86400)
    assert any("need more memory: 64x64x0.5" in note for note in planned["notes"]) == (
        buckets == ["32x32x2", "64x64x0.5"]
    )
    plan.main(["--config", str(tmp_path / "config.yaml"), "--gpus", "1"])
    assert "the data's mix: share of 9 samples" in capsys.readouterr().out
