"""What a run will need, before any weight is downloaded: memory, FLOPs, traffic, time and cost, on the meta device.

    python pipelines/plan.py --config pipelines/configs/llava_next_8b_hunyuan.yaml --gpus 16 --gpu-memory 80 [--json]

Settings can be changed as in training (``--train.micro_batch_size 2``). With data (``--data.shards SHARDS``) it also
says what their mix of sizes and lengths costs. What is assumed (the machines, their price, the
length of a caption) is an option. Time follows from rates: assumed ones, or those measured on a card (``--card``).
"""

import argparse
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
        ConfigError: a number out of range, a card without rates, or a wrong setting of the run.
    """
    arguments, overrides = command_line().parse_known_args(argv)
    values = vars(arguments)
    for name in ("gpus", "gpus_per_node", "gpu_memory", "node_memory", "caption_tokens"):
        require(values[name] > 0, f"--{name.replace('_', '-')} must be positive")
    for name in ("reserve", "price"):
        require(values[name] >= 0, f"--{name} must not be negative")
    arguments.rates = rates_of(arguments.card)
    return arguments, parse_run_arguments(["--config", arguments.config, *overrides]).config


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
    parser.add_argument("--price", type=float, default=assumed.price, help="$ a GPU-hour; default: %(default)s")
    parser.add_argument(
        "--caption-tokens", type=int, default=CAPTION_TOKENS, help="length of a caption; default: %(default)s"
    )
    parser.add_argument(
        "--stored", nargs="+", choices=list(STORED), default=[],
        help="what the shards hold (precompute.py): its encoders are neither loaded nor run",
    )  # fmt: skip
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
