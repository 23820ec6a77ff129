"""One ZeRO-3 rank: sampling and answering with sharded weights, against the whole framework; then training goes on.

In between the ranks ask for unlike things, and the first has its answer before the others.

deepspeed --num_gpus R generate_worker.py MODELS
"""

import os
import sys
from datetime import timedelta

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch

from pipelines.config import TrainConfig
from pipelines.engine import distributed, internals
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine, deepspeed_config
from support.launch import REPO
from support.tiny import make_batch, model_config, part
from vtok.assembly.build import build_framework
from vtok.config import ConfigError
from vtok.generation import generate, sample_row
from vtok.understanding import question_embeddings, understand, video_embeddings

models = sys.argv[-1]
distributed.connect()
torch.manual_seed(0)
plain = build_framework(model_config(models))
framework = build_framework(model_config(models))
framework.load_state_dict(plain.state_dict())
batch = make_batch(plain)

plan = plan_batch(4, 2, distributed.world_size())
train = TrainConfig(max_steps=1, global_batch_size=4, micro_batch_size=2)
config = deepspeed_config(REPO / "deepspeed_configs" / "zero3.json", train, plan)
config["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # shard these tiny parameters too
engine = build_engine(framework, config, train)
assert all(p.ds_tensor.numel() < p.ds_numel for p in engine.module.parameters() if p.ds_numel > 2)


def used(framework):
    """A video and an answer; every rank asks for the same, so that all gather the same weights in step."""
    framework.eval()
    video = generate(framework, "A red circle", 1.25, 8, steps=2, generator=torch.Generator().manual_seed(0))
    answer = understand(framework, batch.frames[0], "What moves?", max_new_tokens=4, key_frame_every=1.0)
    framework.train()
    return video, answer


def step():
    first = distributed.rank() * 2
    loss = engine(part(batch, [first, first + 1]))["loss"]
    engine.backward(loss)
    engine.step()
    return distributed.mean_over_ranks(loss.detach())


expected_video, expected_answer = used(plain)
before = step()
plain_loss = plain.train()(batch)["loss"]
torch.testing.assert_close(before, plain_loss.detach(), atol=1e-5, rtol=1e-5)
after_one_step = used(engine.module)  # with a module trace recorded by training, and in another order than it
assert after_one_step[0].shape == expected_video.shape
optimiser = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=train.lr, weight_decay=0)
plain_loss.backward()
torch.nn.utils.clip_grad_norm_(plain.parameters(), train.max_grad_norm)
optimiser.step()
video, answer = used(plain)
assert (after_one_step[0].int() - video.int()).abs().max() <= 1 and after_one_step[1] == answer


def end_with(token: int) -> None:
    """Let answers end where this rank's models say this token."""
    for one in (plain, engine.module):
        one.text.tokenizer.eos_token = one.text.tokenizer.convert_ids_to_tokens(token)


@torch.no_grad()
def first_token(question: str) -> int:
    """Of the whole framework's answer."""
    row = question_embeddings(plain, video_embeddings(plain, batch.frames[0]), question)
    return int(plain.mllm.lm_head(plain.mllm(row).last[0, -1]).argmax())


internals.set_timeout(timedelta(seconds=60))  # a rank that is left alone does not wait for ever
for model in (plain, engine.module):
    model.eval()
question = ("What moves?", "Which colour has the thing that moves, and where does it go?")[distributed.rank() % 2]
first = first_token(question)
end_with(first if distributed.rank() == 0 else plain.text.tokenizer.convert_tokens_to_ids("?"))
answers = [understand(model, batch.frames[0], question, max_new_tokens=12) for model in (plain, engine.module)]
shortest = plain.text.tokenizer.decode([first]).strip()
assert answers[0] == answers[1] and (answers[0] == shortest) == (distributed.rank() == 0), (answers, shortest)
prompt = "A red circle" if distributed.rank() == 0 else "Two green squares go up"
rows = [sample_row(model, prompt, 5, generator=torch.Generator().manual_seed(1)) for model in (plain, engine.module)]
torch.testing.assert_close(*[torch.cat(row) for row in rows], atol=1e-4, rtol=1e-4)
try:
    generate(engine.module, "A red circle", 1.25, 8, steps=2 + distributed.rank())
    raise AssertionError("ranks that denoise unequally often wait for ever")
except ConfigError as error:
    assert "as many denoising steps, not 2, 3" in str(error), error
internals.set_timeout(distributed.ALONE_TIMEOUT)
for model in (plain, engine.module):
    model.train()
torch.testing.assert_close(step(), plain(batch)["loss"].detach(), atol=1e-5, rtol=1e-5)
print(f"rank {distributed.rank()}: samples agree", flush=True)
deepspeed.comm.destroy_process_group()
