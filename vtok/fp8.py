"""Frozen linear layers with fp8 weights (e4m3): one byte an element, and an fp32 scale for each row of the matrix.

    weight          (out, in) uint8     the codes; uint8, since a cast of the model would take float8 for a precision
    weight_scale    (out,) fp32         weight = code * scale;  the largest code of a row is 448, e4m3's largest number
    bias            (out,)              in the run's precision

There are two ways to compute with them:

- ``weights``: the weight is expanded to the precision of the input for each product. It runs on every device.
- ``dynamic``: rows of the input, and in backward of the gradient, are rounded to e4m3 too, each by its own scale, and
  the product is one of fp8 matrices (torch's ``_scaled_mm``). It needs a GPU with such products.

Under ZeRO-3 both parameters are shards like others. So a gather moves half the bytes of bf16.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.config import Fp8, require

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max  # 448
SCALE = "weight_scale"

# Rows of the input from which on ``dynamic`` rounds it. With fewer, reading the weight takes the time.
MANY_ROWS = 16
# Sides of the matrices of an fp8 product are multiples of this.
STEP = 16
# The first GPUs with fp8 products: Ada and Hopper.
CAPABILITY = (8, 9)
# Elements that are rounded at once while weights are read.
PIECE = 1 << 22


class Fp8Linear(nn.Module):
    """A frozen linear layer with fp8 weights.

    Args:
        linear: The layer whose shape it takes. Its values are not taken: :func:`reading` reads them.
        form: ``weights`` or ``dynamic``.
    """

    def __init__(self, linear: nn.Linear, form: Fp8):
        super().__init__()
        self.in_features, self.out_features, self.form = linear.in_features, linear.out_features, form
        device = linear.weight.device
        codes = torch.empty(linear.weight.shape, dtype=torch.uint8, device=device)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(linear.out_features, device=device), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., in) to (..., out), in the dtype of ``x``."""
        sizes = self.in_features, self.out_features
        many = x.shape[:-1].numel() >= MANY_ROWS and not any(size % STEP for size in sizes)
        product = RoundedProduct if self.form == "dynamic" and many else ExpandedProduct
        return product.apply(x, self.weight, self.weight_scale, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, form={self.form}"


class ExpandedProduct(torch.autograd.Function):
    """``x @ weight.T + bias`` with the weight expanded to the precision of ``x``, in forward and again in backward.

    Between the two only the layer's own parameters are kept, which ZeRO-3 frees and gathers again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(codes, scale)
        with told_from_backward():
            return F.linear(x.detach(), expanded(codes, scale, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        codes, scale = ctx.saved_tensors
        return gradient @ expanded(codes, scale, gradient.dtype), None, None, None


class RoundedProduct(torch.autograd.Function):
    """``x @ weight.T + bias`` as a product of fp8 matrices, in forward and in backward. It accumulates in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(codes, scale)
        with told_from_backward():
            return fp8_product(x.detach(), codes.view(E4M3).t(), scale, bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        codes, scale = ctx.saved_tensors
        columns = codes.t().contiguous().view(E4M3).t()  # the kernel reads its right side column by column
        ones = torch.ones(codes.shape[1], device=scale.device)
        return fp8_product(gradient * scale, columns, ones).to(gradient.dtype), None, None, None


def told_from_backward() -> AbstractContextManager:
    """Turns gradients on in a forward, where autograd has turned them off. Nothing here has any.

    By that, :mod:`pipelines.metering` tells a forward that checkpointing repeats from a backward.
    """
    return torch.enable_grad()


def fp8_product(left: Tensor, right: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiplies (..., k), rounded row by row, with e4m3 (k, n) whose columns have scales (n,). Returns bf16."""
    codes, own = rounded(left.flatten(0, -2))
    added = None if bias is None else bias.to(torch.bfloat16)
    out = torch._scaled_mm(
        codes, right, scale_a=own[:, None], scale_b=scale[None], bias=added, out_dtype=torch.bfloat16
    )
    return out.view(*left.shape[:-1], -1)


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds each row (n, k) to e4m3. Returns the numbers (n, k) and the scales (n,) in fp32."""
    largest = torch.linalg.vector_norm(rows, torch.inf, dim=1).float()
    scale = (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (rows / scale[:, None]).to(E4M3), scale


def expanded(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the weight (out, in) in ``dtype``. Products with the scales are rounded once."""
    out = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    return torch.mul(codes.view(E4M3).to(dtype), scale[:, None], out=out)


def use_fp8(stacks: Iterable[nn.Module], form: Fp8) -> None:
    """Puts fp8 layers in the place of all linear layers of a model's blocks, which lie on the meta device.

    Norms, scale tables and whatever stands outside of the blocks keep their precision.
    """
    for blocks in stacks:
        for module in list(blocks.modules()):
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(module, name, Fp8Linear(layer, form))


def require_fp8(form: Fp8 | None) -> None:
    """Raises ConfigError unless this machine computes in this form."""
    gpu = torch.cuda.is_available()
    require(
        form != "dynamic" or (gpu and torch.cuda.get_device_capability() >= CAPABILITY),
        f"decoder.fp8 dynamic needs a GPU with fp8 products (compute capability {'.'.join(map(str, CAPABILITY))}: Ada, "
        f"Hopper or later), and there is {torch.cuda.get_device_name() if gpu else 'no GPU'}: set it to weights",
    )


# ---------------------------------------------------------------- reading

# Fills a flat tensor with a parameter's elements, from a given index on.
Read = Callable[[Tensor, int], None]


def is_scale(name: str) -> bool:
    """Whether a parameter of this name is a scale, which no checkpoint holds."""
    return name.endswith(f".{SCALE}")


def reading(owner: nn.Module, prefix: str, name: str, read: Callable[[str], Read]) -> Read:
    """Returns the function that reads a module's own parameter. That of an fp8 layer rounds the stored weight.

    Args:
        owner: The module.
        prefix: Its name; empty for the whole model.
        name: Name of the parameter in it.
        read: Returns the function that reads a parameter in full precision, by its name in the model.
    """
    whole = f"{prefix}.{name}".lstrip(".")
    if not isinstance(owner, Fp8Linear) or name == "bias":
        return read(whole)
    weight = read(whole.removesuffix("_scale"))
    return (codes_of if name == "weight" else scales_of)(weight, owner.in_features)


def codes_of(read: Read, width: int) -> Read:
    """Returns a function that fills a flat uint8 tensor with the codes of a matrix, from any element on.

    It reads whole rows, since a row has one scale, but few at once.

    Args:
        read: Fills a flat tensor with the matrix's elements.
        width: Elements of a row.
    """

    def fill(flat: Tensor, start: int) -> None:
        end, row = start + flat.numel(), start // width
        while row * width < end:
            count = min(max(1, PIECE // width), -(-end // width) - row)
            codes, _ = rounded(rows_of(read, row, count, width, flat.device))
            first, last = max(start, row * width), min(end, (row + count) * width)
            flat[first - start : last - start] = codes.view(torch.uint8).view(-1)[first - row * width :][: last - first]
            row += count

    return fill


def scales_of(read: Read, width: int) -> Read:
    """Returns a function that fills a flat tensor with the scales of a matrix's rows, from any row on."""

    def fill(flat: Tensor, start: int) -> None:
        step = max(1, PIECE // width)
        for first in range(0, flat.numel(), step):
            part = flat[first : first + step]
            part.copy_(rounded(rows_of(read, start + first, len(part), width, flat.device))[1])

    return fill


def rows_of(read: Read, row: int, count: int, width: int, device: torch.device) -> Tensor:
    """Reads rows (count, width) of a matrix in fp32."""
    rows = torch.empty(count * width, device=device)
    read(rows, row * width)
    return rows.view(count, width)
