"""What a run will need, before any weight is downloaded: memory, FLOPs, traffic, time and cost, on the meta device.

    python pipelines/plan.py --config pipelines/configs/llava_next_8b_hunyuan.yaml --gpus 16 --gpu-memory 80 [--json]

Settings can be changed as in training (``--train.micro_batch_size 2``). With data (``--data.shards SHARDS``) it also
says what their mix of sizes and lengths costs. ``--scaling`` compares 8 to 1,024 GPUs. What is assumed (the machines,
their price, the length of a caption) is an option. Time follows from rates: assumed ones, or those measured on a card
(``--card``).
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from pipelines.cli.errors import user_errors
from pipelines.cli.parsing import parse_run_arguments
from pipelines.config import CAPTION_TOKENS, STORED, RunConfig
from pipelines.planning.hardware import Hardware
from pipelines.planning.rates import ASSUMED, cards, rates_of
from vtok.config import require

DS_CONFIG = Path(__file__).parents[1] / "deepspeed_configs" / "zero3.json"


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, RunConfig]:
    """The command's own arguments, and the configuration that the others make.

    Raises:
        ConfigError: a number out of range, a card without rates, a wrong setting of the run, or one that
            the chosen options do not allow.
    """
    arguments, overrides = command_line().parse_known_args(argv)
    values = vars(arguments)
    for name in ("gpus", "gpus_per_node", "gpu_memory", "node_memory", "nvlink", "infiniband", "caption_tokens"):
        require(values[name] > 0, f"--{name.replace('_', '-')} must be positive")
    arguments.priced = arguments.price is not None
    arguments.price = arguments.price if arguments.priced else Hardware().price
    for name in ("reserve", "price"):
        require(values[name] >= 0, f"--{name} must not be negative")
    if picture := arguments.picture:
        require(arguments.scaling, "--picture shows what --scaling computes: add --scaling")
        require(picture.suffix == ".png", f"--picture {picture}: the name must end in .png")
        require(picture.parent.is_dir(), f"--picture {picture}: there is no folder {picture.parent}")
        require(
            find_spec("matplotlib") is not None,
            "--picture draws with matplotlib, which is not installed: pip install 'vtok[plots]'",
        )
    arguments.rates = rates_of(arguments.card)
    config = parse_run_arguments(["--config", arguments.config, *overrides]).config
    if arguments.scaling:
        require(not config.stages, "--scaling plans one run: leave the stages out of the configuration")
        require(config.train.max_steps is not None, "--scaling needs the length of the run: set train.max_steps")
    return arguments, config


def command_line() -> argparse.ArgumentParser:
    assumed = Hardware()
    parser = argparse.ArgumentParser(
        description="What a run needs: memory, FLOPs, traffic, time, cost.", allow_abbrev=False
    )
    parser.add_argument("--config", required=True, help="YAML file of a run, or OUTPUT/config.yaml of one begun")
    parser.add_argument("--ds_config", type=Path, default=DS_CONFIG, help="DeepSpeed JSON (default: zero3.json)")
    parser.add_argument("--gpus", type=int, default=assumed.gpus, help="default: %(default)s")
    parser.add_argument("--gpus-per-node", type=int, default=assumed.gpus_per_node, help="default: %(default)s")
    parser.add_argument("--gpu-memory", type=float, default=assumed.gpu_memory, help="GB of each; default: %(default)s")
    parser.add_argument(
        "--reserve", type=float, default=assumed.reserve,
        help="GB kept free for the CUDA context, NCCL and the allocator's gaps; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--node-memory", type=float, default=assumed.node_memory, help="GB of a node's host; default: %(default)s"
    )
    parser.add_argument(
        "--card", default=ASSUMED,
        help=f"GPU whose rates give the time: {', '.join(cards())}; default: %(default)s, those of an H100 SXM",
    )  # fmt: skip
    parser.add_argument(
        "--nvlink", type=float, default=assumed.nvlink,
        help="GB/s that a GPU receives within its node; default: %(default)s, an assumption",
    )  # fmt: skip
    parser.add_argument(
        "--infiniband", type=float, default=assumed.infiniband,
        help="GB/s that a GPU receives from other nodes; default: %(default)s, an assumption",
    )  # fmt: skip
    parser.add_argument("--price", type=float, help=f"$ a GPU-hour; default: {assumed.price}, an assumption")
    parser.add_argument(
        "--caption-tokens", type=int, default=CAPTION_TOKENS, help="length of a caption; default: %(default)s"
    )
    parser.add_argument(
        "--stored", nargs="+", choices=list(STORED), default=[],
        help="what the shards hold (precompute.py): its encoders are neither loaded nor run",
    )  # fmt: skip
    parser.add_argument(
        "--scaling", action="store_true",
        help="compare 8 to 1,024 GPUs in a table; it chooses train.sequence_parallel for each number",
    )  # fmt: skip
    parser.add_argument("--picture", type=Path, help="PNG file for the picture of --scaling")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    with user_errors("plan"):
        arguments, config = parse_arguments(argv)

        from pipelines.planning.report import print_plan  # only now: this imports the libraries, which takes seconds

        print_plan(arguments, config)


if __name__ == "__main__":
    main()
