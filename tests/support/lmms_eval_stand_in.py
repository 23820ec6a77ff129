"""Stands in for lmms-eval where it is not installed: the parts of its interface to a model that ours uses.

As in lmms-eval 0.7.3: ``lmms_eval/api/model.py``, ``lmms_eval/api/instance.py``, ``lmms_eval/models/registry_v2.py``.
"""

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest


@dataclass
class Instance:
    """A request."""

    request_type: str
    arguments: tuple

    @property
    def args(self) -> tuple:
        return self.arguments


@dataclass
class GenerationResult:
    """An answer. lmms-eval hands ``text`` on as it is."""

    text: str | tuple


class lmms:  # noqa: N801 - its name there
    """A model."""

    is_simple = True

    def __init__(self):
        self.task_dict = {}
        self.cache_hook = Hook()


class Hook:
    def add_partial(self, attr, req, res):
        """Would remember a reply."""


@dataclass
class ModelManifest:
    """Where a model's class is."""

    model_id: str
    simple_class_path: str


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the stand-in importable as lmms-eval, and our adapter imported anew, until the test ends."""
    contents = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.models": {},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.api.instance": {"Instance": Instance, "GenerationResult": GenerationResult},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, attributes in contents.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    for ours in ("model", "manifest"):
        monkeypatch.delitem(sys.modules, f"pipelines.evaluation.lmms_eval_model.{ours}", raising=False)
