"""Train a VTok further on a folder of clips, and compare its videos of some prompts before and after.

    vtok-finetune CLIPS --from WHERE [--output DIR] [--config X.yaml] [--section.key value ...]

One command on one device: packs the clips into shards, stores what the frozen encoders give, makes videos of prompts,
trains, exports, and makes the videos again. Started again after an interruption it goes on where it was.

WHERE is a trained VTok: a run's folder, one of its checkpoints, an export, ``shapes/vtok`` or a hub id. Without --from
training begins from the published weights that --config names, as in ``pipelines/configs/finetune_lora_wan_1.3b.yaml``.
"""

import argparse
import json
from pathlib import Path

from pipelines.cli.checks import require_new_folder
from pipelines.cli.config_files import PRESETS, read_yaml
from pipelines.cli.errors import user_errors
from pipelines.cli.initial_model import trained_model
from pipelines.cli.launcher import rank_and_ranks
from pipelines.cli.parsing import ALIASES, RunArguments, in_words, parse_run_arguments, values_of
from pipelines.config import RunConfig
from vtok.config import ConfigError, require

PROGRAM = "vtok-finetune"
MOST_PROMPTS = 8
# Options of a training that the command sets itself.
TAKEN = ("--resume", "--step", "--data.shards", "--data.root", "--data.mixture", "--init.weights")


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, RunArguments[RunConfig]]:
    """Returns the command's own arguments and those of its training.

    Raises:
        ConfigError: An argument is wrong, or ``--from`` holds no trained VTok.
    """
    about, _, usage = __doc__.partition("\n")
    parser = argparse.ArgumentParser(PROGRAM, description=about, epilog=usage, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument(
        "clips", metavar="CLIPS", help="folder of clips with captions, as for vtok-shards build; or shards"
    )
    parser.add_argument("--from", dest="start", metavar="WHERE", help="the trained VTok to start from")
    parser.add_argument("--output", type=Path, help="folder for everything (default: runs/finetune-CLIPS)")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="prompts, one a line (default: captions of the clips)"
    )
    parser.add_argument("--samples", type=int, default=2, help="prompts to make videos of; 0 makes none")
    parser.add_argument("--denoising_steps", type=int, default=20, help="denoising steps of these videos")
    a, rest = parser.parse_known_args(argv)
    rest = in_words(rest)
    require(rank_and_ranks()[1] == 1, f"{PROGRAM} runs in one process, on one device: start it without a launcher")
    require(Path(a.clips).expanduser().exists(), f"there are no clips in {a.clips}")
    require(0 <= a.samples <= MOST_PROMPTS, f"--samples must lie between 0 and {MOST_PROMPTS}, not {a.samples}")
    require(a.denoising_steps >= 1, f"--denoising_steps must be at least 1, not {a.denoising_steps}")
    require(a.start is not None or "--config" in rest, "name what to start from: --from WHERE (or --config X.yaml)")
    for option in rest:
        taken = ALIASES.get(option, option) in TAKEN
        require(not taken, f"{PROGRAM} has no {option}: it takes CLIPS and --from, and goes on by itself")
    a.output = (a.output or Path("runs") / f"finetune-{Path(a.clips).expanduser().resolve().name}").expanduser()
    require_new_folder("--output", a.output)
    arguments = parse_run_arguments([*settings(a.start, rest), "--output", str(a.output / "run"), "--resume", "auto"])
    require(not arguments.config.stages, f"{PROGRAM} has no stages: train them with vtok-train")
    for name in ("mixture", "root"):
        given = getattr(arguments.config.data, name) is not None
        require(not given, f"{PROGRAM} trains on CLIPS, not on data.{name}: leave that out")
    require(
        arguments.config.data.window == "centred",
        "what the encoders give is stored for one window of each clip: set data.window to centred",
    )
    return a, arguments


def settings(start: str | None, rest: list[str]) -> list[str]:
    """Returns the command line of the training: the preset, the model of what it starts from, then the user's own."""
    configs = values_of("--config", rest)
    chosen = [] if configs else ["--config", str(PRESETS / "finetune.yaml")]
    if start is None:
        return [*chosen, *rest]
    trained = trained_model(start)
    if trained is None:
        raise ConfigError(
            f"--from {start} is no trained VTok: neither it nor the hub has its config.yaml or vtok_config.json"
        )
    model, seconds = trained
    named = "model" in read_yaml(Path(configs[-1])) if configs else False
    taken = [] if named else ["--model", json.dumps(model), "--data.seconds", str(seconds)]
    # The files first, so that they do not win over these.
    at = max((place + 2 for place, word in enumerate(rest) if word == "--config"), default=0)
    return [*chosen, *rest[:at], *taken, "--init.weights", start, *rest[at:]]


def main(argv: list[str] | None = None) -> None:
    """Console entry; exit codes are those of :func:`pipelines.engine.program.run_program`."""
    with user_errors(PROGRAM):
        a, arguments = parse_arguments(argv)

        from pipelines.finetuning.stages import finetune  # only now: this imports the libraries, which takes seconds

        finetune(a, arguments)


if __name__ == "__main__":
    main()
