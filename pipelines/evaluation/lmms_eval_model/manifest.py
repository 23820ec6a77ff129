"""What lmms-eval finds at our entry point. It reads it at every start, so nothing large is imported here."""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest("vtok", simple_class_path="pipelines.evaluation.lmms_eval_model.model.VTok")
