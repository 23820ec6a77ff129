"""Tests the paper's claims on small models; runs the stages in pipelines/shapes_study/.

python pipelines/study.py --profile smoke|cpu|gpu --output DIR
"""

import sys

from pipelines.shapes_study.command import main

if __name__ == "__main__":
    main(sys.argv[1:])
