"""Checks a run up to its first step and prints a summary of it. It writes nothing and loads no weights."""

from dataclasses import replace
from pathlib import Path

from data_tools.errors import DataError
from data_tools.shards.remote import is_remote
from data_tools.streaming.mixture import Mixture
from pipelines.cli.parsing import RunArguments
from pipelines.cli.stages import stages_of
from pipelines.config import RunConfig
from pipelines.engine import initial, models
from pipelines.engine.beginning import number_of_steps
from pipelines.engine.loading.buckets import settle_buckets
from pipelines.engine.loading.loader import build_dataset, collate
from pipelines.engine.outputs import choose_output, find_held_out, find_shards, open_shards, require_outside
from pipelines.engine.setup import settle
from pipelines.engine.watching.trackers import require_installed
from pipelines.vtok_training.summary import batch_line, mixture_lines, origin
from vtok.assembly.build import pretrained_parts
from vtok.framework import VTokFramework
from vtok.mllm import generation_config
from vtok.rows.text import TextEncoder
from vtok.weights import shapes_of


def dry_run(arguments: RunArguments[RunConfig]) -> None:
    """Checks a run and prints its output folder, weights, batch, data, steps and first sample.

    Raises:
        ConfigError: A setting, the DeepSpeed JSON or the weights are wrong.
        DataError: The data are wrong.
    """
    if arguments.config.stages:
        output = choose_output(arguments)
        for stage in stages_of(arguments.config):
            print(f"\n{stage.folder}")
            dry_run(replace(arguments, config=stage.config, output=output / stage.folder))
        return
    config = arguments.config
    require_installed(config.track)
    plan, _ = settle(config.train, arguments.ds_config, bool(config.data.buckets), config.train.sequence_parallel)
    output = choose_output(arguments)
    print(f"output       {output}")
    print(f"starts from  {origin(config)}")
    print(f"batch        {batch_line(plan)}")
    framework = None if config.tiny_models else checked_model(config, output)
    if built_at_start(config):
        if config.data.root:
            require_outside(Path(config.data.root), output, "data.root")
        print("data         built when the run starts")
        return
    shards = find_shards(config, output)
    find_held_out(config, shards)
    reader = open_shards(config, shards)
    print(f"data         {len(reader)} samples in {', '.join(shards)}")
    if isinstance(reader, Mixture):
        print("\n".join(mixture_lines(config.data.sources, reader)))
    print(f"steps        {number_of_steps(config.train, len(reader))}")
    if framework:
        settle_buckets(config, reader, framework)
        if config.data.buckets:
            print(f"buckets      {', '.join(config.data.buckets)}")
        loaded = collate([build_dataset(config, reader, framework, training=True)[0]])
        tokens = sum(framework.tokeniser.counts(loaded.batch.frame_counts[0]))
        print(f"first sample {loaded.batch.keys[0]}: {loaded.batch.frame_counts[0]} frames, {tokens} visual tokens")


def built_at_start(config: RunConfig) -> bool:
    """Whether the run renders or packs its data when it starts.

    Raises:
        DataError: ``data.root`` is not a folder.
    """
    data = config.data
    if data.shards or data.mixture:
        return False
    if not data.root:
        return config.demo is not None
    if is_remote(data.root) or Path(data.root, "manifest.json").exists():
        return False
    if not Path(data.root).is_dir():
        raise DataError(f"data.root: there is no folder {data.root}")
    return True


def checked_model(config: RunConfig, output: Path) -> VTokFramework:
    """Builds the framework on the meta device, and checks all weights by the headers of their files.

    Returns:
        The framework with its tokenizers.
    """
    framework = models.assembled(config, output)
    if framework.decoder is not None:
        framework.decoder.require_heads(config.train.sequence_parallel)
    shapes = shapes_of(framework)
    for part in pretrained_parts(framework.config).values():
        part.all_tensors(shapes)
    generation_config(framework.config.mllm)  # which raises if it cannot be used
    framework.text = TextEncoder.from_pretrained(framework.config)
    with initial.opened(config.init, framework):
        pass
    trained = sum(p.numel() for p in framework.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in framework.parameters() if not p.requires_grad)
    print(f"parameters   {trained / 1e6:,.1f} M trained, {frozen / 1e6:,.1f} M frozen")
    return framework
