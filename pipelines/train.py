"""Train VTok with DeepSpeed ZeRO-3.

    deepspeed [launcher flags] pipelines/train.py --config X.yaml --ds_config Y.json [--section.key value ...]
    vtok-train --data_root DIR --batch_size 8 --epochs 10          one rank, no launcher

One batch from tar to loss: ``data_tools.dataset`` (decode), ``pipelines.engine.loading.loader`` (text, collate),
``vtok.framework.VTokFramework.forward`` (losses), ``pipelines.engine.stepping`` (update). ``pipelines.engine.loop``
takes the steps; ``pipelines.vtok_training.run`` prepares them, and ``pipelines.vtok_training.stages`` goes through
stages.
"""

from pipelines.cli.errors import told_to_the_job, user_errors
from pipelines.cli.parsing import parse_run_arguments


@told_to_the_job()
def main(argv: list[str] | None = None) -> None:
    """Console entry; exit codes are those of :func:`pipelines.engine.program.run_program`."""
    with user_errors("vtok-train"):
        arguments = parse_run_arguments(argv)
        if arguments.dry_run:
            from pipelines.vtok_training.dry_run import dry_run

            dry_run(arguments)
            return

    from pipelines.engine.program import run_program  # only now: this imports the libraries, which takes seconds
    from pipelines.vtok_training.stages import train

    run_program("vtok-train", arguments, train)


if __name__ == "__main__":
    main()
