"""Trains a VidTok with DeepSpeed ZeRO-2.

    deepspeed [launcher flags] pipelines/train_vidtok.py --config NAME_OR_YAML [--section.key value ...]

The first stage trains the whole model on small clips. The second trains the decoder alone on larger clips, from the
weights of the first:

    deepspeed pipelines/train_vidtok.py --config pipelines/configs/vidtok_stage1.yaml --data.shards DIR --output OUT1
    deepspeed pipelines/train_vidtok.py --config pipelines/configs/vidtok_stage2.yaml --data.shards DIR --output OUT2 \\
        --weights OUT1/vidtok.safetensors

OUTPUT/config.yaml and OUTPUT/vidtok.safetensors are the --config and --checkpoint of ``reconstruct.py`` and
``evaluate.py vidtok``.
"""

from pipelines.cli.errors import user_errors
from pipelines.vidtok_training.config import parse_vidtok_arguments


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; exit codes are those of :func:`pipelines.engine.program.run_program`."""
    with user_errors("train_vidtok"):
        arguments = parse_vidtok_arguments(argv)
        if arguments.dry_run:
            from pipelines.vidtok_training.dry_run import dry_run

            dry_run(arguments)
            return

    from pipelines.engine.program import run_program  # only now: this imports the libraries, which takes seconds
    from pipelines.vidtok_training.run import train

    run_program("train_vidtok", arguments, train)


if __name__ == "__main__":
    main()
