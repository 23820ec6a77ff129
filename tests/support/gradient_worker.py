"""One rank: gradients of the summed loss after one global batch, against the plain reference.

deepspeed --num_gpus R gradient_worker.py MODELS VARIANT ACCUMULATION CHECKPOINTING DS_CONFIG ...

A VARIANT such as mixed:ttvv:tvvt has a batch for each mix of samples (see support.tiny.mixed_batch). With /2 behind its
name, as in wan/2, two ranks share each sample.
"""

import copy
import os
import sys
from functools import partial
from itertools import product
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch
from deepspeed.utils import safe_get_full_grad

from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.compiling import compile_blocks
from pipelines.engine.setup import build_engine
from support.adapters import DORA, LORA, adapted_config, disturbed, with_peft
from support.engines import all_sharded, own_part
from support.reference import global_loss
from support.tiny import fp8_config, make_batch, mixed_batch, model_config, wan_config
from vtok.assembly.build import build_framework
from vtok.parts import learnable_names, train_only

# What trains of the model, under "parts": half of the language model's blocks, its head, and two parts beside it.
PARTS = {"language_model.layers.2-3": 1e-5, "lm_head": 1e-5, "g_phi": 1e-4, "visual_head": 1e-3}
VARIANTS = {
    "hunyuan": (model_config, None),
    "wan": (wan_config, None),
    "parts": (model_config, PARTS),
    "lora": (adapted_config, None),
    "dora": (partial(adapted_config, lora=DORA), {"lora": 1e-4, "g_phi": 1e-4}),
    "mixed": (model_config, None),
    "mixed_wan": (wan_config, None),
    "compiled": (model_config, None),
    "compiled_fp8": (fp8_config, None),
    "decoder_lora": (partial(adapted_config, lora=None, decoder=LORA), {"decoder_lora": 1e-4, "embeddings": 1e-5}),
}

models, variants, accumulation, checkpointing, *ds_configs = [arg for arg in sys.argv[1:] if not arg.startswith("--")]
named, *mixes = variants.split(":")
variant, _, ranks_of_a_sample = named.partition("/")
shared_by = int(ranks_of_a_sample or 1)
distributed.connect()
own_buffer = f"deepspeed_allreduce_buffer_*_{os.environ['MASTER_PORT']}_{distributed.rank()}"
assert not list(Path("/dev/shm").glob(own_buffer)), "shared memory that outlives the run"
torch.manual_seed(0)
configuration, parts = VARIANTS[variant]
lora = configuration(models).mllm.lora
plain = with_peft(models, lora) if lora else disturbed(build_framework(configuration(models)))
weights = copy.deepcopy(plain.state_dict())
batches = [mixed_batch(plain, kinds) for kinds in mixes] or [make_batch(plain)]


def gradients(batch):
    """The plain reference's, by name."""
    plain.zero_grad(set_to_none=True)
    # Wan's own loss is compared with diffusers in tests/model/test_wan.py: here it is that of one process.
    (global_loss(plain.train(), batch) if "wan" not in variant else plain.train()(batch)["loss"]).backward()
    return {name: p.grad for name, p in plain.named_parameters()}


references = [gradients(batch) for batch in batches]
if parts is not None:
    train_only(plain, learnable_names(plain), parts)  # after its backward: frozen parameters change no other's gradient
# In fp32 an adapter's gradient is rounded more: it passes two further products, and is smaller than a layer's.
tolerance = 1e-4 if lora else 1e-5
trained = [name for name, p in plain.named_parameters() if p.requires_grad]

train = TrainConfig(
    max_steps=1,
    global_batch_size=4,
    micro_batch_size=4 * shared_by // distributed.world_size() // int(accumulation),
    parts=parts,
)
plan = plan_batch(4, train.micro_batch_size, distributed.world_size(), sequence_parallel=shared_by)
assert plan.accumulation == int(accumulation)


def sharded(ds_config):
    """An engine with the reference's weights."""
    recompute = configuration(models)
    recompute.mllm.gradient_checkpointing = recompute.decoder.gradient_checkpointing = checkpointing == "True"
    framework = build_framework(recompute)
    framework.load_state_dict(weights)
    train_only(framework, framework.learnable, parts)
    if shared_by > 1:
        framework.decoder.share(distributed.sequence_group(shared_by))
    if variant.startswith("compiled"):
        compile_blocks(framework, "aot_eager")
    return build_engine(framework, all_sharded(ds_config, train, plan), train)


def backward(engine, batch, with_decoder=True):
    """One global batch, up to the update, which is left to the caller."""
    for step in range(plan.accumulation):
        engine.backward(engine(own_part(batch, plan, step), with_decoder=with_decoder)["loss"])
        if step < plan.accumulation - 1:
            engine.step()


for ds_config, (batch, reference) in product(ds_configs, zip(batches, references)):
    engine = sharded(ds_config)
    backward(engine, batch)
    worst = 0.0
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        gradient = safe_get_full_grad(parameter)
        assert gradient is not None, f"{name} got no gradient"
        expected = torch.zeros_like(gradient) if reference[name] is None else reference[name]
        error, size = (gradient - expected).norm().item(), expected.norm().item()
        assert error <= tolerance * size or (size == 0 and error <= 1e-8), (name, error, size)
        worst = max(worst, error / size if size else 0.0)
    copies = [getattr(p, "ds_secondary_tensor", None) is not None for p in engine.module.parameters()]
    assert all(copies) if "hpz" in ds_config else not any(copies)
    engine.step()

    # A batch without any answer or caption has no loss. DeepSpeed would apply the last step's gradient again to a
    # parameter that took no part.
    backward(engine, make_batch(plain, captions=[None] * 4))
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            assert safe_get_full_grad(parameter).abs().max() == 0, f"{name} has a stale gradient"
    engine.step()

    # Neither has what the decoder trains in a step without L_dec.
    backward(engine, batch, with_decoder=False)
    for name, parameter in engine.module.decoder.named_parameters():
        if parameter.requires_grad:
            assert safe_get_full_grad(parameter).abs().max() == 0, f"{name} has a stale gradient"
    engine.step()
    agreed = f"{len(trained)} gradients agree, worst relative error {worst:.1e}"
    print(f"rank {distributed.rank()}: {ds_config}: {agreed}", flush=True)
deepspeed.comm.destroy_process_group()
