"""The two errors a person can meet on the way from a video file to a batch."""


class DataError(ValueError):
    """Input the user can mend: its message is one clear line that says what is wrong and what to do."""


class BadVideo(DataError):
    """One video that cannot be used; the others can.

    reason: short slug for machines, such as "truncated"; str() gives "reason: detail".
    """

    def __init__(self, reason: str, detail: str):
        # Both go to `args`, from which pickle rebuilds the error on the other side of a worker's pipe.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
