"""The kit for a GPU: what ``python pipelines/bench.py gpu`` spends its minutes on, the most valuable first.

command      the whole kit;  running: parts in processes of their own;  parts: which, in which order
findings     figures, and the files they are written to;  measure: time, memory, kernels
sizes        the published shapes and tiny ones;  published: the published models with random weights

marked_tests   products   transformer   attention   fp8   compiled   whole_step (sharded)   autoencoder   language_model
save_buffers   loader   vidtok                                           one part each: ``findings(sizes, device)``

wheels.sh    gathers what a bare GPU machine lacks;  on_device.sh: unpacks that there and runs the kit
"""

import argparse
from pathlib import Path

from pipelines.benchmarks.gpu.parts import PARTS


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line of ``bench.py gpu``."""
    parser = argparse.ArgumentParser(
        prog="bench gpu", description="So many minutes of one GPU, spent on what only a GPU can show."
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="when to stop; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="folder; default: %(default)s")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="only these")
    parser.add_argument("--tiny", action="store_true", help="see that it runs, on a CPU too: the values mean nothing")
    parser.add_argument("--keep", action="store_true", help="let plans use the rates: write them among its cards")
    parser.add_argument("--table", type=Path, metavar="FILE.json", help="measure nothing: print the table of a run")
    return parser.parse_args(argv)
