"""Trains the motion codec of the strategy video-lavit, with DeepSpeed ZeRO-2.

    [deepspeed] pipelines/train_motion_codec.py --config pipelines/configs/motion_codec.yaml --data.shards DIR
        --output OUT [--resume auto] [--model.form published] [--section.key value ...]

The codec is an autoencoder of motion vectors whose latents are codes (see vtok/motion_codec). It is trained on clips of
25 frames at 6 per second; loader processes compute their vectors. OUT/codec is the ``model.tokeniser.codec`` of a run
with ``model.tokeniser.strategy: video-lavit``.
"""

from functools import partial

from pipelines.cli.errors import user_errors
from pipelines.codec_training.config import parse_codec_arguments

PROGRAM = "train_motion_codec"


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; exit codes are those of :func:`pipelines.engine.program.run_program`."""
    with user_errors(PROGRAM):
        arguments = parse_codec_arguments(PROGRAM, "Train a motion codec with ZeRO-2.", argv)

    # Only now: this imports the libraries, which takes seconds.
    from pipelines.codec_training.recipes import MotionCodecRecipe
    from pipelines.codec_training.run import dry_run, train
    from pipelines.engine.program import run_program

    if arguments.dry_run:
        with user_errors(PROGRAM):
            dry_run(arguments, MotionCodecRecipe)
        return
    run_program(PROGRAM, arguments, partial(train, kind=MotionCodecRecipe))


if __name__ == "__main__":
    main()
