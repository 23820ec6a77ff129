"""Makes the visual heads of a trained VTok smaller: of each mixture, only the components that are used most stay.

The heads are the largest part of a small VTok. Their components are D-dimensional Gaussians, and D is large.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vtok.config import require
from vtok.framework import VTokFramework
from vtok.generation import sample_row
from vtok.visual_head.gaussian_mixture import GaussianMixtureHead


@torch.no_grad()
def prune(framework: VTokFramework, keep: int, prompts: Iterable[str], tokens: int, seed: int) -> None:
    """Leaves ``keep`` components in each visual head, in place.

    Args:
        framework: The model; its heads are Gaussian mixtures.
        keep: Components to keep.
        prompts: Prompts whose visual tokens are sampled to see which components are used.
        tokens: Visual tokens of a video.
        seed: Seed of the tokens.

    Raises:
        ConfigError: The heads are of another kind, or have fewer components.
    """
    heads = {kind: head for kind, head in framework.visual_head.items()}
    for head in heads.values():
        fits = isinstance(head, GaussianMixtureHead) and keep <= head.components
        require(fits, f"visual heads of {framework.config.visual_head.components} Gaussians cannot keep {keep}")
    used = {kind: torch.zeros(head.components) for kind, head in heads.items()}

    def count(kind: str, head: GaussianMixtureHead, output: Tensor) -> None:
        used[kind] += output[..., : head.components].softmax(-1).reshape(-1, head.components).sum(0).cpu()

    hooks = [
        head.linear.register_forward_hook(lambda _, __, output, kind=kind, head=head: count(kind, head, output))
        for kind, head in heads.items()
    ]
    for number, prompt in enumerate(prompts):
        sample_row(framework, prompt, tokens, generator=torch.Generator().manual_seed(seed + number))
    for hook in hooks:
        hook.remove()
    for kind, head in heads.items():
        keep_components(head, used[kind].topk(keep).indices.sort().values)
    framework.config.visual_head.components = keep


def keep_components(head: GaussianMixtureHead, chosen: Tensor) -> None:
    """Leaves the chosen components (n,) in a head."""
    means = head.components + (chosen[:, None] * head.dim + torch.arange(head.dim)).flatten()
    rows = torch.cat([chosen, means, means + head.components * head.dim])
    linear = nn.Linear(head.linear.in_features, len(rows)).to(head.linear.weight)
    linear.weight.copy_(head.linear.weight[rows])
    linear.bias.copy_(head.linear.bias[rows])
    head.linear, head.components = linear, len(chosen)
