"""Scores one dimension. VBench's own Python runs this file, in an environment that does not have our packages.

    python score.py JOB.json

JOB.json holds the arguments of :func:`main`.
"""

import json
import os
import sys
from pathlib import Path

import torch
from vbench import VBench


def main(full_info: str, videos: str, output: str, dimension: str, prompts: dict[str, str] | None) -> None:
    """Writes VBench's result, ``output/DIMENSION_eval_results.json``.

    VBench's own command is not used, since it starts NCCL and so needs a GPU.

    Args:
        full_info: VBench's table of prompts.
        videos: Folder of the videos.
        output: Folder of the result.
        dimension: The dimension.
        prompts: Prompt by the file name of the video; ``None`` for the suite's videos, PROMPT-K.mp4.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    how = {"mode": "vbench_standard"} if prompts is None else {"mode": "custom_input", "prompt_list": prompts}
    bench = VBench(device, full_info, output)
    bench.evaluate(videos_path=videos, name=dimension, dimension_list=[dimension], local=True, **how)


if __name__ == "__main__":
    main(**json.loads(Path(sys.argv[1]).read_text()))
