"""The members of :mod:`vtok.visual_head`, one a file."""
