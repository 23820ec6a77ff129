"""The paper's claims in small: see pipelines/study/, whose stages this runs.

python pipelines/study.py --profile smoke|cpu|gpu --output DIR
"""

import sys

from pipelines.study.command import main

if __name__ == "__main__":
    main(sys.argv[1:])
