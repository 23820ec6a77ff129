"""Suggests settings that make a run fit. Each suggestion is planned; only those that fit are returned."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.video.views import decoder_view
from pipelines.planning.forecast import Forecast, Scenario, forecast

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
KINDS = (checkpoint_activations, smaller_micro_batch, more_gpus, offload, shorter_video, smaller_video)


def with_setting(scenario: Scenario, key: str, value: bool | int) -> Change:
    """Changes one setting of a scenario's configuration, by its dotted name."""
    return Change(
        f"--{key} {str(value).lower()}", replace(scenario, config=replaced(scenario.config, key.split("."), value))
    )


def replaced(section: Any, names: list[str], value: Any) -> Any:
    """Returns a configuration dataclass with the entry at a path of names replaced."""
    first, *rest = names
    return replace(section, **{first: replaced(getattr(section, first), rest, value) if rest else value})
