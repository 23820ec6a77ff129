"""Trains an OmniTokenizer, the codec of the strategy of that name, with DeepSpeed ZeRO-2.

    [deepspeed] pipelines/train_omnitokenizer.py --config pipelines/configs/omnitokenizer_shapes.yaml --data.root CLIPS
        --output OUT [--resume auto] [--section.key value ...]

Clips and their first frames, as images, train one model (see vtok/omnitokenizer). OUT/codec is the
``model.tokeniser.weights`` of a run with ``model.tokeniser.strategy`` and ``backbone`` ``omnitokenizer``. The published
training also has a perceptual loss and discriminators; this one has the L1 loss of pixels alone.
"""

from pipelines.codec_training.command import run_codec_command


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; exit codes are those of :func:`pipelines.engine.program.run_program`."""
    run_codec_command("train_omnitokenizer", "omnitokenizer", "Train an OmniTokenizer with ZeRO-2.", argv)


if __name__ == "__main__":
    main()
