"""Videos: reading, checking, showing and writing them.

decode       frames by time, and facts
views        windows and sizes of a clip, as the tokeniser and the decoder see it
reader       the one reader of frames: from the beginning, or from a later key frame
second       a second decoder, where the first one hides damage
trial        whether a clip can be entered at its key frames
packets      which packets are decoded, and where decoding may begin
units        what the units of H.264 and HEVC tell of a packet
stamps       when a frame is shown, in the stream's units
times        the same in seconds, and the frames nearest to given times
complete     whether frames are missing
container    opening a file
flv          damage in FLV files
gif          damage in GIF files
mpegts       holes in transport streams, and places where they were joined
display      orientation, square pixels and colours of a frame
interlace    interlaced frames to progressive ones
hdr          high dynamic range to standard
with_decord  frames by decord
with_torchcodec  frames by torchcodec
encode       frames to an mp4 in memory
media        frames to files: mp4, GIF, contact sheet
files        the video files of a folder or a table
"""
