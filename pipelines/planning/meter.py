"""FLOPs and live bytes of whatever runs under it; on the meta device that costs neither memory nor arithmetic.

FLOPs are those of ``torch.utils.flop_counter``: two for each multiply-add of matrix products, convolutions and
attention. Attention is run by torch's fused kernel, as on a GPU, so that no score matrix is kept; the scores that such
a kernel recomputes inside its backward are not counted.

Bytes are those of every tensor storage made under the meter and not yet freed: parameters and inputs are outside.
Workspaces inside a kernel are not seen.
"""

import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention_forward(query, key, value, *args, **kwargs) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def attention_backward(grad, query, key, value, *args, **kwargs) -> int:
    """Gradients of the two products are two products each."""
    return 2 * sdpa_flop_count(query.shape, key.shape, value.shape)


FLOP_FORMULAS = flop_registry | {FUSED: attention_forward, FUSED_BACKWARD: attention_backward}


@dataclass
class Usage:
    """What happened in one phase.

    Attributes:
        flops: all that were executed.
        recomputed: those of them that repeat a forward in the backward pass (activation checkpointing).
        peak: most bytes alive at any moment.
    """

    flops: int = 0
    recomputed: int = 0
    peak: int = 0


class Meter(TorchDispatchMode):
    """Use it as ``with meter, meter.phase(name): ...``.

    Attributes:
        usage: by phase.
        live: bytes alive now.
    """

    def __init__(self):
        super().__init__()
        self.usage: dict[str, Usage] = defaultdict(Usage)
        self.live = 0
        self._storages: dict[int, weakref.ref] = {}
        self._now = Usage()
        self._backward = False

    @contextmanager
    def phase(self, name: str, backward: bool = False) -> Iterator[None]:
        """Count what runs inside under ``name``."""
        self._now, self._backward = self.usage[name], backward
        self._now.peak = max(self._now.peak, self.live)
        with fused_attention(), self:
            yield

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return True  # transformers asks whether a row is one unbroken sequence, which ours are
        out = func(*args, **kwargs)
        formula = FLOP_FORMULAS.get(func._overloadpacket)
        if formula:
            self._count(formula(*args, **kwargs, out_val=out))
        outside = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_iter(out):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in outside:
                self._track(x.untyped_storage())
        return out

    @contextmanager
    def recorded(self) -> Iterator[Usage]:
        """What runs inside, counted as ever, and by itself: its FLOPs, and its peak above what was alive before."""
        outer, before = self._now, self.live
        own = self._now = Usage(peak=before)
        try:
            yield own
        finally:
            self._now = outer
            own.peak -= before
            self.repeat(own)

    def repeat(self, usage: Usage) -> None:
        """Count what was recorded once more."""
        self._now.flops += usage.flops
        self._now.recomputed += usage.recomputed
        self._now.peak = max(self._now.peak, self.live + usage.peak)

    def _count(self, flops: int) -> None:
        self._now.flops += flops
        # Autograd runs a backward without gradients; only a recomputed forward has them on.
        if self._backward and torch.is_grad_enabled():
            self._now.recomputed += flops

    def _track(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def freed(_):
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.live += size
        self._now.peak = max(self._now.peak, self.live)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Let attention on the meta device be one kernel; torch would take it apart there."""

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        return FUSED(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]

    # A torch function mode would be off during a backward pass, which runs checkpointed forwards again.
    original, F.scaled_dot_product_attention = F.scaled_dot_product_attention, attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
