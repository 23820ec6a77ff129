"""Figures of this machine and this version, each with what it should be.

python pipelines/bench.py data         reading, decoding, loading, resuming; about four minutes
python pipelines/bench.py buckets      what buckets save on a simulated manifest of 1 M samples; two minutes
python pipelines/bench.py checkpoint   how long a save holds up training; a minute, 4 GB of memory
python pipelines/bench.py tokeniser    frames to tokens against CLIP alone
python pipelines/bench.py step         an optimiser step against its modules, and under DeepSpeed; 8 GB
python pipelines/bench.py prefill      reading videos of 5 to 120 s against S tokens a frame; draws prefill.png
python pipelines/bench.py sample       visual tokens with a cache against bare cached decoding
python pipelines/bench.py run          imports, the first step, waiting for data, two ranks; needs an idle machine
python pipelines/bench.py profile      where a step's CPU time goes
python pipelines/bench.py vidtok       VidTok's network against the plain arrangement of it
python pipelines/bench.py compile      what torch.compile would gain; ten minutes of compilation
python pipelines/bench.py fsdp         a step of two ranks under ZeRO-3 against torch's own FSDP2; needs an idle machine
python pipelines/bench.py halves       training on new data: what it gains, what it forgets; half an hour
python pipelines/bench.py host         what ZeRO-3's hooks cost the host at the published depth; two minutes
python pipelines/bench.py chaos        runs that are killed, stopped and damaged at random; an hour (--help says how)
python pipelines/bench.py gpu          what only a GPU can show, in eight minutes of one (--help says how)

--json prints one JSON list; --check compares the ratios with those kept in pipelines/benchmarks/ratios.json, and ends
with exit code 1 where one has become worse by more than a tenth; --keep puts them there.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from data_tools.errors import DataError
from pipelines.benchmarks import chaos, gpu
from pipelines.benchmarks.figure import Figure
from pipelines.cli.errors import die

# Parts of the bench; pipelines.benchmarks.figures has a function for each.
PARTS = (
    "data", "buckets", "checkpoint", "tokeniser", "step", "prefill", "sample", "vidtok", "run", "profile", "compile",
    "fsdp", "halves", "host",
)  # fmt: skip
RATIOS = Path(__file__).parent / "benchmarks" / "ratios.json"
TOLERANCE = 0.1


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["gpu"]:
        arguments = gpu.parse_arguments(argv[1:])
        from pipelines.benchmarks.gpu.command import measure_gpu  # only now: this imports torch

        measure_gpu(arguments)
        return
    if argv[:1] == ["chaos"]:
        arguments = chaos.parse_arguments(argv[1:])
        from pipelines.benchmarks.chaos.command import chaos as disturb

        try:
            sys.exit(0 if disturb(arguments) else 1)
        except (DataError, OSError) as error:
            die("bench", error)
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*PARTS, "chaos", "gpu"], help="which part to measure")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.add_argument("--quick", action="store_true", help="see that it runs: the values mean nothing")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--check", action="store_true", help="exit code 1 where a ratio is worse than the one kept")
    kept.add_argument("--keep", action="store_true", help="keep the ratios, to be checked against")
    arguments = parser.parse_args(argv)
    from pipelines.benchmarks.figures import FIGURES  # only now: this imports DeepSpeed and much else

    try:
        measured = list(_shown(FIGURES[arguments.what](arguments.quick), arguments.json))
    except (DataError, OSError, ImportError) as error:
        die("bench", error)
    if arguments.json:
        print(json.dumps([{**figure._asdict(), "met": figure.met} for figure in measured]))
    if arguments.keep:
        ratios = {figure.name: round(figure.value, 4) for figure in measured if figure.is_ratio}
        RATIOS.write_text(json.dumps(read_ratios() | {arguments.what: ratios}, indent=2) + "\n")
    if arguments.check:
        worse = worse_than(read_ratios().get(arguments.what, {}), measured)
        for line in worse:
            print(f"bench: worse than before: {line}", file=sys.stderr)
        sys.exit(1 if worse else 0)


def read_ratios() -> dict[str, dict[str, float]]:
    """The ratios kept, by part and by name."""
    return json.loads(RATIOS.read_text()) if RATIOS.is_file() else {}


def worse_than(kept: dict[str, float], measured: list[Figure]) -> list[str]:
    """A line for each bounded ratio that is worse than the one kept by more than ``TOLERANCE`` of it."""
    lines = []
    for figure in measured:
        before = kept.get(figure.name)
        if before is None or not figure.bound:
            continue
        lost = (before - figure.value) if figure.at_least is not None else (figure.value - before)
        if lost > TOLERANCE * abs(before):
            lines.append(f"{figure.name}: {figure.value:.3f}, was {before:.3f}")
    return lines


def _shown(measured: Iterator[Figure], silent: bool) -> Iterator[Figure]:
    for figure in measured:
        if not silent:
            print(
                f"{figure.name:56}{figure.value:10.3f}   {figure.bound:8}{'' if figure.met else '   missed'}",
                flush=True,
            )
        yield figure


if __name__ == "__main__":
    main()
