"""What the commands that train a codec share: they differ in the codec and in their words."""

from functools import partial

from pipelines.cli.errors import user_errors
from pipelines.codec_training.config import parse_codec_arguments


def run_codec_command(program: str, codec: str, description: str, argv: list[str] | None) -> None:
    """Runs the command line; exit codes are those of :func:`pipelines.engine.program.run_program`.

    Args:
        program: Name of the command.
        codec: Name of the codec in :data:`pipelines.codec_training.recipes.RECIPES`.
        description: What the command does.
        argv: Words of the command line; by default the process's.
    """
    with user_errors(program):
        arguments = parse_codec_arguments(program, description, argv)

    # Only now: this imports the libraries, which takes seconds.
    from pipelines.codec_training.recipes import RECIPES
    from pipelines.codec_training.run import dry_run, train
    from pipelines.engine.program import run_program

    if arguments.dry_run:
        with user_errors(program):
            dry_run(arguments, RECIPES[codec])
        return
    run_program(program, arguments, partial(train, kind=RECIPES[codec]))
