"""Trains the small models that vtok ships, by the stages of pipelines/shapes_models/.

    nice -n 19 python pipelines/train_shapes_models.py --profile smoke|cpu --output DIR

Every stage has a folder in DIR. A second start resumes where the first ended. DIR/family holds the models.
"""

import sys

from pipelines.shapes_models.command import main

if __name__ == "__main__":
    main(sys.argv[1:])
