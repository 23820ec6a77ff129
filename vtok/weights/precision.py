"""Which parameters stay fp32 in a model whose weights are bf16: those that its library keeps in fp32 too.

- diffusers keeps the modules that ``_keep_in_fp32_modules`` names. Wan's transformer names its time embedder,
  ``scale_shift_table`` and norms.
- transformers keeps those that ``_keep_in_fp32_modules_strict`` names. Its ``_keep_in_fp32_modules``, such as UMT5's
  ``wo``, is for fp16 alone.
- Wan's autoencoder is published to run in fp32 beside a transformer in bf16.
- A module of ours says so by ``stays_fp32``: the motion codec chooses codes, which must not depend on the precision.
- The scales of fp8 layers (:mod:`vtok.fp8`), whose codes are bytes and keep that dtype.
"""

import torch
from diffusers.models import AutoencoderKLWan
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from transformers import PreTrainedModel

from vtok.fp8 import Fp8Linear

FP32_MODELS = (AutoencoderKLWan,)


def kept_in_fp32(module: nn.Module) -> set[nn.Parameter]:
    """Returns the parameters of a module that stay fp32."""
    return {parameter for part in module.modules() for parameter in kept_by(part)}


def kept_by(part: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters that one model's own rule keeps in fp32; none if it has no rule."""
    if isinstance(part, FP32_MODELS) or getattr(part, "stays_fp32", False):
        return list(part.parameters())
    if isinstance(part, Fp8Linear):
        return [part.weight_scale]
    if isinstance(part, ModelMixin):
        names = set(part._keep_in_fp32_modules or ())
    elif isinstance(part, PreTrainedModel):
        names = set(part._keep_in_fp32_modules_strict or ())
    else:
        return []
    return [parameter for name, parameter in part.named_parameters() if names & set(name.split("."))]


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts parameters, except codes and those that stay fp32. Buffers, such as rotary frequencies, are not cast."""
    kept = kept_in_fp32(module)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(stored_dtype(parameter, dtype, parameter in kept))


def stored_dtype(parameter: nn.Parameter, dtype: torch.dtype, fp32: bool) -> torch.dtype:
    """Returns a parameter's dtype in a model of precision ``dtype``: fp32 if it stays so; codes keep their own."""
    return parameter.dtype if not parameter.is_floating_point() else torch.float32 if fp32 else dtype
