"""Control flow that is not an error: how a synchronous handler is suspended."""


class Suspend(BaseException):
    """Unwinds a synchronous handler at a step that can't go on yet.

    A `BaseException`, so that `except Exception` around a step can't swallow it. Asynchronous
    handlers never see it: they park on a future instead.
    """

    __slots__ = ()
