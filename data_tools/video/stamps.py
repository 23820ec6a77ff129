"""When a frame is shown: the timestamp that FFmpeg's tools call "best effort"."""

import av

from data_tools.errors import BadVideo


class Clock:
    """Gives the frames of one stream, in the order in which a decoder returns them, their timestamps.

    A frame carries its packet's presentation time (pts) and the decoding time of the packet that released it (dts).
    AVI stores no presentation times, and those of some other files contradict the order of frames. So FFmpeg counts
    how often each of the two fails to rise, and believes the one that failed less often
    (`guess_correct_pts` in libavcodec/decode.c). PyAV does not give the result, therefore it is repeated here.

    A frame with no time follows the one before it.

    Args:
        step: time between two frames that say neither when they are shown nor how long, in units of the time base.
    """

    def __init__(self, step: int):
        self._step = step
        self._last: int | None = None
        self._last_pts: float = float("-inf")
        self._last_dts: float = float("-inf")
        self._faulty_pts = self._faulty_dts = 0

    def stamp(self, frame: av.VideoFrame) -> int:
        """The timestamp of the next frame, in units of the time base.

        Raises:
            BadVideo: it is earlier than that of the frame before.
        """
        stamp = self._guess(frame.pts, frame.dts)
        if self._last is not None and stamp is not None and stamp < self._last:
            if frame.dts is not None:
                raise BadVideo("bad_timestamps", "the timestamps contradict the order of the frames")
            stamp = None  # one of the last frames, which no packet released: only its disbelieved pts is left
        if stamp is None:
            stamp = 0 if self._last is None else self._last + (frame.duration or self._step)
        self._last = stamp
        return stamp

    def _guess(self, pts: int | None, dts: int | None) -> int | None:
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        believed = self._faulty_pts <= self._faulty_dts or dts is None
        return pts if believed and pts is not None else dts
