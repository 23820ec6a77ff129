"""From words to one packed sequence.

prompts   instructions and templates
text      captions, questions and answers to token ids
batch     what the model is given: one micro-batch
plan      where each token of a micro-batch stands, and which position predicts what
"""
