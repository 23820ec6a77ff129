"""Prints a plan, as text or as JSON."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from pipelines.cli.stages import stages_of
from pipelines.config import RunConfig
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.models import TINY_MODELS, inside_run, quiet_libraries
from pipelines.engine.outputs import find_shards, open_shards
from pipelines.metering.kinds import FLOP_KINDS, MEMORY
from pipelines.planning.advice import Suggestion, replaced, suggestions, use_of_gpus
from pipelines.planning.forecast import Forecast, Scenario, forecast
from pipelines.planning.hardware import Hardware
from pipelines.planning.mix import Mix, mix_of
from pipelines.planning.network import NOTHING, Received
from pipelines.planning.rates import ASSUMED, Rates
from pipelines.planning.scaling import as_figures, draw, scaling, table
from pipelines.planning.time import Seconds
from vtok.config import require


def print_plan(arguments: argparse.Namespace, config: RunConfig) -> None:
    """Runs the command ``plan.py``.

    Args:
        arguments: Options of ``plan.py``, without those of the run.
        config: The run's configuration.

    Raises:
        ConfigError: Weights cannot be read, or no run has written its tiny models yet.
    """
    if arguments.scaling:
        print_scaling(arguments, config)
        return
    if config.stages:
        plans = {stage.folder: plan_of(arguments, stage.config) for stage in stages_of(config)}
        shown = stages_as_json(plans) if arguments.json else stages_report(plans)
    else:
        plan = plan_of(arguments, config)
        shown = as_json(*plan) if arguments.json else report(*plan)
    print(json.dumps(shown) if arguments.json else "\n".join(shown))


def print_scaling(arguments: argparse.Namespace, config: RunConfig) -> None:
    """Runs ``plan.py --scaling``. Arguments and errors as in :func:`print_plan`."""
    ways = scaling(scenario_of(arguments, config))
    if arguments.json:
        print(json.dumps(as_figures(ways)))
    else:
        print("\n".join(table(ways, arguments.price if arguments.priced else None)))
        print(
            f"\nAll of it is estimated. Assumed: {arguments.nvlink:g} GB/s between GPUs of a node of "
            f"{arguments.gpus_per_node}, {arguments.infiniband:g} GB/s for each GPU between nodes, no latency, and "
            f"the {'rates of ' + arguments.rates.card if arguments.rates.card != ASSUMED else 'assumed rates'} of "
            "computation. Gathers and the reduction of gradients hide behind computation; the exchange of GPUs that "
            "share a sample does not. GPU-hours include idle GPUs. Efficiency compares GPU-hours with the first row."
        )
    if arguments.picture:
        draw(ways, config.train.global_batch_size, arguments.picture)


class Plan(NamedTuple):
    """A plan: the needs, what would make a run fit that does not, notes, and the data's mix if there are data."""

    planned: Forecast
    remedies: list[Suggestion]
    notes: list[str]
    mix: Mix | None = None


def plan_of(arguments: argparse.Namespace, config: RunConfig) -> Plan:
    """Plans a run without stages. Arguments and errors as in :func:`print_plan`."""
    scenario = scenario_of(arguments, config)
    planned, mix = forecast(scenario), None
    notes = notes_on(scenario, planned)
    if (config.data.shards or config.data.mixture) and config.model.generates:
        mix = mix_of(scenario, open_shards(config, find_shards(config, Path())))
        if mix.over:
            notes.append(
                f"buckets with more tokens than {mix.whole.name}, which is planned here, need more memory: "
                f"{', '.join(mix.over)}; plan the largest (model.decoder.loss_height, loss_width, data.seconds)"
            )
    return Plan(planned, [] if planned.fits else suggestions(scenario), notes, mix)


def stages_as_json(plans: dict[str, Plan]) -> dict[str, object]:
    """Returns the figures of all stages, and their sums. Sums are ``None`` if the length of a stage is in epochs."""
    days, cost = totals(plans)
    fits = all(plan.planned.fits for plan in plans.values())
    return {"stages": {name: as_json(*plan) for name, plan in plans.items()}, "fits": fits} | dict(
        run_days=days, run_cost=cost
    )


def stages_report(plans: dict[str, Plan]) -> list[str]:
    """Returns the lines of all stages' reports, and of their sums."""
    lines = []
    for name, plan in plans.items():
        lines += [f"==== {name}", *report(*plan), ""]
    lines += ["==== all stages"]
    for name, (planned, *_) in plans.items():
        verdict = "fits" if planned.fits else "DOES NOT FIT"
        lines += [row(name, planned.gpu_bytes / 1e9, "GB", verdict)]
        lines += [row(f"  {planned.steps:,} steps", planned.run_days, "days")] if planned.steps else []
    days, cost = totals(plans)
    return lines + ([row("total", days, "days"), row("cost", cost, "$")] if days is not None else [])


def totals(plans: dict[str, Plan]) -> tuple[float, float] | tuple[None, None]:
    """Returns days and cost of all stages, or ``None`` for both if the length of a stage is in epochs."""
    forecasts = [plan.planned for plan in plans.values()]
    if not all(planned.steps for planned in forecasts):
        return None, None
    return sum(planned.run_days for planned in forecasts), sum(planned.run_cost for planned in forecasts)


def scenario_of(arguments: argparse.Namespace, config: RunConfig) -> Scenario:
    """Builds the scenario that the command line asks for. Arguments and errors as in :func:`print_plan`."""
    if config.tiny_models:
        run = Path(arguments.config).parent
        require(
            (run / TINY_MODELS).is_dir(),
            "the tiny models are written when a run starts: plan the config.yaml in such a run's folder",
        )
        config.model = inside_run(config.model, run)
    quiet_libraries()
    hardware = Hardware(**{name: getattr(arguments, name) for name in vars(Hardware())})
    return Scenario(config, arguments.ds_config, hardware, arguments.caption_tokens, arguments.rates, arguments.stored)


def notes_on(scenario: Scenario, planned: Forecast) -> list[str]:
    """Returns notes for the user on the batch, on the autoencoder and on adapters of the decoder."""
    config = scenario.config
    notes, wanted, batch = [], config.train.global_batch_size, planned.batch
    if batch.global_batch_size != wanted:
        notes.append(
            f"data parallelism ends at the global batch: train.global_batch_size {wanted} cannot be divided among "
            f"{gpus_of(batch)}; the smallest that can is {batch.global_batch_size}, which is planned here, with as "
            "many samples in the run"
        )
        notes.append(use_of_gpus(scenario))
    if planned.tiled:
        height, width = config.model.decoder.loss_size
        notes.append(f"the autoencoder takes frames of {height} x {width} in tiles: less memory, more FLOPs")
    if config.model.decoder.lora:
        without = forecast(replace(scenario, config=replaced(config, ["model", "decoder", "lora"], None)))
        memory, seconds = planned.gpu_bytes - without.gpu_bytes, planned.step_seconds - without.step_seconds
        notes.append(f"decoder.lora adds {memory / 1e9:.2f} GB per GPU and {seconds:.2f} s to a step")
    return notes


def as_json(
    planned: Forecast, remedies: list[Suggestion], notes: list[str], mix: Mix | None = None
) -> dict[str, object]:
    """Returns every figure of the report, in bytes and FLOPs."""
    return {
        "parameters": [
            dict(part=part, parameters=n, trained=planned.trained[part]) for part, n in planned.parameters.items()
        ],
        "hardware": asdict(planned.hardware),
        "batch": planned.batch._asdict(),
        "gpu_memory": {
            "kept": {share.name: share.bytes for share in planned.kept if not share.on_host},
            "saved_for_backward": planned.saved,
            "phases": planned.phases,
            "reserve": round(planned.hardware.reserve * 1e9),
            "total": planned.gpu_bytes,
            "fits": planned.fits,
        },
        "host_memory": {
            "of_a_rank": {share.name: share.bytes for share in planned.host_shares},
            "ranks_per_node": planned.hardware.ranks_per_node,
            "total_per_node": planned.host_bytes,
            "fits": planned.fits_host,
        },
        "flops_per_sample": {part: flops._asdict() for part, flops in planned.flops.items()},
        "traffic_per_step": {purpose: received._asdict() for purpose, received in planned.traffic.items()},
        "waiting_for_network_seconds": planned.waiting,
        "rates": asdict(planned.rates),
        "seconds_per_micro_step": {phase: seconds._asdict() for phase, seconds in planned.seconds.items()},
        "steps": planned.steps,
        "step_seconds": planned.step_seconds,
        "run_days": planned.run_days,
        "run_cost": planned.run_cost,
        "mix": mix and mix_as_json(planned, mix),
        "notes": notes,
        "suggestions": [dict(options=s.options, gpu_memory=s.forecast.gpu_bytes) for s in remedies],
    }


def mix_as_json(planned: Forecast, mix: Mix) -> dict[str, object]:
    """Returns the figures of the data's mix."""
    step, days = mix_time(planned, mix)
    figures = dict(samples=mix.samples, flops_per_sample=mix.flops, step_seconds=step, run_days=days)
    return figures | {"kinds": [asdict(kind) for kind in mix.kinds]}


def mix_time(planned: Forecast, mix: Mix) -> tuple[float, float | None]:
    """Returns the seconds of a mean step on the data, and the days of the run if its steps are known."""
    step = planned.batch.accumulation * planned.batch.micro_batch_size * mix.seconds
    return step, planned.steps and planned.steps * step / 86400


def mix_report(planned: Forecast, mix: Mix) -> list[str]:
    """Returns the lines on the data's mix."""
    step, days = mix_time(planned, mix)
    lines = ["", f"the data's mix: share of {mix.samples:,} samples, and what each takes alone in a micro-step"]
    lines += [
        row(
            kind.name, 100 * kind.samples / mix.samples, "%",
            f"{kind.tokens:10,} latent tokens {kind.flops / 1e12:12,.2f} TFLOP {kind.seconds:8.2f} s",
        )
        for kind in mix.kinds
    ]  # fmt: skip
    lines += [
        row("mean", mix.flops / 1e12, "TFLOP", f"{mix.flops / mix.whole.flops:.0%} of a clip of {mix.whole.name}")
    ]
    lines += [row("step", step, "s", "mean, with ranks of equal load, without waiting for the network")]
    return lines + ([row(f"run of {planned.steps:,} steps", days, "days")] if days is not None else [])


def report(planned: Forecast, remedies: list[Suggestion], notes: list[str], mix: Mix | None = None) -> list[str]:
    """Returns the lines of the report: one table after another."""
    hardware, batch = planned.hardware, planned.batch
    lines = [f"note: {note}" for note in notes]
    lines += ["parameters"]
    lines += [
        row(part, n / 1e9, "B", trained_share(planned.trained[part], n)) for part, n in planned.parameters.items()
    ]

    lines += ["", f"memory of each of {hardware.gpus} GPUs"]
    lines += [row(share.name, share.bytes / 1e9, "GB") for share in planned.kept if not share.on_host]
    lines += ["  and the largest of these: activations, gathered weights and gradients at the peak of each phase"]
    largest = max(planned.phases, key=planned.phases.get)
    lines += [row(name, n / 1e9, "GB", "largest" if name == largest else "") for name, n in planned.phases.items()]
    lines += [row("reserve", hardware.reserve, "GB", "assumed")]
    verdict = "fits" if planned.fits else "DOES NOT FIT"
    lines += [row("total", planned.gpu_bytes / 1e9, "GB", f"{verdict} in {hardware.gpu_memory:g} GB")]

    lines += ["", "host memory of each rank"]
    lines += [row(share.name, share.bytes / 1e9, "GB") for share in planned.host_shares]
    verdict = f"{'fits' if planned.fits_host else 'DOES NOT FIT'} in {hardware.node_memory:g} GB"
    lines += [row(f"total of a node's {hardware.ranks_per_node}", planned.host_bytes / 1e9, "GB", verdict)]

    lines += ["", "FLOPs of a sample (model: forward and backward; hardware: with what checkpointing repeats)"]
    lines += [
        row(part, flops.model / 1e12, "TFLOP", f"hardware {flops.hardware / 1e12:10,.2f}")
        for part, flops in planned.flops.items()
    ]
    model, executed = (sum(column) for column in zip(*planned.flops.values()))
    lines += [row("total", model / 1e12, "TFLOP", f"hardware {executed / 1e12:10,.2f}")]

    lines += ["", "received by a GPU in a step"]
    lines += [row(purpose, n.total / 1e9, "GB", links(n)) for purpose, n in planned.traffic.items()]
    received = sum(n.total for n in planned.traffic.values())
    lines += [row("total", received / 1e9, "GB", f"{received / planned.step_seconds / 1e9:.1f} GB/s over a step")]
    lines += [row("NVLink", hardware.nvlink, "GB/s", "assumed, within a node")]
    lines += [row("InfiniBand", hardware.infiniband, "GB/s", "assumed, between nodes; latency is not counted")]

    lines += ["", *rates_report(planned.rates), "", "time of a micro-step, without waiting for the network"]
    lines += [row(phase, seconds.total, "s", bound(seconds)) for phase, seconds in planned.seconds.items()]
    lines += [row("total", sum(seconds.total for seconds in planned.seconds.values()), "s")]

    lines += ["", f"a step, and cost at {hardware.price:g} $ a GPU-hour"]
    lines += [
        f"  global batch {batch.global_batch_size} = {gpus_of(batch)} x {batch.micro_batch_size} x "
        f"{batch.accumulation} accumulated"
    ]
    lines += [row("step", planned.step_seconds, "s", f"{planned.waiting:.2f} s of it wait for the network")]
    if planned.steps:
        lines += [row(f"run of {planned.steps:,} steps", planned.run_days, "days"), row("cost", planned.run_cost, "$")]

    lines += mix_report(planned, mix) if mix else []
    if not planned.fits:
        lines += ["", "what would make it fit" if remedies else "nothing known here would make it fit"]
        lines += [f"  {s.options}   {s.forecast.gpu_bytes / 1e9:.1f} GB" for s in remedies]
    return lines


def links(received: Received) -> str:
    """Says how much of some traffic comes from other nodes, and what hides the traffic."""
    hidden = "waited for" if received.behind == NOTHING else f"hidden behind the {received.behind}"
    return f"{received.between / 1e9:10,.2f} GB from other nodes; {hidden}"


def gpus_of(batch: BatchPlan) -> str:
    """Says among how many GPUs, or groups of GPUs that share a sample, a batch is divided."""
    shared_by = batch.sequence_parallel
    return f"{batch.ranks} GPUs" if shared_by == 1 else f"{batch.data_ranks} groups of {shared_by} GPUs"


def trained_share(trained: int, parameters: int) -> str:
    """Says how many of a part's parameters train."""
    if trained in (0, parameters):
        return "trained" if trained else "frozen"
    return f"{trained / 1e9:,.3f} B of them trained"


def rates_report(rates: Rates) -> list[str]:
    """Returns the lines on the rates and their origin."""
    origin = "assumed" if rates.card == ASSUMED else f"measured on {rates.card}"
    kinds = {name: value / 1e12 for name, value in asdict(rates).items() if name in (*FLOP_KINDS, MEMORY)}
    lines = [row(name, value, "TB/s" if name == MEMORY else "TFLOP/s") for name, value in kinds.items()]
    host = row("host", rates.host_seconds, "s", f"to start {rates.host_operators:,} operators")
    return [f"rates ({origin})", *lines, host]


def bound(seconds: Seconds) -> str:
    """Says so if the device waits for the host."""
    return f"host-bound: the device takes {seconds.device:.2f} s" if seconds.host > seconds.device else ""


def row(name: str, value: float, unit: str, remark: str = "") -> str:
    return f"  {name:32}{value:14,.2f} {unit:6} {remark}".rstrip()
