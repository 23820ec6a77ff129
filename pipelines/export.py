"""Turn a run's checkpoint, by default the newest, into a folder of weights that stands by itself.

python pipelines/export.py --checkpoint OUTPUT [--step N] [--ema] [--merge] --output DIR [--push USER/NAME [--private]]

Three functions open it: ``VTokPipeline.from_pretrained(DIR)``, ``vtok.assembly.pretrained.from_pretrained(DIR)``, and
transformers' ``LlavaNextForConditionalGeneration.from_pretrained(DIR)`` (or Qwen2.5-VL's class, if the model is one).
The folder names the frozen backbone and decoder and does not hold copies of them.

A language model with adapters is named too: the folder then holds its adapters alone, which ``peft.PeftModel`` opens.
``--merge`` adds them to its weights and writes these.

``--push`` adds a model card and uploads the folder to the hub; log in there first (``hf auth login``, or ``HF_TOKEN``).
"""

import argparse
from pathlib import Path

from pipelines.cli.checks import require_new_folder
from pipelines.cli.errors import user_errors
from pipelines.cli.steps import add_step, with_step
from vtok.config import require


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a run, or of a checkpoint of it")
    add_step(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--ema", action="store_true", help="export the average of the weights")
    parser.add_argument("--merge", action="store_true", help="add the language model's adapters to its weights")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--push", metavar="USER/NAME", help="upload the folder to the hub, with a model card")
    parser.add_argument("--private", action="store_true", help="of a new repository on the hub")
    a = with_step(parser.parse_args(argv))
    require(a.push or not a.private, "--private goes with --push")
    require_new_folder("--output", a.output)
    return a


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    with user_errors("export"):
        a = parse_arguments(argv)

        from pipelines.inference.export import export  # only now: this imports the libraries, which takes seconds
        from pipelines.inference.publish import publish, require_publishable

        if a.push:
            require_publishable(a.checkpoint, a.push, a.merge)
        step = export(a.checkpoint, a.output, a.ema, a.dtype, a.merge)
        which = "their average" if a.ema else "the weights"
        print(f"{a.output}: {which} after step {step} of {a.checkpoint}, {a.dtype}", flush=True)
        if a.push:
            print(f"pushed to {publish(a.checkpoint, a.output, a.push, a.ema, a.private)}")


if __name__ == "__main__":
    main()
