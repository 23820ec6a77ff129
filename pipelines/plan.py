"""What a configuration amounts to, before any weight is downloaded: parameters by part, on the meta device.

python pipelines/plan.py --config pipelines/configs/llava_next_8b_hunyuan.yaml [--json]
"""

import argparse
import json
import sys

from pipelines.config import die, parse_run_arguments
from vtok.architectures import meta_framework
from vtok.config import ConfigError, ModelConfig


def parameter_table(model: ModelConfig) -> list[dict]:
    """One row a part: ``part``, ``parameters``, and whether it is ``trained``."""
    framework = meta_framework(model)
    trained = {"language_model", "phi_vis + P", "g_phi", "visual_head"}
    counts = framework.parameter_counts()
    return [dict(part=part, parameters=count, trained=part in trained) for part, count in counts.items()]


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="Parameters of a configuration, by part.")
    parser.add_argument("--config", required=True, help="YAML file of a run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    try:
        config = parse_run_arguments(["--config", arguments.config]).config
        if config.tiny_models:
            raise ConfigError("the tiny models are written when a run starts; plan a configuration that names weights")
        rows = parameter_table(config.model)
    except ConfigError as error:
        die("plan", error)
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        kind = "trained" if row["trained"] else "frozen"
        print(f"{row['part']:24}{row['parameters'] / 1e9:10.2f} B   {kind}")


if __name__ == "__main__":
    main(sys.argv[1:])
