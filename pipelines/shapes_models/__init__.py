"""Trains the small models that vtok ships: CLIP, LLaVA-Next and HunyuanVideo in small, for the shapes world.

config.py     the settings: a profile of configs/shapes_models.yaml
scenes.py     draws scenes with their texts for the language and the image model
clip.py       trains the image encoder on frames and captions; gate: does it bind colours to shapes?
llm.py        trains the language model on text
llava.py      trains the image model, which joint training starts from
pictures.py   how many new pictures the image model describes right
facts.py      what a caption tells, as classes
tower.py      the decoder's text encoder, tuned until it tells every fact of a caption
clips.py      many clips as latents, with the tokens of their first frames, and captions
muon.py       an optimiser that needs fewer steps than AdamW
ranks.py      the decoder's resumable training loop, on one process or several
decoder.py    trains the decoder
judged.py     the pixel judge's answers about its videos
joint.py      VTok itself, and how well it describes and makes videos
joint_run.py  its training, by the commands that a user runs
describing.py training on L_under alone
own_tokens.py clips whose tokens VTok sampled, on which it trains at last
curves.py     the learning curve of that training in few points
family.py     the models in bf16, each with its card
command.py    runs all of it in order
"""
