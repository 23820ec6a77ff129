"""Counts the work and the live bytes of torch code. On the meta device this needs neither memory nor arithmetic.

FLOPs are those of ``torch.utils.flop_counter``, by kind: two for each multiply-add of matrix products, convolutions and
attention. Attention runs as torch's fused kernel, as on a GPU, so it keeps no score matrix. The scores that such a
kernel recomputes inside its backward are not counted. All other operators count the bytes that they read and write.

Live bytes are the bytes of all tensor storages that were made under the meter and are not yet freed. Parameters and
inputs are made before, so they do not count. The meter does not see workspaces inside a kernel.

Forward work belongs to the phase (:mod:`vtok.phases`) in which it runs. Backward work belongs to the phase whose
forward made its autograd node. The meter finds that phase by the node's number, since torch numbers nodes in order.
"""

import weakref
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.metering.kinds import FLOP_KINDS, FUSED, work_of
from pipelines.metering.known import KnownValues
from pipelines.metering.results import tensors
from vtok.phases import PREFIX

BACKWARD = " backward"

# Key of the count of operators, which excludes views.
OPERATORS = "operators"

ENTER = torch.ops.profiler._record_function_enter_new.default
LEAVE = torch.ops.profiler._record_function_exit._RecordFunction


@dataclass
class Usage:
    """The work and the peak of one phase.

    Attributes:
        work: FLOPs by kind, bytes read and written, and the number of operators.
        repeated: The part of ``work`` that repeats a forward in the backward pass (activation checkpointing).
        peak: Largest number of live bytes.
    """

    work: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    peak: int = 0

    @property
    def flops(self) -> int:
        """All FLOPs executed, repeated ones included."""
        return sum(self.work[kind] for kind in FLOP_KINDS)

    @property
    def recomputed(self) -> int:
        """FLOPs that repeat a forward."""
        return sum(self.repeated[kind] for kind in FLOP_KINDS)


class Meter(TorchDispatchMode):
    """Counts the work of a ``with`` block: ``with Meter() as meter: ...``

    Args:
        device: Type of the device whose bytes and operators are counted.

    Attributes:
        usage: Usage by phase; the key of a backward is the phase's name with " backward". Work between two phases
            belongs to the first. Work before all phases belongs to "".
        live: Bytes alive now.
    """

    def __init__(self, device: str = "meta"):
        super().__init__()
        self.device = device
        self.usage: dict[str, Usage] = defaultdict(Usage)
        self.live = 0
        self._storages: dict[int, weakref.ref] = {}
        self._known = KnownValues()
        self._fused = fused_attention()
        self._open: list[str] = []  # names of the profiler ranges that are open
        self._phase = ""
        self._forwards = [(0, "")]  # number of the first autograd node of each piece of forward, and its phase

    def __enter__(self) -> "Meter":
        self._fused.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._fused.__exit__(*error)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Returns False: torch need not wrap each dispatch to disable its compiler, which nothing here uses."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is ENTER or func is LEAVE:
            self._follow(None if func is LEAVE else args[0])
            return func(*args, **kwargs)
        given = tensors(args) + tensors(kwargs.values())
        out = self._known.call(func, args, kwargs, given)
        read, written = ([x for x in xs if x.device.type == self.device] for xs in (given, tensors([out])))
        if not written:
            return out
        usage = self.usage[self._now()]
        self._count(usage, *work_of(func, args, kwargs, out, read, written))
        outside = {x.untyped_storage()._cdata for x in read}
        for x in written:
            if x.untyped_storage()._cdata not in outside:
                self._track(x.untyped_storage())
        usage.peak = max(usage.peak, self.live)
        return out

    def _follow(self, begun: str | None) -> None:
        """Opens the profiler range of the given name, or closes the last one if it is None."""
        if begun is not None:
            self._open.append(begun)
        elif not self._open.pop().startswith(PREFIX):
            return
        if self._open and self._open[-1].startswith(PREFIX):
            self._phase = self._open[-1].removeprefix(PREFIX)
            self._forwards.append((torch._C._autograd._get_sequence_nr(), self._phase))

    def _now(self) -> str:
        """Returns the phase of the operator that runs now."""
        node = torch._C._current_autograd_node()
        if node is None:
            return self._phase
        number = node._sequence_nr()
        # A node that accumulates gradients has no number in the order. It belongs to the phase of the node before it.
        if number < torch._C._autograd._get_sequence_nr():
            _, phase = self._forwards[bisect_right(self._forwards, number, key=itemgetter(0)) - 1]
            self._phase = phase + BACKWARD
        return self._phase

    def _count(self, usage: Usage, kind: str, amount: int) -> None:
        counted = {kind: amount, OPERATORS: int(amount > 0)}
        usage.work.update(counted)
        # Autograd disables gradients during backward. If they are on, a checkpointed forward is repeated.
        if torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled():
            usage.repeated.update(counted)

    def _track(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def freed(_):
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.live += size


def metered(run: Callable[[], Any], device: str = "meta") -> Usage:
    """Runs a function under a meter and returns its usage, all phases together."""
    with Meter(device) as meter:
        run()
    return together(meter.usage.values())


def together(usages: Iterable[Usage]) -> Usage:
    """Returns the sum of the work of several phases, with the largest of their peaks."""
    total = Usage()
    for usage in usages:
        total.work.update(usage.work)
        total.repeated.update(usage.repeated)
        total.peak = max(total.peak, usage.peak)
    return total


@contextmanager
def fused_attention() -> Iterator[None]:
    """Makes attention on the meta device one fused kernel within the context. Torch would decompose it there."""
    original = F.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if query.is_meta:
            return FUSED(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
        return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    # A torch function mode would not work here: it is off during backward, which repeats checkpointed forwards.
    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
