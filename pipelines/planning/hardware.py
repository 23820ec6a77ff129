"""The machines of a plan."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hardware:
    """The GPUs and their nodes.

    Attributes:
        gpus, gpus_per_node: The number of GPUs.
        gpu_memory: GB (1e9 bytes) per GPU.
        reserve: GB of these for the CUDA context, NCCL and gaps in the allocator.
        node_memory: GB of host memory per node.
        nvlink: GB/s that a GPU receives from the others of its node. An assumption: two thirds of an H100's data sheet.
        infiniband: GB/s that a GPU receives from other nodes, through an adapter of its own. An assumption: four fifths
            of 400 Gbit/s.
        price: Price of a GPU per hour.
    """

    gpus: int = 8
    gpus_per_node: int = 8
    gpu_memory: float = 80.0
    reserve: float = 6.0
    node_memory: float = 1000.0
    nvlink: float = 300.0
    infiniband: float = 40.0
    price: float = 2.5

    @property
    def ranks_per_node(self) -> int:
        return min(self.gpus, self.gpus_per_node)
