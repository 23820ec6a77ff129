"""Inference: what the commands share that use a trained model.

load         loads the model of a run
understand   answers questions about video files
generate     makes videos of prompts and writes them to files
tokenise     tokenises videos
export       writes a checkpoint as a folder of weights
publish      uploads it to the hub;  card: its model card
shares       divides the inputs among ranks
pictures     draws a video's tokens
"""
