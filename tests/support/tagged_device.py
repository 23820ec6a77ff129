"""A device that is none: its tensors hold real CPU tensors and say that they lie on ``tagged:0``.

What runs on it gives the CPU's numbers, and the code under test sees an accelerator: every tensor has to be moved to
it, and every operator that mixes the two is found, as CUDA would refuse it. FakeTensorMode with ``cuda``, which knows
such rules too, aborts in autograd in a build without CUDA.

    register()                                      once a process, for good: torch has an accelerator then
    with TaggedDevice() as found:
        model.to(DEVICE); ...
    found.mixtures, found.waits                     what CUDA would refuse; where the host would wait for the device

The device is PrivateUse1 under another name. A tensor on it is a wrapper without storage; the mode, below autograd,
runs each operator on what the wrappers hold. Attention takes PyTorch's plain implementation ("math"), since the fused
ones are chosen by the kind of device.

Not simulated: streams, the asynchrony itself, kernels that CUDA lacks or that round otherwise.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from support.cuda_rules import mixture, wait

NAME = "tagged"
REPO = Path(__file__).resolve().parents[2]
SUPPORT = {str(Path(__file__).with_name(name)) for name in ("tagged_device.py", "tagged_engine.py")}


class Module:
    """``torch.tagged``: what torch asks of an accelerator's module. Its random state is the CPU's."""

    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16, torch.float32])
    is_available = is_initialized = staticmethod(lambda: True)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, device=None: torch.set_rng_state(state))
    manual_seed_all = manual_seed = staticmethod(lambda seed: None)
    _is_in_bad_fork = staticmethod(lambda: False)
    empty_cache = synchronize = staticmethod(lambda: None)

    class device:
        """``with torch.tagged.device(0)``: there is but one."""

        def __init__(self, index: Any):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *error):
            pass


def register() -> torch.device:
    """Give this process the device; torch takes it for the process's accelerator from now on."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module)
    return torch.device(NAME, 0)


class TaggedTensor(torch.Tensor):
    """A tensor on the device; ``held`` is the CPU tensor behind it, whose views and writes are its own."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "TaggedTensor":
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=torch.device(NAME, 0),
        )  # fmt: skip

    def __init__(self, held: Tensor):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        raise RuntimeError(f"{func} on a tagged tensor outside TaggedDevice")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"TaggedTensor({tuple(self.shape)}, {self.dtype})"


class Finding(NamedTuple):
    """What an operator did.

    Attributes:
        operator: its name; in a backward pass with autograd's node that called it.
        why: in words.
        place: the innermost line of ours that led to it, "FILE:LINE FUNCTION".
    """

    operator: str
    why: str
    place: str

    @property
    def function(self) -> str:
        """The place without its line: "FILE FUNCTION"."""
        path, _, function = self.place.partition(" ")
        return f"{path.partition(':')[0]} {function}"

    def __str__(self) -> str:
        return f"{self.place}: {self.operator}: {self.why}"


class TaggedDevice(TorchDispatchMode):
    """Runs what happens inside on the device, and on the CPU what is there.

    Attributes:
        mixtures: calls that CUDA would refuse; they run all the same.
        waits: calls in which the host would wait for the device.
    """

    def __init__(self):
        super().__init__()
        self.mixtures: list[Finding] = []
        self.waits: list[Finding] = []

    def __enter__(self) -> "TaggedDevice":
        # torch.tensor(..., device=DEVICE) is then made on the CPU and copied, by an operator that the mode sees.
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        # Backward passes run in the thread that asks for them, whose stack tells the place.
        self._threads = torch.autograd.set_multithreading_enabled(False)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._threads.__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._lifted)

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in PINNING:
            return PINNING[func](*args)
        target = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        if TaggedTensor not in types and (target is None or target.type != NAME):
            return func(*args, **kwargs)
        named = dict(zip((argument.name for argument in func._schema.arguments), args)) | kwargs
        if why := mixture(func, named):
            self.mixtures.append(Finding(name_of(func), why, place()))
        elif why := wait(func, named):
            self.waits.append(Finding(name_of(func), why, place()))

        given: dict[int, Tensor] = {}  # by what is behind it

        def behind(tensor: Tensor) -> Tensor:
            held = tensor.held if isinstance(tensor, TaggedTensor) else tensor
            given[id(held)] = tensor
            return held

        def before(tensor: Tensor) -> Tensor:
            """What was written in place is the tensor that was given."""
            return given[id(tensor)] if id(tensor) in given else TaggedTensor(tensor)

        real = {name: mapped(behind, value) for name, value in kwargs.items()}
        if target is not None:
            real["device"] = "cpu" if target.type == NAME else target
        result = func(*mapped(behind, args), **real)
        if torch.Tag.inplace_view in func.tags:  # the wrapper's own shape has to change too
            with no_dispatch():
                func(*args, **kwargs)
        return result if target is not None and target.type != NAME else mapped(before, result)


def mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """An operator's arguments or results with their tensors changed, in lists too."""
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(mapped(change, item) for item in value) if isinstance(value, (list, tuple)) else value


def pinned_copy(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    copy = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype).copy_(tensor)
    copy.pinned = True
    return copy


# Pinned memory is a mark on the tensor object: views of it do not have it.
PINNING = {
    torch.ops.aten._pin_memory.default: pinned_copy,
    torch.ops.aten.is_pinned.default: lambda tensor, device=None: getattr(tensor, "pinned", False),
}


def name_of(func: OpOverload) -> str:
    node = torch._C._current_autograd_node()
    return str(func) if node is None else f"{func} of {node.name()}"


def place() -> str:
    """The innermost line of this repository on the stack, the device itself left out."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(str(REPO)) and "site-packages" not in path and path not in SUPPORT:
            return f"{Path(path).relative_to(REPO)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere:0 ?"
