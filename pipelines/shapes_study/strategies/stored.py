"""Visual features of clips that have as many tokens each, in a file."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from pipelines.engine import distributed
from vtok.tokeniser import VisualFeatures


def save_features(features: VisualFeatures, path: Path) -> None:
    """Writes features as fp16. The file appears only when it is complete."""
    part = path.with_suffix(".part")
    save_file({kind: getattr(features, kind).half().cpu().contiguous() for kind in ("spatial", "motion")}, part)
    part.replace(path)


def load_features(path: Path, places: slice | list[int] = slice(None)) -> VisualFeatures:
    """Reads the features of some clips, fp16 on the device; of all by default."""
    stored = load_file(path)
    spatial, motion = (stored[kind][places].to(distributed.device()) for kind in ("spatial", "motion"))
    return VisualFeatures(spatial, motion, [motion.shape[1]] * len(motion))
