"""The judges of generated videos: ``pixels`` for the shapes world, ``qwen2.5-vl`` for any video."""
