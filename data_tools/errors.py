"""The errors of data_tools."""


class DataError(ValueError):
    """An error that the user can fix. The message is one line: what is wrong and what to do."""


class BadVideo(DataError):
    """One video cannot be used. Others are not affected. `str()` gives "reason: detail".

    Attributes:
        reason: a slug for programs, such as "truncated".
        detail: the explanation for people.
    """

    def __init__(self, reason: str, detail: str):
        # pickle rebuilds the error from `args` in another process.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
