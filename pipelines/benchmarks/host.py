"""What a micro-step costs the host under ZeRO-3's hooks, at the published depth and next to no width.

Language model (32 layers) and diffusion transformer (20 double and 40 single blocks) of the paper's run are so narrow,
and get so few tokens, that arithmetic takes little of the time. Both are checkpointed. On one rank nothing is gathered.
So the figures are hooks, operators and autograd, without the calls of collectives.
"""

from statistics import median

import torch
from deepspeed.utils import set_z3_leaf_module
from torch import Tensor, nn

from pipelines.benchmarks.gpu import published
from pipelines.benchmarks.gpu.sizes import NARROW, Sizes
from pipelines.benchmarks.models import RandomPart
from pipelines.benchmarks.paired import cpu_seconds
from pipelines.benchmarks.scaling import ZERO3
from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine, deepspeed_config, gathered_whole
from vtok.video_decoder.hunyuan import Conditioning
from vtok.weights.materialise import materialise, whole

SIZES = Sizes(models=NARROW, video=(5, 32, 32), text_rows=6, states=64, packed=(5, 7))
PLAIN, ZERO, WHOLE = WAYS = "plain torch", "ZeRO-3", "ZeRO-3, each block gathered whole"
DEPTH = 32, 20, 40  # layers of the language model, double and single blocks


class Narrow(nn.Module):
    """The language model and, if wanted, the decoder; a forward is one loss."""

    def __init__(self, depth: tuple[int, int, int], with_decoder: bool):
        super().__init__()
        self.mllm = published.language_model(SIZES, depth[0])
        self.decoder = published.decoder(SIZES, *depth[1:]) if with_decoder else None
        if self.decoder is not None:
            self.decoder.vae = self.decoder.text_encoder = nn.Identity()
        materialise(self, [RandomPart()], whole())

    def forward(self) -> Tensor:
        embeddings = torch.ones(1, sum(SIZES.packed), self.mllm.dim, requires_grad=True)
        hidden = self.mllm(embeddings, list(SIZES.packed))
        loss = hidden.last.square().mean() + hidden.conditioning.square().mean()
        if self.decoder is not None:
            rows = hidden.conditioning[:, : SIZES.text_rows]
            pooled = torch.ones(1, self.decoder.transformer.config["pooled_projection_dim"])
            latents = torch.ones(1, *self.decoder.latent_shape(*SIZES.video))
            made = self.decoder.velocity(latents, torch.ones(1), Conditioning(rows, [SIZES.text_rows], pooled))
            loss = loss + made.square().mean()
        return loss


def host_work(depth: tuple[int, int, int] = DEPTH, repeats: int = 5) -> dict[str, list[float]]:
    """CPU seconds of forward and backward: the language model's alone, and with the decoder's.

    Args:
        depth: Layers of the language model, double and single blocks.
        repeats: Of each measurement, after three steps in which ZeRO-3 records the order of the modules.

    Returns:
        Both figures in plain torch, under ZeRO-3, and under ZeRO-3 where each block is gathered whole.
    """
    distributed.connect()
    train = TrainConfig(max_steps=1, global_batch_size=1, precision="fp32")
    config = deepspeed_config(ZERO3, train, plan_batch(1, 1, 1))
    return {way: [measured(way, Narrow(depth, both), config, train, repeats) for both in (False, True)] for way in WAYS}


def measured(way: str, model: Narrow, config: dict, train: TrainConfig, repeats: int) -> float:
    """CPU seconds of one model's forward and backward in one of the ``WAYS``; the update after it is not counted."""
    if way == WHOLE:
        for unit in gathered_whole(model):  # type: ignore[arg-type]  # it has a framework's two parts
            set_z3_leaf_module(unit, True)
    if way == PLAIN:
        return median(cpu_seconds(lambda: model().backward())() for _ in range(3 + repeats))
    engine, taken = build_engine(model.train(), config, train), []
    for _ in range(3 + repeats):
        taken.append(cpu_seconds(lambda: engine.backward(engine()))())
        engine.step()
    return median(taken[3:])
