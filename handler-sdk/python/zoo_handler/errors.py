"""The errors of the SDK: the one that handlers raise, and those between the parts of the worker."""


class PredictionException(Exception):
    """Raised, or put in the place of an answer, by a handler that wants a status of its own.

    Raised, it fails the whole batch. As an element of the returned list, it fails that request only.
    """

    def __init__(self, message, error_code=500):
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self):
        return "{} : {}".format(self.message, self.error_code)

    def __reduce__(self):
        return (type(self), (self.message, self.error_code))


class LinkError(BaseException):
    """The link can't be used any longer.

    No Exception: a handler that catches everything must not swallow it.
    """


class ProtocolError(LinkError):
    """The server sent something that the protocol doesn't allow."""


class LinkClosed(LinkError):
    """The server's end of the link is closed, or this process is a fork that must not use it."""


class InvalidArchive(Exception):
    """The archive can't be loaded by nature: trying again is of no use."""


class AnswerError(Exception):
    """One answer that can't be sent: the code and the text that its client gets instead."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message
