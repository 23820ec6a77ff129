"""The language model's head and its loss: cross-entropy in chunks of positions.

With a vocabulary of 128 thousand, logits are the largest tensors of a step. Here they exist for one chunk at a time.
The backward pass computes them again: three products of states and head instead of two.

The head's forward includes the loss because ZeRO-3 gathers a module's weights around its forward and its backward. So
the ranks gather equally often, whatever their numbers of chunks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Positions per chunk. It keeps a GPU's matrix units busy and takes 134 MB of fp32 logits at LLaMA-3's vocabulary.
CHUNK = 256


class LanguageHead(nn.Linear):
    """A linear layer over the vocabulary, without bias."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "LanguageHead":
        """Builds a head that shares the parameter of ``linear``."""
        with torch.device("meta"):
            head = cls(linear.in_features, linear.out_features, bias=False)
        head.weight = linear.weight
        return head

    def forward(self, states: Tensor, targets: Tensor | None = None) -> Tensor:
        """Computes logits, or losses if there are targets.

        Args:
            states: Last hidden states (..., d); (n, d) with targets.
            targets: (n,), the tokens that ``states`` should predict.

        Returns:
            Logits (..., vocabulary), or the targets' cross-entropy (n,) in fp32.
        """
        if targets is None:
            return super().forward(states)
        return ChunkedCrossEntropy.apply(states, self.weight, targets)


class ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy (n,) in fp32 of the logits ``states @ weight.T``: (n, d), (vocabulary, d) and targets (n,)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight, targets)
        chunks = zip(states.split(CHUNK), targets.split(CHUNK))
        losses = [F.cross_entropy(F.linear(rows, weight).float(), ids, reduction="none") for rows, ids in chunks]
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        states, weight, targets = ctx.saved_tensors
        grad_states = torch.empty_like(states)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None  # a frozen head has none
        chunks = zip(*(x.split(CHUNK) for x in (states, targets, gradient, grad_states)))
        for rows, ids, upstream, grad_rows in chunks:
            with torch.enable_grad():  # records nothing; a FLOP counter tells a recomputed forward by it
                logits = F.linear(rows.detach(), weight.detach())
            # The gradient of the logits is their softmax minus one at the target.
            logits = logits.softmax(-1, dtype=torch.float32)
            logits.scatter_add_(1, ids[:, None], logits.new_full((len(ids), 1), -1.0))
            logits = logits.mul_(upstream[:, None]).to(rows.dtype)
            torch.mm(logits, weight, out=grad_rows)
            if grad_weight is not None:
                torch.addmm(grad_weight, logits.T, rows, out=grad_weight)
        return grad_states, grad_weight, None
