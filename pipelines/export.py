"""Turn a run's newest checkpoint into a folder of weights that stands by itself.

python pipelines/export.py --checkpoint OUTPUT [--ema] --output DIR

Three functions open it: ``VTokPipeline.from_pretrained(DIR)``, ``vtok.assembly.pretrained.from_pretrained(DIR)``, and
transformers' ``LlavaNextForConditionalGeneration.from_pretrained(DIR)`` (or Qwen2.5-VL's class, if the model is one).
The folder names the frozen backbone and decoder and does not hold copies of them.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import torch

from pipelines.cli.errors import die
from pipelines.engine import models
from pipelines.engine.saving import checkpoint
from pipelines.inference.load import config_of
from vtok.assembly.build import frozen_part_names
from vtok.assembly.pretrained import save_pretrained
from vtok.config import ConfigError
from vtok.weights.materialise import whole

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def export(run: Path, output: Path, ema: bool = False, dtype: torch.dtype = torch.bfloat16) -> int:
    """Write the folder ``output``, which appears whole or not at all; returns the step of the weights.

    Args:
        run: output folder of a training run.
        ema: export the average of the weights.
        dtype: of what is written.

    Raises:
        ConfigError: there is no such run or checkpoint, or ``output`` is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} is there already: choose another --output")
    config = config_of(run)
    frozen = frozen_part_names(config.model)  # named in the folder, not copied into it
    framework = models.load_framework(config, run, whole(dtype), without=frozen)
    step = checkpoint.load_trained(framework, run, ema)
    part = output.with_name(f"{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    save_pretrained(framework, part)
    os.replace(part, output)
    return step


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="output folder of a training run")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--ema", action="store_true", help="export the average of the weights")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    a = parser.parse_args(argv)
    try:
        step = export(a.checkpoint, a.output, a.ema, DTYPES[a.dtype])
    except ConfigError as error:
        die("export", error)
    which = "their average" if a.ema else "the weights"
    print(f"{a.output}: {which} after step {step} of {a.checkpoint}, {a.dtype}")


if __name__ == "__main__":
    main(sys.argv[1:])
