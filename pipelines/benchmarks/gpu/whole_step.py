"""A whole training step, as deep as the published models and 1/64 as wide: what it costs the host.

The device has next to nothing to do at this width, so the step takes as long as the host needs to start its kernels.
"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch

from pipelines.benchmarks.gpu import measure, published
from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.benchmarks.models import RandomPart
from pipelines.metering.meter import OPERATORS, metered
from pipelines.planning.rates import Rates
from vtok.assembly.architectures import assemble
from vtok.assembly.tiny import write_tiny_models
from vtok.framework import VTokFramework
from vtok.rows.batch import Batch
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.rows.text import TextEncoder
from vtok.weights.materialise import Place, materialise, whole


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        micro_step, update, whole_step, how = start(Path(folder), sizes, device)
        whole_step()
        forward_backward, updates = [], []
        for _ in range(sizes.repeats):
            forward_backward.append(measure.wall_seconds(micro_step, device))
            updates.append(measure.wall_seconds(update, device))
        taken, assumed = median(forward_backward), Rates().host_seconds
        yield Finding(f"a micro-step, forward and backward ({how})", taken, "s", assumed, rate="host_seconds")
        assumed = Rates().host_operators
        yield Finding("operators in it", operators(Path(folder), sizes), "calls", assumed, rate="host_operators")
        yield Finding("an update", median(updates), "s")
        alone = median(measure.wall_seconds(whole_step, device) for _ in range(sizes.repeats))
        yield Finding("a step of one micro-step, as the run takes it", alone, "s")
        traced = measure.trace(whole_step, device)
        yield Finding("share of it in which the device is idle", max(0.0, 1 - traced.busy / alone), "of 1")
        yield Finding("kernels", sum(kernel.calls for kernel in traced.kernels), "calls")
        yield Finding("waits of the host for the device, by the profiler", traced.synchronisations, "calls")
        yield warned(whole_step, device)


def warned(work: measure.Work, device: torch.device) -> Finding:
    """Synchronisations that torch itself tells of; it does not know those of libraries."""
    name = "waits of the host for the device, by torch's warnings"
    if device.type != "cuda":
        return Finding(name, None, "calls", note="only a GPU has them")
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    torch.cuda.set_sync_debug_mode("default")
    return Finding(name, sum("synchroniz" in str(warning.message) for warning in caught), "calls")


def start(folder: Path, sizes: Sizes, device: torch.device) -> tuple[measure.Work, measure.Work, measure.Work, str]:
    """Forward and backward, the update after it, and both as the run takes them; and under what."""
    if find_spec("deepspeed"):
        from pipelines.benchmarks.gpu.sharded import start_sharded  # which needs DeepSpeed

        return *start_sharded(lambda place: random_framework(folder, sizes, place), batch_of, sizes), "ZeRO-3, one rank"
    framework = random_framework(folder, sizes, whole(torch.bfloat16, device)).to(device)
    batch = batch_of(framework, sizes).to(device)
    trained = [p for p in framework.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, fused=True)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    def micro_step() -> None:
        framework(batch)["loss"].backward()

    return micro_step, update, lambda: (micro_step(), update()), "plain PyTorch"


def operators(folder: Path, sizes: Sizes) -> int:
    """Operators of the same micro-step, as a plan counts them."""
    framework = random_framework(folder, sizes, None)
    batch = batch_of(framework, sizes).to(torch.device("meta"))
    return metered(lambda: framework(batch)["loss"].backward()).work[OPERATORS]


def random_framework(folder: Path, sizes: Sizes, place: Place | None) -> VTokFramework:
    """The paper's framework, narrow, with a tiny tokenizer; on the meta device where it has no place."""
    model = published.paper_run().model
    with torch.device("meta") if place is None else nullcontext():
        framework = assemble(model, published.reader(sizes.whole))
    framework = published.in_bf16(framework) if place is None else materialise(framework, [RandomPart()], place)
    write_tiny_models(folder, CAPTION_INSTRUCTIONS)
    model.mllm.weights, model.decoder.weights = f"{folder}/llava", f"{folder}/hunyuan"
    framework.text = TextEncoder.from_pretrained(model)
    return framework.train()


def batch_of(framework: VTokFramework, sizes: Sizes) -> Batch:
    """One clip of noise with a caption, of the run's shapes."""
    frames, height, width = sizes.video
    side, count = framework.tokeniser.feature_extractor.image_size, -(-frames // 4)

    def pixels(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, (1, *shape), dtype=torch.uint8)

    text = framework.text.sample(" ".join(CAPTION_INSTRUCTIONS[:3]), None, None, 0)
    views = pixels(count, 3, side, side), [count], pixels(frames, 3, height, width), [frames]
    return Batch(*views, [text], decoder_seeds=[0], head_seeds=[0], keys=["0"])
