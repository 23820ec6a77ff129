"""Plans one run on 8 to 1,024 GPUs: the time, the cost and the efficiency of the best division of each number.

Each row is a :func:`pipelines.planning.forecast.forecast`. With more GPUs than ranks can share the global batch, there
are two rows: one keeps the batch and leaves GPUs idle, one enlarges the batch as little as possible.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from pipelines.engine.batch_plan import smallest_valid_batch
from pipelines.planning.advice import divisions, largest_sharing, replaced
from pipelines.planning.forecast import Forecast, Scenario, forecast, sharing_choices

COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024)


class Way(NamedTuple):
    """One way to use a number of GPUs. ``planned`` is ``None`` if the run fits in no way."""

    gpus: int
    planned: Forecast | None

    @property
    def idle(self) -> int:
        return self.gpus - self.planned.batch.ranks if self.planned else 0

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours of the run. Idle GPUs count, since nobody else can use them."""
        return self.planned and self.planned.run_days * 24 * self.gpus


def scaling(scenario: Scenario, counts: Iterable[int] = COUNTS) -> list[Way]:
    """Plans the run on each number of GPUs. It chooses ``train.sequence_parallel`` itself.

    Args:
        scenario: The run. Its length is in steps. Its hardware's number of GPUs does not matter.
        counts: Numbers of GPUs.

    Returns:
        One or two ways for each number, in this order: the fastest with the global batch of the run; if that leaves
        GPUs idle, one with all GPUs and the least larger batch.
    """
    wanted, choices = scenario.config.train.global_batch_size, sharing_choices(scenario.config)
    planned: dict[tuple[int, int], Forecast] = {}

    def on(groups: int, shared_by: int) -> Forecast:
        if (groups, shared_by) not in planned:
            config = replaced(scenario.config, ["train", "sequence_parallel"], shared_by)
            hardware = replace(scenario.hardware, gpus=groups * shared_by)
            planned[groups, shared_by] = forecast(replace(scenario, config=config, hardware=hardware))
        return planned[groups, shared_by]

    ways = []
    for gpus in counts:
        possible = divisions(wanted, choices, gpus, scenario.hardware.gpus_per_node)
        fitting = [one for one in (on(*division) for division in possible) if fits(one)]
        fastest = min(fitting, key=lambda one: (one.step_seconds, one.batch.ranks), default=None)
        ways.append(Way(gpus, fastest))
        shared_by = largest_sharing(choices, gpus)
        if smallest_valid_batch(wanted, gpus // shared_by) > wanted and fits(on(gpus // shared_by, shared_by)):
            ways.append(Way(gpus, on(gpus // shared_by, shared_by)))
    return ways


def fits(planned: Forecast) -> bool:
    return planned.fits and planned.fits_host


def efficiency(way: Way, ways: list[Way]) -> float | None:
    """Returns the GPU-hours of the first way that fits, as a share of this one's."""
    first = next((one for one in ways if one.planned), None)
    return first.gpu_hours / way.gpu_hours if first and way.planned else None


def table(ways: list[Way], price: float | None = None) -> list[str]:
    """Returns a table in Markdown.

    Args:
        ways: From :func:`scaling`.
        price: Price of a GPU-hour. Without it there is no column for money.
    """
    head = ["GPUs", "global batch", "data ranks × n", "idle", "memory per GPU", "received per step: node + network"]
    head += ["step (waiting for the network)", "run", "GPU-hours", "efficiency"] + ["cost"] * (price is not None)
    lines = [head, ["---"] * len(head)]
    for way in ways:
        planned = way.planned
        if planned is None:
            lines.append([f"{way.gpus:,}", "does not fit", *[""] * (len(head) - 2)])
            continue
        batch, received = planned.batch, planned.traffic.values()
        inside, between = sum(r.inside for r in received), sum(r.between for r in received)
        lines.append(
            [
                f"{way.gpus:,}",
                str(batch.global_batch_size),
                f"{batch.data_ranks} × {batch.sequence_parallel}",
                f"{way.idle:,}",
                f"{planned.gpu_bytes / 1e9:.1f} GB",
                f"{inside / 1e9:.0f} + {between / 1e9:.0f} GB",
                f"{planned.step_seconds:.2f} s ({planned.waiting:.2f})",
                f"{planned.run_days:.1f} days",
                f"{way.gpu_hours:,.0f}",
                f"{efficiency(way, ways):.0%}",
            ]
            + ([f"{way.gpu_hours * price:,.0f} $"] if price is not None else [])
        )
    return ["| " + " | ".join(line) + " |" for line in lines]


def as_figures(ways: list[Way]) -> list[dict[str, object]]:
    """Returns the figures of the table, for JSON. A number of GPUs on which nothing fits has ``batch: null``."""
    return [
        dict(
            gpus=way.gpus,
            batch=way.planned and way.planned.batch._asdict(),
            idle=way.idle,
            hardware=way.planned and asdict(way.planned.hardware),
            gpu_memory=way.planned and way.planned.gpu_bytes,
            traffic_per_step=way.planned and {name: r._asdict() for name, r in way.planned.traffic.items()},
            waiting_for_network_seconds=way.planned and way.planned.waiting,
            step_seconds=way.planned and way.planned.step_seconds,
            run_days=way.planned and way.planned.run_days,
            gpu_hours=way.gpu_hours,
            efficiency=efficiency(way, ways),
        )
        for way in ways
    ]


def draw(ways: list[Way], batch: int, path: Path) -> None:
    """Draws days, GPU-hours and efficiency over the number of GPUs, a line for each kind of way.

    Args:
        ways: From :func:`scaling`.
        batch: Global batch of the run.
        path: PNG file.
    """
    import matplotlib  # optional: pip install 'vtok[plots]'

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    fitting = [way for way in ways if way.planned]
    kept = [way for way in fitting if way.planned.batch.global_batch_size == batch]
    grown = [way for way in fitting if way.planned.batch.global_batch_size != batch]
    panels = {
        "days": lambda way: way.planned.run_days,
        "GPU-hours": lambda way: way.gpu_hours,
        "efficiency, %": lambda way: 100 * efficiency(way, ways),
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(11, 3.4), layout="constrained")
    for axis, (label, of) in zip(axes, panels.items()):
        for name, some in ((f"global batch {batch}, the rest idle", kept), ("larger global batch, none idle", grown)):
            axis.plot([way.gpus for way in some], [of(way) for way in some], "o-", label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({way.gpus for way in ways}), [str(n) for n in sorted({way.gpus for way in ways})])
        axis.set(xlabel="GPUs", title=label)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter("")
    axes[1].set_ylim(bottom=0)
    axes[2].set_ylim(0, 110)
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
