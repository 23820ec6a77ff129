"""VBench's Quality, Semantic and Total of its dimensions' scores.

Limits and weights are those of ``scripts/constant.py``, and the formula is that of ``scripts/cal_final_score.py``, in
the repository Vchitect/VBench. We differ in one thing: there a dimension that was not scored counts as 0, here the
totals that need it are left out.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Scale(NamedTuple):
    """How a dimension counts.

    Attributes:
        low: The score that becomes 0.
        high: The score that becomes 1.
        weight: Its weight in the mean.
    """

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0


QUALITY = {
    "subject_consistency": Scale(0.1462),
    "background_consistency": Scale(0.2615),
    "temporal_flickering": Scale(0.6293),
    "motion_smoothness": Scale(0.706, 0.9975),
    "dynamic_degree": Scale(weight=0.5),
    "aesthetic_quality": Scale(),
    "imaging_quality": Scale(),
}
SEMANTIC = {
    "object_class": Scale(),
    "multiple_objects": Scale(),
    "human_action": Scale(),
    "color": Scale(),
    "spatial_relationship": Scale(),
    "scene": Scale(high=0.8222),
    "appearance_style": Scale(0.0009, 0.2855),
    "temporal_style": Scale(high=0.364),
    "overall_consistency": Scale(high=0.364),
}
DIMENSIONS = QUALITY | SEMANTIC
# What VBench looks for with these follows from its own prompts: class VBench, check_dimension_requires_extra_info.
OF_THE_SUITE = {"object_class", "multiple_objects", "scene", "appearance_style", "color", "spatial_relationship"}
WEIGHTS = {"quality": 4, "semantic": 1}  # in the total


def normalised(dimension: str, score: float) -> float:
    """Returns a dimension's score on the scale from 0 to 1 that the totals use."""
    scale = DIMENSIONS[dimension]
    return (score - scale.low) / (scale.high - scale.low)


def mean_of(scales: Mapping[str, Scale], scores: Mapping[str, float]) -> float | None:
    """Returns the weighted mean of normalised scores, or ``None`` if one is missing."""
    if not scales.keys() <= scores.keys():
        return None
    weighted = sum(normalised(name, scores[name]) * scale.weight for name, scale in scales.items())
    return weighted / sum(scale.weight for scale in scales.values())


def totals(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Returns ``quality``, ``semantic`` and ``total``, each ``None`` if a dimension that it needs was not scored.

    Args:
        scores: Score by dimension, as VBench gives them.
    """
    parts = {"quality": mean_of(QUALITY, scores), "semantic": mean_of(SEMANTIC, scores)}
    known = {name: part for name, part in parts.items() if part is not None}
    total = sum(WEIGHTS[name] * part for name, part in known.items()) / sum(WEIGHTS.values())
    return parts | {"total": total if known.keys() == parts.keys() else None}
