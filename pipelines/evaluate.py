"""Ask questions whose answers are known, of a model about videos or of a judge about its own; or judge a VidTok.

    python pipelines/evaluate.py tv-align --videos DIR --output RESULTS
    torchrun --nproc_per_node 8 pipelines/evaluate.py tv-align --checkpoint OUTPUT --output RESULTS --unconditional 50
    torchrun --nproc_per_node 8 pipelines/evaluate.py understanding --checkpoint OUTPUT --suite videomme \\
        --items test.parquet --videos DIR --output RESULTS
    torchrun --nproc_per_node 8 pipelines/evaluate.py vbench --checkpoint OUTPUT --environment ENV --output RESULTS
    python pipelines/evaluate.py compare RESULTS_A RESULTS_B [--output TABLES]
    python pipelines/evaluate.py page RESULTS --output page.html
    python pipelines/evaluate.py all --checkpoint shapes/vtok --output TABLES
    python pipelines/evaluate.py vidtok --config NAME --checkpoint X --data DIR [--meta-path videos.csv]

The first three ask questions, the fourth makes VBench's videos and has VBench score them. Ranks share the work without
talking to each other; started again, only what is missing is made and asked. The rank that finds all answers there
prints the table and writes RESULTS/report.json.
"""

import argparse
from importlib import import_module
from pathlib import Path

from pipelines.cli.checks import (
    MAX_SAMPLES,
    MAX_STEPS,
    require_generation,
    require_new_file,
    require_new_folder,
    require_picture,
)
from pipelines.cli.config_files import PRESETS
from pipelines.cli.errors import user_errors
from pipelines.cli.launcher import rank_and_ranks
from pipelines.cli.steps import add_step, with_step
from pipelines.evaluation import tv_align
from pipelines.evaluation.understanding.suites import SUITES
from pipelines.evaluation.vbench.totals import DIMENSIONS, OF_THE_SUITE
from vtok.config import ConfigError, require
from vtok.sampling import Sampling


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="PROTOCOL")
    tv_align_command(commands.add_parser("tv-align", help="does a generated video show what its prompt says?"))
    understanding_command(commands.add_parser("understanding", help="does a model see what a given video shows?"))
    vbench_command(commands.add_parser("vbench", help="VBench's dimensions of generated videos, and its totals"))
    vidtok_command(commands.add_parser("vidtok", help="how near are a VidTok's reconstructions?"))
    items_command(commands.add_parser("items", help="write TV-Align's natural items, or prove that items are fair"))
    compare_command(commands.add_parser("compare", help="evaluations of the same items side by side"))
    page_command(commands.add_parser("page", help="an evaluation as one HTML page, to look through and to check"))
    all_command(commands.add_parser("all", help="the paper's tables on rendered clips, for the shipped small models"))
    a = parser.parse_args(argv)
    a.require_valid(a)
    return a


def tv_align_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(protocol="tv_align.run", require_valid=require_tv_align)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--videos", type=Path, help="folder of ID.mp4 for each item")
    what.add_argument(
        "--checkpoint", type=Path, help="a run's folder, a checkpoint's, or an export, to generate them with"
    )
    command.add_argument("--items", type=Path, default=tv_align.FOLDER / "shapes.jsonl", help="JSONL of questions")
    command.add_argument(
        "--judge", choices=["pixels", "qwen2.5-vl", "openai"], default="pixels", help="who answers them"
    )
    command.add_argument(
        "--judge_config", type=Path, default=PRESETS / "qwen2.5-vl_judge.yaml", help="YAML for qwen2.5-vl"
    )
    command.add_argument("--judge_url", help="for openai: the server's address up to /v1")
    command.add_argument("--judge_model", help="for openai: the model's name there")
    command.add_argument("--judge_cache", type=Path, help="for openai: folder of its replies (default: in --output)")
    command.add_argument("--unconditional", type=int, default=0, help="videos without a prompt, as a control")
    command.add_argument("--real_tokens", type=Path, help="folder of true ID.mp4: their tokens, not sampled ones")
    generation_arguments(command, seconds=3.0)
    shared_arguments(command)


def vbench_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(protocol="vbench.run", require_valid=require_vbench)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--checkpoint", type=Path, help="a run's folder, a checkpoint's, or an export, to make videos with"
    )
    what.add_argument("--videos", type=Path, help="folder of PROMPT-K.mp4, or of those that --prompts lists")
    what.add_argument("--results", type=Path, nargs="+", help="VBench's NAME_eval_results.json: the table alone")
    command.add_argument("--environment", type=Path, help="folder that vbench/environment.sh made")
    command.add_argument(
        "--dimensions", nargs="+", choices=DIMENSIONS, metavar="NAME",
        help=f"of {', '.join(DIMENSIONS)} (default: all that can be judged)",
    )  # fmt: skip
    command.add_argument(
        "--prompts", type=Path,
        help="other prompts than the suite's, one a line; with --videos a table with the columns path and prompt",
    )  # fmt: skip
    command.add_argument("--samples", type=int, default=1, help="videos of each of the --prompts; of the suite's: 5")
    generation_arguments(command, seconds=5.0)
    shared_arguments(command, output=False)


def understanding_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(protocol="understanding.run", require_valid=require_understanding)
    model = command.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path, help="a run's folder, a checkpoint's, or an export")
    model.add_argument("--config", type=Path, help="YAML: its published weights as they are, untrained")
    command.add_argument(
        "--suite", choices=SUITES, default="own", help="whose questions they are (default: %(default)s)"
    )
    command.add_argument("--items", type=Path, required=True, help="table of questions, or a folder of tables")
    command.add_argument("--videos", type=Path, required=True, help="folder that holds the suite's videos")
    command.add_argument(
        "--max_frames", type=int, default=512, help="evenly spaced frames of a longer video (default: %(default)s)"
    )
    command.add_argument("--hide_options", action="store_true", help="ask openly, as in training; no letter is read")
    shared_arguments(command)


def vidtok_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(protocol="vidtok_scores", require_valid=require_vidtok)
    command.add_argument("--config", required=True, help="a published name, or a YAML file")
    command.add_argument("--checkpoint", type=Path, required=True, help="the published .ckpt, or a .safetensors")
    command.add_argument("--data", type=Path, required=True, help="folder of videos")
    command.add_argument(
        "--meta-path", type=Path, help="table (.csv, .jsonl, …) with a column 'videos' of paths in that folder"
    )
    command.add_argument("--height", type=int, default=256)
    command.add_argument("--width", type=int, default=256)
    command.add_argument("--fps", type=float, default=30.0)
    command.add_argument("--tile", type=int, help="reconstruct in square tiles of so many pixels too, and compare")
    command.add_argument("--tile-overlap", type=int, default=64, help="of neighbouring tiles, in pixels")
    command.add_argument("--read-long-video", action="store_true", help="reconstruct whole videos, chunk by chunk")
    command.add_argument("--chunk", type=int, default=16, help="frames per chunk of a long video")
    command.add_argument(
        "--upstream-compat", action="store_true", help="decode a long video's chunks like the published code of v1.1"
    )
    command.add_argument("--compile", action="store_true", help="compile the model's blocks, which takes minutes once")
    command.add_argument("--lpips", type=Path, nargs=2, metavar=("VGG16", "LINEAR"), help="the weights of LPIPS")
    command.add_argument("--fvd", type=Path, metavar="I3D", help="i3d_torchscript.pt: also FVD, of the whole clips")
    command.add_argument("--output", type=Path, default=Path("vidtok_scores.json"), help="JSON file to write")


def items_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(protocol="tv_align.natural.command", require_valid=require_items)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--output", type=Path, help="JSONL to write")
    what.add_argument("--check", type=Path, help="JSONL to examine")


def compare_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(protocol="comparison.command", require_valid=require_compare)
    command.add_argument(
        "results", type=Path, nargs="+", help="folders of evaluations; all are compared with the first"
    )
    command.add_argument("--names", nargs="+", help="a name for each (default: the folders')")
    command.add_argument("--output", type=Path, help="folder for the tables as .md and .tex, and their pictures")


def page_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(protocol="page.command", require_valid=require_page)
    command.add_argument("results", type=Path, help="folder of an evaluation")
    command.add_argument("--output", type=Path, required=True, help="HTML file to write")
    command.add_argument(
        "--embed_mb", type=float, default=8.0, help="larger videos are left out, megabytes (default: %(default)s)"
    )


def all_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(protocol="everything", require_valid=require_all)
    command.add_argument("--checkpoint", type=Path, required=True, help="a run's folder, a checkpoint's, or an export")
    add_step(command)
    command.add_argument("--per_category", type=int, default=12, help="clips a category (default: %(default)s)")
    command.add_argument("--steps", type=int, default=20, help="denoising steps (default: %(default)s)")
    command.add_argument("--output", type=Path, required=True, help="folder of clips, evaluations, tables and pages")


def generation_arguments(command: argparse.ArgumentParser, seconds: float) -> None:
    command.add_argument("--seconds", type=float, default=seconds, help="of a video (default: %(default)g)")
    command.add_argument("--fps", type=float, help="frames per second of the videos (default: the decoder's)")
    command.add_argument("--steps", type=int, default=50, help="denoising steps")
    command.add_argument("--temperature", type=float, default=1.0, help="of the sampled visual tokens")
    command.add_argument("--best_of", type=int, default=1, metavar="N", help="videos made of a prompt; one is kept")
    command.add_argument("--seed", type=int, default=0, help="each video's own follows from it")
    command.add_argument("--batch_size", type=int, default=1, help="videos that are denoised together")


def shared_arguments(command: argparse.ArgumentParser, output: bool = True) -> None:
    command.add_argument("--output", type=Path, required=output, help="folder of the answers and the report")
    add_step(command)
    command.add_argument("--ema", action="store_true", help="use the average of the weights")
    command.add_argument("--local_rank", help=argparse.SUPPRESS)  # the deepspeed launcher's; the environment is used


def require_tv_align(a: argparse.Namespace) -> None:
    require_generation(a)
    for option in ("judge_url", "judge_model"):
        require(bool(getattr(a, option)) == (a.judge == "openai"), f"--judge openai and --{option} go together")
    require(a.judge_cache is None or a.judge == "openai", "--judge_cache goes with --judge openai")
    known = a.judge_url is None or a.judge_url.startswith(("http://", "https://"))
    require(known, f"--judge_url {a.judge_url} is no address: give one such as http://127.0.0.1:8000/v1")
    require_new_folder("--output", a.output)
    with_step(a)


def require_vbench(a: argparse.Namespace) -> None:
    require_generation(a)
    if a.results:
        return
    require(bool(a.environment and a.output), "--checkpoint and --videos need --environment and --output")
    require_new_folder("--output", a.output)
    require(1 <= a.samples <= MAX_SAMPLES, f"--samples must lie between 1 and {MAX_SAMPLES:,}, not {a.samples}")
    require(bool(a.prompts) or a.samples == 1, "--samples goes with --prompts: of the suite's prompts there are 5 each")
    judged = [name for name in DIMENSIONS if not a.prompts or name not in OF_THE_SUITE]
    a.dimensions = [name for name in DIMENSIONS if name in (a.dimensions or judged)]
    if unknown := sorted(set(a.dimensions) - set(judged)):
        raise ConfigError(f"VBench judges {', '.join(unknown)} by its own prompts only: leave out --prompts, or these")
    a.sampling = Sampling(a.temperature, best_of=a.best_of)
    with_step(a)


def require_understanding(a: argparse.Namespace) -> None:
    require(a.max_frames >= 2, f"--max_frames must be at least 2, not {a.max_frames}")
    require(a.checkpoint is not None or not a.ema, "--ema needs --checkpoint: what was not trained has no average")
    require_new_folder("--output", a.output)
    with_step(a)


def require_vidtok(a: argparse.Namespace) -> None:
    require_picture(a.height, a.width, a.fps, a.chunk)
    require(not a.read_long_video or a.tile is None, "choose one of --read-long-video and --tile")
    require_new_file("--output", a.output)


def require_compare(a: argparse.Namespace) -> None:
    known = a.names is None or len(a.names) == len(set(a.names)) == len(a.results)
    require(known, f"--names needs {len(a.results)} different names, one for each evaluation")
    if a.output:
        require_new_folder("--output", a.output)


def require_page(a: argparse.Namespace) -> None:
    require(a.embed_mb >= 0, f"--embed_mb must not be negative, and is {a.embed_mb:g}")
    require_new_file("--output", a.output)


def require_all(a: argparse.Namespace) -> None:
    require(a.per_category >= 1, f"--per_category must be at least 1, not {a.per_category}")
    require(1 <= a.steps <= MAX_STEPS, f"--steps must lie between 1 and {MAX_STEPS:,}, not {a.steps}")
    require(rank_and_ranks()[1] == 1, "evaluate.py all runs in one process: start it without a launcher")
    require_new_folder("--output", a.output)
    with_step(a)


def require_items(a: argparse.Namespace) -> None:
    if a.output:
        require_new_file("--output", a.output)


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    with user_errors("evaluate"):
        arguments = parse_arguments(argv)
        protocol = import_module(f"pipelines.evaluation.{arguments.protocol}")  # with its libraries: takes seconds
        if arguments.protocol == "everything":
            protocol.prepare(arguments)
            for command in protocol.commands(arguments):
                print(f"\nevaluate.py {' '.join(command)}", flush=True)
                main(command)
            return
        protocol.evaluate(arguments)


if __name__ == "__main__":
    main()
