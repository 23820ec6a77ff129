"""Trains an OmniTokenizer, the codec of the strategy of that name, with DeepSpeed ZeRO-2.

    [deepspeed] pipelines/train_omnitokenizer.py --config pipelines/configs/omnitokenizer_shapes.yaml --data.root CLIPS
        --output OUT [--resume auto] [--section.key value ...]

Clips and their first frames, as images, train one model (see vtok/omnitokenizer). OUT/codec is the
``model.tokeniser.weights`` of a run with ``model.tokeniser.strategy`` and ``backbone`` ``omnitokenizer``. The published
training also has a perceptual loss and discriminators; this one has the L1 loss of pixels alone.
"""

from functools import partial

from pipelines.cli.errors import user_errors
from pipelines.codec_training.config import parse_codec_arguments

PROGRAM = "train_omnitokenizer"


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; exit codes are those of :func:`pipelines.engine.program.run_program`."""
    with user_errors(PROGRAM):
        arguments = parse_codec_arguments(PROGRAM, "Train an OmniTokenizer with ZeRO-2.", argv)

    # Only now: this imports the libraries, which takes seconds.
    from pipelines.codec_training.recipes import OmniTokenizerRecipe
    from pipelines.codec_training.run import dry_run, train
    from pipelines.engine.program import run_program

    if arguments.dry_run:
        with user_errors(PROGRAM):
            dry_run(arguments, OmniTokenizerRecipe)
        return
    run_program(PROGRAM, arguments, partial(train, kind=OmniTokenizerRecipe))


if __name__ == "__main__":
    main()
