"""Trains the small models that vtok ships; see pipelines/shapes_models/, whose stages this runs.

    nice -n 19 python pipelines/train_shapes_models.py --profile smoke|cpu --output DIR

Every stage has a folder in DIR. Started again, the command resumes where it was. DIR/family holds the models.
"""

import sys

from pipelines.shapes_models.command import main

if __name__ == "__main__":
    main(sys.argv[1:])
