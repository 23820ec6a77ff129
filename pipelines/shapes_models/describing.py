"""Training on L_under alone, between the joint training and the last one.

The joint training alone leaves the model at two movers' directions and at colours after a change. Few clips show them,
few words of a caption tell them, and the gradients of L_dec are noisy. Here most samples are clips of these categories,
half of them with a question.
"""

from pathlib import Path
from typing import Any

from pipelines.shapes_models.config import ModelsConfig
from pipelines.shapes_models.joint_run import part_of_mixture

HARD = ("two_movers",) * 3 + ("state",) * 2  # categories of the clips, in turn
ASKED = 2  # of so many clips one has a question


def settings(hard: Path, joint: Path, config: ModelsConfig) -> dict[str, Any]:
    """Returns the settings of the training.

    Args:
        hard: Folder of the precomputed clips of ``HARD``.
        joint: Folder of the joint training, which this one goes on from.
        config: The settings.
    """
    share = config.joint.describing.share
    mixture = [
        part_of_mixture(joint, "all", 1 - share),
        part_of_mixture(hard, "hard", share),
    ]
    return {
        "data": {"mixture": mixture},
        "model": {"loss": {"vis_lm": 0.0, "dec": 0.0, "dec_every": 1}},
        "train": config.joint.describing.train,
        "init": {"weights": str((joint / "run").resolve()), "ema": True},
    }
