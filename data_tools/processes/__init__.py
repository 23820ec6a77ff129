"""Work in child processes.

child.py     a child process that may crash or hang, and several of them at once
decoder.py   decoding in a child process: a crash or hang costs one clip
parallel.py  map a function over inputs in several processes
"""
