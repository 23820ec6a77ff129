"""Work and live bytes of whatever runs under it; on the meta device that costs neither memory nor arithmetic.

FLOPs are those of ``torch.utils.flop_counter``, by kind: two for each multiply-add of matrix products, convolutions and
attention. Attention is run by torch's fused kernel, as on a GPU, so that no score matrix is kept; the scores that such
a kernel recomputes inside its backward are not counted. All other operators count with the bytes they read and write.

Live bytes are those of every tensor storage made under the meter and not yet freed: parameters and inputs are outside.
Workspaces inside a kernel are not seen.

Work belongs to the phase (:mod:`vtok.phases`) that it runs in, a backward to the one whose forward made its autograd
node: nodes are numbered in the order in which they are made.
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

# Work that is counted in operators: all but views.
OPERATORS = "operators"

ENTER = torch.ops.profiler._record_function_enter_new.default
LEAVE = torch.ops.profiler._record_function_exit._RecordFunction


@dataclass
class Usage:
    """What happened in one phase.

    Attributes:
        work: FLOPs by kind, bytes that went through memory, and the number of operators.
        repeated: the part of it that repeats a forward in the backward pass (activation checkpointing).
        peak: most bytes alive at any moment.
    """

    work: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    peak: int = 0

    @property
    def flops(self) -> int:
        """All that were executed."""
        return sum(self.work[kind] for kind in FLOP_KINDS)

    @property
    def recomputed(self) -> int:
        """FLOPs among them that repeat a forward."""
        return sum(self.repeated[kind] for kind in FLOP_KINDS)


class Meter(TorchDispatchMode):
    """``with Meter() as meter: ...``

    Args:
        device: type of the device whose bytes and operators are counted.

    Attributes:
        usage: by phase, that of a backward by the phase's name with " backward". What lies between two phases belongs
            to the first, what lies before all of them to "".
        live: bytes alive now.
    """

    def __init__(self, device: str = "meta"):
        super().__init__()
        self.device = device
        self.usage: dict[str, Usage] = defaultdict(Usage)
        self.live = 0
        self._storages: dict[int, weakref.ref] = {}
        self._known = KnownValues()
        self._fused = fused_attention()
        self._open: list[str] = []  # names that profilers are told of
        self._phase = ""
        self._forwards = [(0, "")]  # first autograd node of each stretch of the forward, and its phase

    def __enter__(self) -> "Meter":
        self._fused.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._fused.__exit__(*error)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would wrap every call of the next method to keep its compiler out, which nothing here uses."""
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
        """A name that profilers are told of begins, or the last one ends."""
        if begun is not None:
            self._open.append(begun)
        elif not self._open.pop().startswith(PREFIX):
            return
        if self._open and self._open[-1].startswith(PREFIX):
            self._phase = self._open[-1].removeprefix(PREFIX)
            self._forwards.append((torch._C._autograd._get_sequence_nr(), self._phase))

    def _now(self) -> str:
        """The phase of the operator that runs now."""
        node = torch._C._current_autograd_node()
        if node is None:
            return self._phase
        number = node._sequence_nr()
        # What adds up gradients has no number of its own, and comes right behind a node that has.
        if number < torch._C._autograd._get_sequence_nr():
            _, phase = self._forwards[bisect_right(self._forwards, number, key=itemgetter(0)) - 1]
            self._phase = phase + BACKWARD
        return self._phase

    def _count(self, usage: Usage, kind: str, amount: int) -> None:
        counted = {kind: amount, OPERATORS: int(amount > 0)}
        usage.work.update(counted)
        # Autograd runs a backward without gradients; only a repeated forward has them on.
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
    """All work of one call and the most bytes alive in it, its phases taken together."""
    with Meter(device) as meter:
        run()
    return together(meter.usage.values())


def together(usages: Iterable[Usage]) -> Usage:
    """The work of several phases added, and the largest of their peaks."""
    total = Usage()
    for usage in usages:
        total.work.update(usage.work)
        total.repeated.update(usage.repeated)
        total.peak = max(total.peak, usage.peak)
    return total


@contextmanager
def fused_attention() -> Iterator[None]:
    """Let attention on the meta device be one kernel; torch would take it apart there."""
    original = F.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if query.is_meta:
            return FUSED(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
        return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    # A torch function mode would be off during a backward pass, which runs checkpointed forwards again.
    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
