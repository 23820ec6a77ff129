"""The commands a person runs, and what they share.

train, train_vidtok                   training
understand, generate, reconstruct     a trained model at work;  tokenise: its tokens as pictures
evaluate, bench, study                figures
plan                                  what a run will need
precompute, export                    features before training, weights after it

config          every setting of a run;  views: what the model sees of a clip
configs/        presets
cli/            command lines, configuration files, errors
engine/         DeepSpeed, data loading, checkpoints, logs
inference/      loading a trained model, understanding, generating
evaluation/     protocols, judges, tables
metering/       FLOPs and bytes of a step, counted on the meta device;  planning/: forecasts made of them
benchmarks/, vidtok_training/, shapes_study/     of bench.py, train_vidtok.py and study.py
"""
