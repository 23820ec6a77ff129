"""Multiple-choice questions about given videos (the paper's Table 3).

question.py    a question, and the text that the model is asked
subtitles.py   the subtitles of a video
suites.py      readers of the question files of public suites, by name, and of our own
asking.py      what a model says: the likelihood of each option, and the letter that it writes
run.py         the command: groups by video, asks, writes the report
"""
