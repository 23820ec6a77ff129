"""What a person runs: ``train.py``, ``understand.py``, ``generate.py``, ``plan.py``; ``engine/`` is what they share."""
