"""Makes natural.jsonl: questions about everyday scenes, whose answers only the video can tell.

quads.py        the rule: each question stands with each of its four answers once
scenes.py       vocabularies and sentences of counting, direction, positions, sizes and colours
events.py       hand-written changes of state, and motions
items.py        the quads of all categories -> items
proof.py        proves balance, uniqueness and that no guess from the text alone beats chance
command.py      ``evaluate.py items``: writes them, or proves this of any file
"""
