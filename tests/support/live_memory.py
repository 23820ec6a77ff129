"""Bytes of the tensors that are alive, op by op: also on the meta device, where nothing is allocated.

Unlike hooks on autograd's saved tensors it counts what gradient checkpointing keeps, which autograd does not save.
"""

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts storages made inside the context; what is given to it, such as parameters, is not counted.

    Args:
        given: tensors that are there already.
        device: count only what lies on such a device.
    """

    def __init__(self, given=(), device=None):
        super().__init__()
        self.device = device
        self.given = {tensor.untyped_storage()._cdata for tensor in given}
        self.storages = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, torch.Tensor) or self.device not in (None, tensor.device.type):
                continue
            if tensor.untyped_storage()._cdata not in self.given:
                reference = StorageWeakRef(tensor.untyped_storage())
                self.storages[reference.cdata] = (reference, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.alive())
        return out

    def alive(self) -> int:
        """Bytes alive now."""
        self.storages = {key: entry for key, entry in self.storages.items() if not entry[0].expired()}
        return sum(size for _, size in self.storages.values())
