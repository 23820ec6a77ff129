"""Suggests settings that make a run fit. Each suggestion is planned; only those that fit are returned."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.video.views import decoder_view
from pipelines.engine.batch_plan import smallest_valid_batch
from pipelines.planning.forecast import Forecast, Scenario, forecast, sharing_choices

OFFLOAD = Path(__file__).parents[2] / "deepspeed_configs" / "zero3_offload.json"


class Suggestion(NamedTuple):
    """Options of the command line, and the forecast with them."""

    options: str
    forecast: Forecast


class Change(NamedTuple):
    """Options of the command line, and the scenario with them."""

    options: str
    scenario: Scenario


def suggestions(scenario: Scenario) -> list[Suggestion]:
    """Returns single changes that make the scenario fit, the least costly first.

    If no single change does, returns one suggestion of several changes; if that fails too, nothing.
    """
    planned = [Suggestion(change.options, forecast(change.scenario)) for change in changes(scenario)]
    if alone := [suggestion for suggestion in planned if suggestion.forecast.fits]:
        return alone
    return together(scenario)


def together(scenario: Scenario) -> list[Suggestion]:
    """Greedily applies the best change of each kind until the scenario fits. Returns one suggestion or none."""
    options: dict[str, str] = {}  # by first word, so a setting that changes twice is listed once
    now = forecast(scenario)
    for kind in KINDS:
        while planned := [(forecast(change.scenario), change) for change in kind(scenario)]:
            after, change = min(planned, key=lambda pair: pair[0].gpu_bytes)
            if after.gpu_bytes >= now.gpu_bytes:
                break
            now, scenario = after, change.scenario
            options[change.options.split()[0]] = change.options
            if now.fits:
                return [Suggestion(" ".join(options.values()), now)]
    return []


def changes(scenario: Scenario) -> Iterator[Change]:
    for kind in KINDS:
        yield from kind(scenario)


def checkpoint_activations(scenario: Scenario) -> Iterator[Change]:
    for section in ("decoder", "mllm"):
        if not getattr(scenario.config.model, section).gradient_checkpointing:
            yield with_setting(scenario, f"model.{section}.gradient_checkpointing", True)


def smaller_micro_batch(scenario: Scenario) -> Iterator[Change]:
    size = scenario.config.train.micro_batch_size
    while size > 1:
        size //= 2
        yield with_setting(scenario, "train.micro_batch_size", size)


def share_samples(scenario: Scenario) -> Iterator[Change]:
    """Lets more GPUs share each sample, if the GPUs and the global batch can be divided so."""
    train, gpus = scenario.config.train, scenario.hardware.gpus
    for n in sharing_choices(scenario.config):
        if n > train.sequence_parallel and gpus % n == 0 and train.global_batch_size % (gpus // n) == 0:
            yield with_setting(scenario, "train.sequence_parallel", n)


def more_gpus(scenario: Scenario) -> Iterator[Change]:
    """Doubles the GPUs, up to one per sample, or as many as share one."""
    gpus, train = 2 * scenario.hardware.gpus, scenario.config.train
    while gpus <= train.global_batch_size * train.sequence_parallel:
        yield Change(f"--gpus {gpus}", replace(scenario, hardware=replace(scenario.hardware, gpus=gpus)))
        gpus *= 2


def offload(scenario: Scenario) -> Iterator[Change]:
    if scenario.ds_config.name != OFFLOAD.name:
        options = f"--ds_config {OFFLOAD.parent.name}/{OFFLOAD.name}"
        yield Change(options, replace(scenario, ds_config=OFFLOAD))


def shorter_video(scenario: Scenario) -> Iterator[Change]:
    """Halves the latent frames in L_dec."""
    config = scenario.config
    decoder = config.model.decoder
    frames = decoder.loss_latent_frames or decoder_view(config.data.seconds, decoder.fps, 16, 16).num_frames // 4 + 1
    if frames > 1:
        yield with_setting(scenario, "model.decoder.loss_latent_frames", frames // 2)


def smaller_video(scenario: Scenario) -> Iterator[Change]:
    """Halves the area in L_dec."""
    height, width = scenario.config.model.decoder.loss_size
    unit = 32 if scenario.config.model.decoder.kind == "wan" else 16  # TI2V-5B needs 32, which suits the others
    if min(height, width) > unit:
        shorter, narrower = (max(unit, round(side * 0.7 / unit) * unit) for side in (height, width))
        options = f"--model.decoder.loss_height {shorter} --model.decoder.loss_width {narrower}"
        decoder = replace(scenario.config.model.decoder, loss_height=shorter, loss_width=narrower)
        model = replace(scenario.config.model, decoder=decoder)
        yield Change(options, replace(scenario, config=replace(scenario.config, model=model)))


# From the least costly change to the largest.
KINDS = (checkpoint_activations, smaller_micro_batch, share_samples, more_gpus, offload, shorter_video, smaller_video)


def divisions(batch: int, choices: list[int], gpus: int, per_node: int) -> list[tuple[int, int]]:
    """Lists the ways to divide a global batch evenly among at most so many GPUs, on whole nodes if on several.

    Args:
        batch: The global batch.
        choices: Numbers of GPUs that can share a sample.
        gpus: GPUs at hand.
        per_node: GPUs of a node.

    Returns:
        (number of groups, GPUs that share a sample) of each way.
    """
    groups = [n for n in range(1, batch + 1) if batch % n == 0]
    found = [(of, n) for of in groups for n in choices if of * n <= gpus]
    return [(of, n) for of, n in found if of * n % min(of * n, per_node) == 0]


def largest_sharing(choices: list[int], gpus: int) -> int:
    """Returns the largest number of GPUs that can share a sample if all GPUs are used. The batch grows least so."""
    return max(n for n in choices if gpus % n == 0)


def use_of_gpus(scenario: Scenario) -> str:
    """Says what GPUs could do among which the global batch cannot be divided, in one line."""
    wanted, hardware = scenario.config.train.global_batch_size, scenario.hardware
    gpus, choices = hardware.gpus, sharing_choices(scenario.config)
    possible = divisions(wanted, choices, gpus, hardware.gpus_per_node)
    groups, n = max(possible, key=lambda way: (way[0] * way[1], way[0]))
    if groups * n == gpus:
        return f"--train.sequence_parallel {n} keeps {wanted}: every {n} GPUs share their samples"
    most = largest_sharing(choices, gpus)
    larger = smallest_valid_batch(wanted, gpus // most)
    return (
        f"no train.sequence_parallel keeps {wanted} on {gpus} GPUs: {most} is the largest that divides them and the "
        f"attention heads (--train.sequence_parallel {most} --train.global_batch_size {larger}); fewer GPUs keep it "
        f"(--gpus {groups * n} --train.sequence_parallel {n}, {gpus - groups * n} idle); `--scaling` compares"
    )


def with_setting(scenario: Scenario, key: str, value: bool | int) -> Change:
    """Changes one setting of a scenario's configuration, by its dotted name."""
    return Change(
        f"--{key} {str(value).lower()}", replace(scenario, config=replaced(scenario.config, key.split("."), value))
    )


def replaced(section: Any, names: list[str], value: Any) -> Any:
    """Returns a configuration dataclass with the entry at a path of names replaced."""
    first, *rest = names
    return replace(section, **{first: replaced(getattr(section, first), rest, value) if rest else value})
