"""Hidden widths of ``g_phi`` that make arms equal in parameters."""

import math

from vtok.motion_encoder import QueryMotionEncoder


def matched_hidden_dim(width: int, grid: int, like: int, pooling: str = "flatten") -> int:
    """Returns a hidden width for ``g_phi`` that matches its number of parameters with another ``residual_grid``.

    With features and tokens of width d, hidden width h and residual grid n, ``g_phi`` has
    h (n^2 d + 1) + (h + 1) d parameters. By default h = d. With a query it has h^2 + (3d + 4) h + (n^2 + 1) d.

    Args:
        width: d.
        grid: n of the ``g_phi`` to build.
        like: n of the ``g_phi`` to match, which has the default hidden width and no query.
        pooling: ``residual_pooling`` of the ``g_phi`` to build.
    """
    wanted = width * (like**2 * width + 1) + (width + 1) * width
    if pooling == "query":
        half = (3 * width + 4) / 2
        heads = QueryMotionEncoder.HEADS
        return heads * round((math.sqrt(half**2 + wanted - (grid**2 + 1) * width) - half) / heads)
    return round((wanted - width) / (grid**2 * width + 1 + width))
