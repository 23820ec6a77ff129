"""Muon (Jordan et al., 2024) for a model's matrices, AdamW for all other parameters.

``torch.optim.Muon`` orthogonalises in bf16. A CPU without bf16 units takes twenty times as long for that as for fp32.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

MOMENTUM, DECAY = 0.95, 0.01
BETAS = (0.9, 0.98)
RMS = 0.2  # of a step over the learning rate; matches AdamW's steps
MOST = 1.0  # largest norm of AdamW's gradients; larger ones are clipped


class Muon(torch.optim.Optimizer):
    """Steps matrices along their orthogonalised momentum. Processes share the work of orthogonalising.

    Args:
        parameters: Matrices (m, n).
        lr: Learning rate.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Makes a step. The gradients must be equal in all processes."""
        rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        (group,) = self.param_groups
        parameters, steps = group["params"], []
        for number, parameter in enumerate(parameters):
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(parameter.grad, 1 - MOMENTUM)
            mine = number % processes == rank
            nesterov = parameter.grad.lerp(momentum, MOMENTUM)
            steps.append(orthogonalised(nesterov) if mine else torch.zeros_like(parameter))
        if processes > 1:
            sum_up(steps)
        for parameter, step in zip(parameters, steps):
            parameter.mul_(1 - group["lr"] * DECAY)
            parameter.add_(step, alpha=-group["lr"] * RMS * math.sqrt(max(parameter.shape)))


class AdamW(torch.optim.AdamW):
    """AdamW with the norm of its gradients limited to 1.

    Args:
        parameters: Parameters of any shape.
        lr: Learning rate.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float):
        super().__init__(parameters, lr=lr, betas=BETAS, weight_decay=DECAY, foreach=True)

    def step(self, closure: None = None) -> None:
        """Makes a step."""
        nn.utils.clip_grad_norm_(self.param_groups[0]["params"], MOST)
        super().step()


def orthogonalised(matrix: Tensor) -> Tensor:
    """Moves all singular values of a matrix (m, n) near 1, by five Newton-Schulz steps."""
    x = matrix / (matrix.norm() + 1e-7)
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def sum_up(tensors: list[Tensor]) -> None:
    """Replaces tensors with their sums over all processes, in one message."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(part.view_as(tensor))
