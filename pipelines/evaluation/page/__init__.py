"""One page of an evaluation, to look through and to check by eye: ``evaluate.py page RESULTS --output page.html``.

page.html    the template: filters, videos, answers, and a person's own answers
command.py   fills it
"""
