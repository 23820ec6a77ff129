"""A stand-in for DeepSpeed's ZeRO-3 engine of one rank, on any device, for :mod:`support.tagged_worker`.

DeepSpeed itself assigns ``param.data``, which tensors without storage cannot follow. This engine has the attributes
that ours read of DeepSpeed's (``pipelines/engine``): parameters are views of one flat buffer a group, with a flat fp32
master beside it, which a fused AdamW updates.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.config import TrainConfig
from pipelines.engine.setup import parameter_groups
from vtok.framework import VTokFramework


class StandInZero:
    """What ``engine.optimizer`` is in ZeRO-3: masters and model weights in flat buffers, torch's optimiser inside."""

    persistent_parameters: list[nn.Parameter] = []
    parameter_offload = SimpleNamespace(param_coordinator=None)  # nothing is gathered, so that nothing is traced

    def __init__(self, framework: VTokFramework, train: TrainConfig):
        self.groups = parameter_groups(framework, train)
        self.fp16_partitioned_groups_flat: list[Tensor] = []
        self.grad_position: dict[int, tuple[int, int, int]] = {}
        views: dict[nn.Parameter, nn.Parameter] = {}
        for number, group in enumerate(self.groups):
            flat = torch.cat([parameter.detach().flatten() for parameter in group["params"]])
            self.fp16_partitioned_groups_flat.append(flat)
            offset = 0
            for parameter in group["params"]:
                size = parameter.numel()
                view = nn.Parameter(flat[offset : offset + size].view(parameter.shape))
                view.ds_process_group, view.ds_numel = None, size
                views[parameter] = view
                self.grad_position[id(view)] = number, offset, size
                offset += size
            group["params"] = [views[parameter] for parameter in group["params"]]
        for module in framework.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, views.get(parameter, parameter))
        self.fp32_partitioned_groups_flat = [
            nn.Parameter(flat.float().clone()) for flat in self.fp16_partitioned_groups_flat
        ]
        masters = [group | {"params": [flat]} for group, flat in zip(self.groups, self.fp32_partitioned_groups_flat)]
        fused = partial(torch.optim.AdamW, fused=True)  # as build_engine
        self.optimizer = fused(masters, lr=train.lr, betas=train.betas, eps=train.eps)

    def get_param_id(self, parameter: nn.Parameter) -> int:
        return id(parameter)

    def _partition_all_parameters(self) -> None:
        """One rank: nothing is ever gathered."""

    def _unflatten_partitioned_parameters(self, group: int) -> None:
        """The parameters are views of the flat buffer."""

    def invalidate_secondary_tensor(self) -> None:
        """There is none."""

    @torch.no_grad()
    def step(self, max_norm: float) -> Tensor:
        """Clip, update the masters and give them to the model; returns the norm of the gradients."""
        gradients = [torch.cat([p.grad.flatten().float() for p in group["params"]]) for group in self.groups]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for master, gradient in zip(self.fp32_partitioned_groups_flat, gradients):
            master.grad = gradient * scale
        self.optimizer.step()
        for flat, master, group in zip(
            self.fp16_partitioned_groups_flat, self.fp32_partitioned_groups_flat, self.groups
        ):
            flat.copy_(master)
            for parameter in group["params"]:
                parameter.grad = None
        return norm


class StandInEngine:
    """What ``deepspeed.initialize`` returns; every micro-step is an update."""

    def __init__(self, framework: VTokFramework, train: TrainConfig, device: torch.device):
        self.module, self.device, self.max_norm = framework.train(), device, train.max_grad_norm
        self.optimizer = StandInZero(framework, train)

    def zero_optimization_stage(self) -> int:
        return 3

    def __call__(self, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        return self.module(*arguments, **options)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        self.norm = self.optimizer.step(self.max_norm)

    def get_global_grad_norm(self) -> Tensor:
        return self.norm

    def was_step_applied(self) -> bool:
        return True
