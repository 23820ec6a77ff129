"""Which setting would make a run fit: each suggestion is planned again, and only what fits is told."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.planning.forecast import Forecast, Scenario, forecast

OFFLOAD = Path(__file__).parents[2] / "deepspeed_configs" / "zero3_offload.json"


class Suggestion(NamedTuple):
    """Options of the command line, and what the run amounts to with them."""

    options: str
    forecast: Forecast


class Change(NamedTuple):
    """Options of the command line, and the scenario with them."""

    options: str
    scenario: Scenario


def suggestions(scenario: Scenario) -> list[Suggestion]:
    """Changes that each make the scenario fit, the least costly first; failing that, the shortest run of them together.

    Empty if nothing known helps.
    """
    planned = [Suggestion(change.options, forecast(change.scenario)) for change in changes(scenario)]
    if alone := [suggestion for suggestion in planned if suggestion.forecast.fits]:
        return alone
    return together(scenario)


def together(scenario: Scenario) -> list[Suggestion]:
    """Changes one on top of the other, each that lowers the need, until it fits."""
    options, now = [], forecast(scenario)
    for kind in KINDS:
        for change in kind(scenario):
            after = forecast(change.scenario)
            if after.gpu_bytes < now.gpu_bytes:
                best, now, scenario = change.options, after, change.scenario
                options.append(best)
                break
        if now.fits:
            return [Suggestion(" ".join(options), now)]
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
    """Twice as many, up to one sample a GPU."""
    gpus = 2 * scenario.hardware.gpus
    while gpus <= scenario.config.train.global_batch_size:
        yield Change(f"--gpus {gpus}", replace(scenario, hardware=replace(scenario.hardware, gpus=gpus)))
        gpus *= 2


def offload(scenario: Scenario) -> Iterator[Change]:
    if scenario.ds_config.name != OFFLOAD.name and OFFLOAD.exists():
        options = f"--ds_config {OFFLOAD.parent.name}/{OFFLOAD.name}"
        yield Change(options, replace(scenario, ds_config=OFFLOAD))


def smaller_video(scenario: Scenario) -> Iterator[Change]:
    """Half the area, then half the frames per second, of what the decoder's loss sees."""
    decoder = scenario.config.model.decoder
    height, width = (max(16, round(side * 0.7 / 16) * 16) for side in (decoder.height, decoder.width))
    smaller = with_setting(scenario, "model.decoder.height", height)
    smaller = with_setting(smaller.scenario, "model.decoder.width", width, smaller.options)
    yield smaller
    yield with_setting(scenario, "model.decoder.fps", decoder.fps / 2)


# From what costs least to what changes most.
KINDS = (checkpoint_activations, smaller_micro_batch, more_gpus, offload, smaller_video)


def with_setting(scenario: Scenario, key: str, value: Any, options: str = "") -> Change:
    """The scenario with one more setting of its configuration changed, by dotted name."""
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}"
    config = replaced(scenario.config, key.split("."), value)
    return Change(f"{options} --{key} {shown}".strip(), replace(scenario, config=config))


def replaced(section: Any, names: list[str], value: Any) -> Any:
    """A configuration dataclass with the entry at a path of names changed."""
    first, *rest = names
    return replace(section, **{first: replaced(getattr(section, first), rest, value) if rest else value})
