"""Trains the small models that vtok ships: CLIP, LLaVA-Next and HunyuanVideo in small, for the shapes world.

CLIP, the language model and the image model come first, by the study's own stages. Then:

config.py     the settings: a profile of configs/shapes_models.yaml
pictures.py   how many new pictures the image model describes right
facts.py      what a caption tells, as classes
tower.py      the decoder's text encoder, tuned until it tells every fact of a caption
clips.py      many clips as latents, with the tokens of their first frames, and captions
muon.py       an optimiser that needs fewer steps than AdamW
ranks.py      the decoder's resumable training loop, on one process or several
decoder.py    trains the decoder
judged.py     the pixel judge's answers about its videos
joint.py      VTok itself: joint training with the encoder and the decoder frozen
pruning.py    visual heads with fewer Gaussians
family.py     the models in bf16, each with its card
command.py    runs all of it in order
"""
