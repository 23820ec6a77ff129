"""One rank that trains several times in one process, which spares the start of each.

deepspeed --num_gpus R train_worker.py ARGUMENTS [+ ARGUMENTS ...]          each as for pipelines/train.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from pipelines.cli.parsing import parse_run_arguments
from pipelines.engine import distributed
from pipelines.engine.run_control import Stopper
from pipelines.vtok_training.run import train

distributed.connect()
stopper = Stopper("vtok-train")
command: list[str] = []
for argument in [*sys.argv[1:], "+"]:
    if argument != "+":
        command.append(argument)
    else:
        train(parse_run_arguments(command), stopper)
        command = []
