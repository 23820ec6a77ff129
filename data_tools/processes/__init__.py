"""Work in other processes.

child.py    a process that may crash or hang without harm, and several of them at once
decoder.py  decoding in one of them: what befalls it costs one clip
parallel.py one function over many things, the results in order
"""
