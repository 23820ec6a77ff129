"""The DeepSpeed JSON's settings that determine memory and traffic."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.cli.config_files import read_ds_config
from pipelines.engine.ds_json import settings_of
from vtok.config import require

BYTES = {"fp32": 4, "bf16": 2, "bfp16": 2, "fp16": 2}


@dataclass(frozen=True)
class Sharding:
    """The settings that plans need. Sizes are in elements.

    Attributes:
        stage: ZeRO's stage. 2 keeps parameters whole, 3 shards them.
        offload_optimizer: Whether gradients, master weights, moments and EMA lie in host memory.
        offload_parameters: Whether the parameters' shards lie in host memory.
        secondary_partition: Ranks that share ZeRO++'s second copy of the weights. 1 means no second copy.
        persistence_threshold: Parameters up to this size stay whole on every rank.
        max_live: Parameters that may be whole at one time.
        prefetch: Parameters that are gathered in advance.
        reduce_bucket: Gradients that are reduced at one time.
        sub_group: Parameters that are updated at one time.
        gradient_bytes, reduce_bytes: Bytes per gradient that is kept, and per gradient in communication.
        parameter_bytes: Bytes per weight in the forward pass.
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
    """Reads the JSON's settings. Missing ones get DeepSpeed's defaults.

    Args:
        path: The file.
        parameter_bytes: Bytes per weight in the forward pass.
        ranks_per_node: The value of ``"auto"`` as the size of hpZ's partition.

    Raises:
        ConfigError: There is no such file, it is not JSON, a setting in it is wrong, or plans do not know its stage.
    """
    config = settings_of(path, read_ds_config(path))
    zero = config.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    require(stage in (2, 3), f"{path}: ZeRO stage {stage} cannot be planned, only 2 and 3")

    def kept_on_host(section: str) -> bool:
        return zero.get(section, {}).get("device", "none") != "none"

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
