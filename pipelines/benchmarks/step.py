"""A training step, against its modules' forward and backward alone, and against itself under DeepSpeed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils._pytree import tree_leaves, tree_map

from pipelines.benchmarks.freed_memory import keep_freed_memory
from pipelines.benchmarks.models import LARGE, Size, random_batch, random_framework
from pipelines.benchmarks.paired import cpu_seconds, ratio
from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine, deepspeed_config, parameter_groups
from vtok.framework import VTokFramework
from vtok.mllm.packed_attention import whole_rows
from vtok.rows.batch import Batch

ZERO3 = Path(__file__).parents[2] / "deepspeed_configs" / "zero3.json"


class Call:
    """A call of a module, as the step made it, to be made again by itself."""

    def __init__(self, function: Callable, args: tuple, options: dict):
        self.function, self.with_gradients = function, torch.is_grad_enabled()
        self.inputs = tree_map(_cut, (args, options))

    def __call__(self) -> None:
        """Forward, and backward from a gradient of ones where gradients passed."""
        args, options = self.inputs
        with torch.set_grad_enabled(self.with_gradients):
            made = [x for x in tree_leaves(self.function(*args, **options)) if isinstance(x, Tensor)]
            made = [x for x in made if x.requires_grad]
            if made:
                torch.autograd.backward(made, [torch.ones_like(x) for x in made])


def calls_of(framework: VTokFramework, batch: Batch) -> list[Call]:
    """What one step asks of its modules."""
    parts: list[tuple[Any, str]] = [
        (framework.tokeniser.feature_extractor, "forward"), (framework.tokeniser.motion_encoder, "forward"),
        (framework.projection, "forward"), (framework.mllm.embed, "forward"), (_model(framework), "forward"),
        (framework.mllm.lm_head, "forward"), (framework.decoder.vae, "encode"),
        (framework.decoder.text_encoder, "forward"), (framework.decoder.transformer, "forward"),
        *((head, "loss") for head in framework.visual_head.values()),
    ]  # fmt: skip
    calls: list[Call] = []
    for owner, name in parts:
        setattr(owner, name, _recorded(getattr(owner, name), calls))
    try:
        framework(batch)["loss"].backward()
    finally:
        for owner, name in parts:
            delattr(owner, name)
    return calls


def _recorded(function: Callable, calls: list[Call]) -> Callable:
    def call(*args, **options):
        calls.append(Call(function, args, options))
        return function(*args, **options)

    return call


def _cut(value: Any) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
        return value
    return value.detach().requires_grad_(value.requires_grad)


def stepping(folder: Path, size: Size = LARGE, clips: int = 2, repeats: int = 3) -> dict[str, float]:
    """Ratios of CPU time, one rank, fp32.

    modules: loss and backward over the modules' own, each called again as the step called it. tokens, passes, wasted:
    of the language model in that step; wasted is the share of its positions that belong to no row. packed: the language
    model on packed rows over rows padded to the longest. unmasked: the diffusion transformer without its mask of ones
    over with it.
    """
    framework = random_framework(folder, size)
    batch = random_batch(framework, clips)
    calls = calls_of(framework, batch)
    of_language_model = [call for call in calls if getattr(call.function, "__self__", None) is _model(framework)]
    given = of_language_model[0].inputs[1]

    def step() -> None:
        framework(batch)["loss"].backward()

    def modules() -> None:
        for call in calls:
            call()

    step(), modules()
    return dict(
        modules=ratio(cpu_seconds(step), cpu_seconds(modules), repeats),
        tokens=given["inputs_embeds"].shape[:2].numel(),
        passes=len(of_language_model),
        wasted=1 - sum(given["row_lengths"]) / given["inputs_embeds"].shape[:2].numel(),
        packed=packed(framework, given["inputs_embeds"], given["row_lengths"], given["shared_row"], repeats),
        unmasked=unmasked(framework, random_batch(framework, 1), repeats),
    )


def _model(framework: VTokFramework) -> nn.Module:
    return framework.mllm.causal_lm.model


def packed(framework: VTokFramework, rows: Tensor, lengths: list[int], shared: int | None, repeats: int) -> float:
    """CPU time of the language model's forward and backward, packed over padded rows, each of which is whole."""
    whole = whole_rows(rows.detach()[0], lengths, shared, dim=0)
    if shared is not None:
        del whole[shared]
    padded = pad_sequence(whole, batch_first=True)

    def run(embeddings: Tensor, *packing: Any) -> Callable[[], float]:
        return cpu_seconds(lambda: framework.mllm(embeddings, *packing).last.sum().backward())

    return ratio(run(rows.detach(), lengths, shared), run(padded), repeats)


def unmasked(framework: VTokFramework, batch: Batch, repeats: int) -> float:
    """CPU time of the diffusion transformer's forward: attention clip by clip over diffusers' own with its mask."""
    calls, transformer = calls_of(framework, batch), framework.decoder.transformer
    call = next(call for call in calls if getattr(call.function, "__self__", None) is transformer)
    args, options = call.inputs
    ours = transformer.attn_processors
    theirs = {
        name: HunyuanVideoAttnProcessor2_0() if own is framework.decoder.attention else own
        for name, own in ours.items()
    }

    def run(processors: dict[str, Any]) -> Callable[[], float]:
        @torch.no_grad()
        def forward() -> None:
            transformer.set_attn_processor(dict(processors))
            transformer(*args, **options)

        return cpu_seconds(forward)

    return ratio(run(ours), run(theirs), repeats)


def under_deepspeed(folder: Path, size: Size = LARGE, clips: int = 2, repeats: int = 3) -> float:
    """CPU time of an optimiser step with ZeRO-3 on one rank over that of plain PyTorch, the same AdamW in both."""
    keep_freed_memory()
    distributed.connect()
    train = TrainConfig(max_steps=1, global_batch_size=clips, micro_batch_size=clips, precision="fp32")
    plain, sharded = random_framework(folder / "plain", size), random_framework(folder / "sharded", size)
    batch = random_batch(plain, clips)
    optimiser = torch.optim.AdamW(
        parameter_groups(plain, train), lr=train.lr, betas=train.betas, eps=train.eps, fused=True
    )
    engine = build_engine(sharded, deepspeed_config(ZERO3, train, plan_batch(clips, clips, 1)), train)

    def bare() -> None:
        plain(batch)["loss"].backward()
        nn.utils.clip_grad_norm_(plain.parameters(), train.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()

    def ours() -> None:
        engine.backward(engine(batch)["loss"])
        engine.step()

    bare(), ours()
    measured = ratio(cpu_seconds(ours), cpu_seconds(bare), repeats)
    deepspeed.comm.destroy_process_group()
    return measured
