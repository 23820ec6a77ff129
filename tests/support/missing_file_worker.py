"""Two ranks of which the second sees a folder without the autoencoder's weights, as on a node that lacks the file.

deepspeed --num_gpus 2 missing_file_worker.py MODELS (which it changes)
"""

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch

from pipelines.cli.errors import die
from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import deepspeed_config
from pipelines.engine.weights import placement
from support.launch import REPO
from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.config import ConfigError

distributed.connect()
models = Path(sys.argv[-1])
if distributed.rank() == 1:
    models = shutil.copytree(models, models.with_name("second"))
    (models / "hunyuan/vae/diffusion_pytorch_model.safetensors").unlink()
train = TrainConfig(max_steps=1, global_batch_size=2)
config = deepspeed_config(REPO / "deepspeed_configs" / "zero3.json", train, plan_batch(2, 1, 2))
place = placement(config, torch.float32)
try:
    distributed.every_rank(lambda: build_framework(model_config(models), place))
except ConfigError as error:
    die("worker", error, distributed.rank())
