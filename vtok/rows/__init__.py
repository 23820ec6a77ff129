"""From words to one packed sequence.

prompts   instructions and templates
text      turns captions, questions and answers into token ids
batch     the model's input: one micro-batch
plan      the place of each token of a micro-batch, and which position predicts which token
"""
