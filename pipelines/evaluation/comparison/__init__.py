"""Puts evaluations of the same items side by side: ``evaluate.py compare A B …``.

rows.py     the reports -> rows of accuracies, paired with the first
vbench.py   reports of VBench -> a table
writing.py  the rows as Markdown, LaTeX and a picture
command.py  the command
"""
