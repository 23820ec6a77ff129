"""What the DeepSpeed JSON means for memory and traffic."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.cli.config_files import read_ds_config
from vtok.config import require

BYTES = {"fp32": 4, "bf16": 2, "bfp16": 2, "fp16": 2}


@dataclass(frozen=True)
class Sharding:
    """The settings of the JSON that the arithmetic needs; sizes are in elements.

    Attributes:
        stage: of ZeRO; 2 keeps parameters whole, 3 shards them.
        offload_optimizer: gradients, master weights, moments and EMA lie in host memory.
        offload_parameters: so do the parameters' shards.
        secondary_partition: ranks that share ZeRO++'s second copy of the weights; 1 is none.
        persistence_threshold: parameters up to this size stay whole on every rank.
        max_live: parameters that may be whole at one time.
        prefetch: parameters gathered ahead.
        reduce_bucket: gradients reduced at one time.
        sub_group: parameters updated at one time.
        gradient_bytes, reduce_bytes: of a gradient that is kept, and of one under way.
        parameter_bytes: of a weight in the forward.
    """

    stage: int
    offload_optimizer: bool
    offload_parameters: bool
    secondary_partition: int
    persistence_threshold: int
    max_live: int
    prefetch: int
    reduce_bucket: int
    sub_group: int
    gradient_bytes: int
    reduce_bytes: int
    parameter_bytes: int


def read_sharding(path: Path, parameter_bytes: int, ranks_per_node: int = 1) -> Sharding:
    """The JSON's settings; DeepSpeed's own defaults where it is silent.

    Args:
        ranks_per_node: what ``"auto"`` means as the size of hpZ's partition.

    Raises:
        ConfigError: no such file, not JSON, or a stage that is not planned.
    """
    config = read_ds_config(path)
    zero = config.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    require(stage in (2, 3), f"{path}: ZeRO stage {stage} cannot be planned, only 2 and 3")

    def kept_on_host(section: str) -> bool:
        return (zero.get(section) or {}).get("device", "none") != "none"

    hpz = zero.get("zero_hpz_partition_size", 1)
    gradients = config.get("data_types", {}).get("grad_accum_dtype")
    return Sharding(
        stage=stage,
        offload_optimizer=kept_on_host("offload_optimizer"),
        offload_parameters=stage == 3 and kept_on_host("offload_param"),
        secondary_partition=ranks_per_node if hpz == "auto" else hpz,
        persistence_threshold=int(zero.get("stage3_param_persistence_threshold", 1e5)),
        max_live=int(zero.get("stage3_max_live_parameters", 1e9)),
        prefetch=int(zero.get("stage3_prefetch_bucket_size", 5e7)),
        reduce_bucket=int(zero.get("reduce_bucket_size", 5e8)),
        sub_group=int(zero.get("sub_group_size", 1e9)),
        gradient_bytes=BYTES.get(gradients, parameter_bytes),
        reduce_bytes=BYTES.get(config.get("communication_data_type"), parameter_bytes),
        parameter_bytes=parameter_bytes,
    )
