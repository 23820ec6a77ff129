"""Trains the motion codec of the strategy video-lavit, with DeepSpeed ZeRO-2.

    [deepspeed] pipelines/train_motion_codec.py --config pipelines/configs/motion_codec.yaml --data.shards DIR
        --output OUT [--resume auto] [--model.form published] [--section.key value ...]

The codec is an autoencoder of motion vectors whose latents are codes (see vtok/motion_codec). It is trained on clips of
25 frames at 6 per second; loader processes compute their vectors. OUT/codec is the ``model.tokeniser.codec`` of a run
with ``model.tokeniser.strategy: video-lavit``.
"""

from pipelines.codec_training.command import run_codec_command


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; exit codes are those of :func:`pipelines.engine.program.run_program`."""
    run_codec_command("train_motion_codec", "motion_codec", "Train a motion codec with ZeRO-2.", argv)


if __name__ == "__main__":
    main()
