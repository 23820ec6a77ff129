"""The stages of ``vtok-finetune``. Each leaves a mark in the output when it is done, and a later start skips it.

OUTPUT/finetune.json    what was asked for; another start must ask for the same
       shards/          the clips, packed and checked
       ready/           the same with what the frozen encoders give, in place of the videos
       before/          videos of the prompts by the model that it starts from
       run/             the training
       export/          the trained model
       after/           videos of the prompts by the trained model
       before_after.gif both, side by side
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data_tools.packing import build_shards
from data_tools.shards import ShardReader
from data_tools.shards.layout import MANIFEST
from pipelines.cli.config_files import plain
from pipelines.cli.parsing import RunArguments
from pipelines.config import RunConfig
from pipelines.engine import memory, models
from pipelines.engine.outputs import require_outside, state_of
from pipelines.engine.precomputing import precompute_shards
from pipelines.engine.program import run_program
from pipelines.engine.watching.trackers import require_installed
from pipelines.finetuning.comparison import draw, make_videos, prompts_for
from pipelines.inference.export import export
from pipelines.inference.noted import require_same, write_note
from pipelines.vtok_training.dry_run import checked_model, dry_run
from pipelines.vtok_training.run import train
from vtok.assembly.pretrained import CONFIG

PROGRAM = "vtok-finetune"
ASKED = "finetune.json"


def finetune(a: argparse.Namespace, arguments: RunArguments[RunConfig]) -> None:
    """Runs all stages that are not done, or with ``--dry_run`` none.

    Args:
        a: The command's own arguments.
        arguments: Those of its training.

    Raises:
        ConfigError: A setting is wrong, or the output was begun with other ones.
        DataError: The clips cannot be used.
    """
    config, output = arguments.config, a.output
    clips = Path(a.clips).expanduser()
    packed = (clips / MANIFEST).exists()
    if not packed:
        require_outside(clips, output, "CLIPS")
    if arguments.dry_run:
        data = replace(config.data, **{"shards" if packed else "root": str(clips)})
        dry_run(replace(arguments, config=replace(config, data=data)))
        return
    require_installed(config.track)
    models.quiet_libraries()
    generates, asked = config.model.generates, asked_for(clips, config)
    if (output / ASKED).exists():
        require_same(output / ASKED, asked)
    else:
        checked_model(config, output)

    told("shards", output / "shards")
    shards = clips if packed else pack(clips, output / "shards")
    write_note(output / ASKED, asked)
    told("encoders", output / "ready")
    if not (output / "ready" / MANIFEST).exists():
        kinds = dict.fromkeys(("latents", "captions", "drop_video"), generates)
        precompute_shards(argparse.Namespace(input=shards, output=output / "ready", **kinds), config)
    prompts = prompts_for(a.prompts, ShardReader(shards), a.samples if generates else 0)
    making = (prompts, config.data.seconds, a.denoising_steps, config.seed)
    if config.init.weights and prompts:
        told("videos before", output / "before")
        make_videos(Path(config.init.weights), output / "before", *making, ema=config.init.ema)
        memory.give_back()
    told("training", output / "run")
    if not (output / "export" / CONFIG).exists():
        data = replace(config.data, shards=str(output / "ready"))
        run_program(PROGRAM, replace(arguments, config=replace(config, data=data)), train)
        memory.give_back()
        told("export", output / "export")
        # Adapters alone would belong to a published language model, not to the one that it started from.
        merge = config.model.mllm.lora is not None and config.init.weights is not None
        export(output / "run", output / "export", ema=config.train.ema_decay is not None, merge=merge)
    if prompts:
        told("videos after", output / "after")
        make_videos(output / "export", output / "after", *making)
        picture = draw(prompts, [output / "before", output / "after"], config.model.decoder.fps, output)
        print(f"before and after  {picture}")
    print(f"the model         {output / 'export'}", flush=True)


def pack(clips: Path, shards: Path) -> Path:
    """Packs the clips, or goes on where a killed start stopped. Returns ``shards``."""
    if not (shards / MANIFEST).exists():
        build_shards(clips, shards)
    return shards


def asked_for(clips: Path, config: RunConfig) -> dict[str, Any]:
    """Returns everything that the trained model depends on."""
    return plain(asdict(config)) | {"clips": f"{clips.absolute()} {state_of(clips)}"}


def told(stage: str, place: Path) -> None:
    print(f"{PROGRAM}: {stage} -> {place}", flush=True)
