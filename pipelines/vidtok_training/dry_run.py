"""Checks a VidTok's run up to its first step and says what it would be. It writes nothing and loads no weight."""

from pipelines.cli.parsing import RunArguments
from pipelines.engine.beginning import number_of_steps
from pipelines.engine.outputs import choose_output
from pipelines.engine.setup import settle
from pipelines.vidtok_training import data
from pipelines.vidtok_training.config import VidTokRunConfig
from pipelines.vtok_training.summary import batch_line


def dry_run(arguments: RunArguments[VidTokRunConfig]) -> None:
    """Prints what a run would be.

    Raises:
        ConfigError: A setting or the DeepSpeed JSON is wrong.
        DataError: The videos are wrong.
    """
    config = arguments.config
    plan, _ = settle(config.train, arguments.ds_config)
    print(f"output       {choose_output(arguments)}")
    print(f"starts from  {config.weights or 'random weights'}")
    print(f"batch        {batch_line(plan)}")
    reader = data.open_videos(config)
    print(f"data         {len(reader)} videos")
    if held_out := data.open_held_out(config):
        print(f"validation   {min(config.validation.samples, len(held_out))} of {len(held_out)} held-out videos")
    print(f"steps        {number_of_steps(config.train, len(reader))}")
