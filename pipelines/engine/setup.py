"""Builds a DeepSpeed engine from the framework, the run's configuration and the user's JSON."""

import math
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import deepspeed
import torch
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
from deepspeed.utils import set_z3_leaf_module
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from pipelines.cli.config_files import read_ds_config
from pipelines.config import OptimisationConfig
from pipelines.engine import cpu_op, distributed, ds_json, internals
from pipelines.engine.batch_plan import BatchPlan, plan_batch
from vtok.config import ConfigError, require
from vtok.framework import VTokFramework
from vtok.lora import adapted_layers, has_magnitude
from vtok.parts import entry_of
from vtok.weights import shape_of
from vtok.weights.precision import kept_in_fp32

Engine = deepspeed.DeepSpeedEngine
OFFLOADS = ("offload_optimizer", "offload_param")
MOST_ELEMENTS = 2**63  # torch cannot count more, in a bucket or elsewhere

# Ends of the messages about a value that the run computes.
COMPUTED = "the run computes it from the YAML and the number of ranks: remove it from the JSON"
PRECISION = "this engine trains in bf16 or fp32: remove it from the JSON and set train.precision"


def precision(train: OptimisationConfig) -> torch.dtype:
    """Returns the precision of a run: by default bf16 on GPUs and fp32 on a CPU."""
    if train.precision == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return torch.bfloat16 if train.precision == "bf16" else torch.float32


def settle(
    train: OptimisationConfig, ds_config: Path, even: bool = False, sequence_parallel: int = 1
) -> tuple[BatchPlan, dict]:
    """Returns the batch plan of a run and its DeepSpeed configuration. All ranks call this first.

    Args:
        train: Settings of the run.
        ds_config: Path of the user's DeepSpeed JSON.
        even, sequence_parallel: As in :func:`plan_batch`.

    Raises:
        ConfigError: The settings do not fit the number of ranks, or one another.
    """
    ranks = distributed.world_size()
    plan = plan_batch(train.global_batch_size, train.micro_batch_size, ranks, even, sequence_parallel)
    config = distributed.every_rank(lambda: deepspeed_config(ds_config, train, plan))
    if train.deterministic:
        repeat_to_the_last_digit()
    return plan, config


def deepspeed_config(path: Path, train: OptimisationConfig, batch: BatchPlan) -> dict:
    """Returns the user's JSON, completed with the values that the run computes.

    Raises:
        ConfigError: The file does not exist or is not JSON, one of its values disagrees with a computed one, its
            settings contradict one another, or something that they need is not installed.
    """
    settings = ds_json.settings_of(path, read_ds_config(path))
    computed = {
        "train_batch_size": batch.global_batch_size,
        "train_micro_batch_size_per_gpu": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.accumulation,
        "gradient_clipping": train.max_grad_norm,
        "bf16": {"enabled": precision(train) == torch.bfloat16, "check_grad_overflow": True},
    }
    bf16 = DeepSpeedBF16Config().model_dump() | computed["bf16"]
    needed = computed | {"bf16": bf16, "fp16": DeepSpeedFP16Config().model_dump()}
    for name, value, wanted in ds_json.differences(settings, needed):
        advice = PRECISION if name.startswith(("bf16.", "fp16.")) else COMPUTED
        raise ConfigError(f"{path}: {name} is {value}, but this run needs {wanted}; {advice}")
    settings.pop("fp16", None)  # it is off, as in the JSONs of other trainers
    # DeepSpeed counts the samples of all ranks, those that share samples too. It averages gradients over all ranks,
    # which is right for them (see vtok.sequence).
    computed["train_batch_size"] = batch.ranks * batch.micro_batch_size * batch.accumulation
    return settings | computed | {"zero_optimization": zero_config(path, settings.get("zero_optimization", {}), batch)}


def zero_config(path: Path, zero: dict, batch: BatchPlan) -> dict:
    """Checks and completes the ZeRO section of the JSON.

    If hpZ's partition size is ``"auto"``, it becomes the number of ranks of a machine.

    Raises:
        ConfigError: Its settings contradict one another, or this engine cannot train with them.
    """
    stage, devices = zero.get("stage"), {part: zero.get(part, {}).get("device", "none") for part in OFFLOADS}
    too_large = {key for key, value in zero.items() if isinstance(value, (int, float)) and value >= MOST_ELEMENTS}
    require(not too_large, f"{path}: zero_optimization.{min(too_large, default='')} must be below {MOST_ELEMENTS:,}")
    given = "not set" if stage is None else stage
    require(stage in (2, 3), f"{path}: zero_optimization.stage is {given}: this engine trains with 2 or 3")
    for old, new in {"cpu_offload": "offload_optimizer", "cpu_offload_param": "offload_param"}.items():
        require(old not in zero, f'{path}: zero_optimization.{old} is deprecated: write {new}: {{"device": "cpu"}}')
    for part, device in devices.items():
        require(device in ("none", "cpu"), f"{path}: {part}.device is {device}: use cpu or none")
    if devices["offload_optimizer"] == "cpu":
        cpu_op.prepare(cpu_op.ADAM)
    require(stage == 3 or devices["offload_param"] == "none", f"{path}: offload_param needs zero_optimization.stage 3")
    require(
        zero.get("compute_grad_norm", True),
        f"{path}: compute_grad_norm must be true: clipping and the log need the norm",
    )
    hpz = zero.get("zero_hpz_partition_size", 1)
    if hpz == "auto":
        hpz = distributed.ranks_here()
    require(hpz == 1 or stage == 3, f"{path}: zero_hpz_partition_size needs zero_optimization.stage 3")
    require(
        isinstance(hpz, int) and hpz >= 1 and batch.ranks % hpz == 0,
        f"{path}: zero_hpz_partition_size {hpz} does not divide {batch.ranks} ranks: set it to the GPUs of a machine",
    )
    return zero | ({"zero_hpz_partition_size": hpz} if stage == 3 else {})


def parameter_groups(model: nn.Module, train: OptimisationConfig) -> list[dict]:
    """Groups the trainable parameters by their entry of ``train.rates``.

    Each entry has up to two groups: matrices with weight decay; biases, norms and embeddings without. AdamW's decay is
    proportional to the learning rate, so that of a part to the part's.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = []
    for entry, rate in train.rates.items():
        own = [p for name, p in trainable if entry_of(name, train.rates) == entry]
        matrices = {id(p) for p in own if len(shape_of(p)) >= 2} - embeddings  # a shard is flat
        decayed = [p for p in own if id(p) in matrices]
        others = [p for p in own if id(p) not in matrices]
        groups += [
            {"params": decayed, "weight_decay": train.weight_decay, "lr": rate, "entry": entry},
            {"params": others, "weight_decay": 0.0, "lr": rate, "entry": entry},
        ]
    return [group for group in groups if group["params"]]


def learning_rates(step: int, train: OptimisationConfig, max_steps: int) -> dict[str, float]:
    """Returns the learning rates of step ``step`` (from 1), by their entries of ``train.rates``."""
    return {entry: learning_rate(step, train, max_steps, peak) for entry, peak in train.rates.items()}


def learning_rate(step: int, train: OptimisationConfig, max_steps: int, peak: float) -> float:
    """Returns a rate in step ``step`` (from 1): linear warm-up to the peak, then constant or cosine to a tenth."""
    if step <= train.warmup_steps:
        return peak * step / train.warmup_steps
    if train.schedule == "constant":
        return peak
    progress = (step - train.warmup_steps) / max(1, max_steps - train.warmup_steps)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def build_engine(model: nn.Module, ds_config: dict, train: OptimisationConfig) -> Engine:
    """Builds the engine of a framework whose parameters are whole or shards. ZeRO-3 shards those that are still whole.

    Only trainable parameters reach the optimiser. The fp32 master weights are copied from the parameters in the run's
    precision. So in a bf16 run they have only bf16 digits, even if a checkpoint has more.

    Raises:
        ConfigError: DeepSpeed refuses the JSON, or the JSON makes it cast buffers, or DeepSpeed's AdamW for the host
            cannot be compiled.
    """
    offloaded = ds_config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none") != "none"
    kind = host_adamw if offloaded else partial(torch.optim.AdamW, fused=True)
    groups = parameter_groups(model, train)
    options = dict(lr=train.lr, betas=train.betas, eps=train.eps)
    optimiser = distributed.every_rank(lambda: kind(groups, **options))
    for layer in filter(has_magnitude, adapted_layers(model)):
        set_z3_leaf_module(layer, True)  # ZeRO-3 then gathers all its parameters around its forward and backward
    if isinstance(model, VTokFramework):
        for unit in (*gathered_whole(model), *encoder_layers(model)):
            set_z3_leaf_module(unit, True)
    if isinstance(model, VTokFramework) and model.decoder is not None:
        internals.gather_at_once(model.decoder.vae, ("encode", "decode"))
    fp32 = {parameter: parameter.data for parameter in kept_in_fp32(model) if not parameter.requires_grad}
    with ds_json.refusals():
        engine, *_ = deepspeed.initialize(model=model.train(), optimizer=optimiser, config=ds_config)
    for parameter, values in fp32.items():
        if not hasattr(parameter, "ds_id"):  # ZeRO-3's shards keep their dtype; DeepSpeed casts whole parameters
            parameter.data = values.to(engine.device)
    settle_buffers(engine.module, engine.device)
    if engine.zero_optimization_stage() == 3:
        internals.lighten_hooks(engine)
        internals.gather_small_together()
    return engine


def gathered_whole(framework: VTokFramework) -> Iterator[nn.Module]:
    """Yields the units of language model and diffusion transformer. ZeRO-3 gathers each of them whole.

    They are the blocks and the transformer's parts beside its blocks, of which none is much larger than a block. Hooks
    around each layer of a unit would cost the host more than the unit itself.
    """
    yield from blocks_of(framework)
    if gathers_transformer(framework):
        yield from (part for part in framework.decoder.transformer.children() if not isinstance(part, nn.ModuleList))


def blocks_of(framework: VTokFramework) -> Iterator[nn.Module]:
    """Yields the blocks of language model and diffusion transformer."""
    yield from framework.mllm.causal_lm.model.layers
    if gathers_transformer(framework):
        for stack in framework.decoder.block_stacks():
            yield from stack


def gathers_transformer(framework: VTokFramework) -> bool:
    """Whether there is a diffusion transformer without adapters: a step without ``L_dec`` runs adapters alone."""
    return framework.decoder is not None and not any(adapted_layers(framework.decoder.transformer))


def encoder_layers(framework: VTokFramework) -> Iterator[nn.Module]:
    """Yields the layers of the backbone and of the decoder's text encoder that are transformers."""
    encoders = framework.tokeniser.feature_extractor, getattr(framework.decoder, "text_encoder", None)
    for encoder in filter(None, encoders):
        yield from (layer for layer in encoder.modules() if isinstance(layer, GradientCheckpointingLayer))


def host_adamw(groups: list[dict], **options) -> torch.optim.Optimizer:
    """Builds DeepSpeed's AdamW for the host, which DeepSpeed compiles at first use.

    Raises:
        ConfigError: It cannot be compiled on this machine.
    """
    try:
        return deepspeed.ops.adam.DeepSpeedCPUAdam(groups, **options)
    except RuntimeError as error:
        raise ConfigError(
            f"offload_optimizer: DeepSpeed cannot compile its AdamW for the host ({cpu_op.reason_of(error)}): install "
            "what it lacks, or use a --ds_config without offload_optimizer"
        ) from error


def repeat_to_the_last_digit() -> None:
    """Makes torch use deterministic operations only. Call it before the first use of the GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def settle_buffers(model: nn.Module, device: torch.device) -> None:
    """Moves the buffers to the device. DeepSpeed does not move them if the framework was loaded as shards.

    Raises:
        ConfigError: A buffer is no longer fp32. Rotary frequencies in bf16 would give every token a wrong position.
    """
    for prefix, owner in model.named_modules():
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if buffer.is_floating_point() and buffer.dtype != torch.float32:
                raise ConfigError(
                    f"the buffer {prefix}.{name} is {buffer.dtype}, but must stay fp32: take data_types.buffer_dtype "
                    "out of the --ds_config JSON"
                )
            setattr(owner, name, buffer.to(device))


def set_learning_rates(engine: Engine, rates: Mapping[str, float]) -> None:
    """Sets the learning rate of each group, by its entry."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rates[group["entry"]]
