"""One rank: the training command several times over, in one launch, which saves the imports.

deepspeed --num_gpus R train_worker.py FILE, where FILE holds a JSON list of argument lists
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from pipelines import train

for argv in json.loads(Path(sys.argv[-1]).read_text()):
    train.main(argv)
