"""Videos: reading, checking, showing and writing them.

decode   frames by time, and facts
views    windows and sizes of a clip, as the tokeniser and the decoder see it
encode   frames to an mp4 in memory
media    frames to files: mp4, GIF, contact sheet
files    the video files of a folder or a table
"""
