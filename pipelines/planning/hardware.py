"""What is assumed of the machines that a plan is made for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hardware:
    """GPUs, and what is assumed of them.

    Attributes:
        gpus, gpus_per_node: their number.
        gpu_memory: GB (1e9 bytes) of each.
        reserve: GB of it that the CUDA context, NCCL and the allocator's gaps take.
        node_memory: GB of each node's host.
        price: of a GPU for an hour.
    """

    gpus: int = 8
    gpus_per_node: int = 8
    gpu_memory: float = 80.0
    reserve: float = 6.0
    node_memory: float = 1000.0
    price: float = 2.5

    @property
    def ranks_per_node(self) -> int:
        return min(self.gpus, self.gpus_per_node)
