"""Errors in the format of OpenAI's interface."""

from typing import Any

from zoo.core.errors import ZooError, printable

MAX_MESSAGE = 500  # characters


class APIError(Exception):
    """An answer other than success.

    Args:
        status: of HTTP.
        message: for people.
        kind: class of the error, such as "invalid_request_error".
        param: part of the request that is at fault.
        code: for programs.
        retry_after: seconds after which a repetition may succeed; None means that it cannot.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        message = printable(message)
        super().__init__(message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + " ...")
        self.status, self.kind, self.param, self.code, self.retry_after = status, kind, param, code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers about a repetition of the request."""
        if self.retry_after is None:
            return {"x-should-retry": "false"}
        return {"retry-after": str(max(1, round(self.retry_after))), "x-should-retry": "true"}


def invalid(message: str, param: str | None = None, code: str | None = None) -> APIError:
    """A request that does not fit, status 400."""
    return APIError(400, message, param=param, code=code)


def overloaded(message: str, retry_after: float = 1.0) -> APIError:
    """A server that is at a limit, status 503."""
    return APIError(503, message, kind="server_error", code="overloaded", retry_after=retry_after)


def queue_full(model: str, n: int) -> APIError:
    """Too many waiting requests, status 429."""
    return APIError(
        429,
        f"model={model}: {n} requests are waiting already. Send this one again later.",
        kind="requests",
        code="rate_limit_exceeded",
        retry_after=1.0,
    )


def timed_out(seconds: float) -> APIError:
    """A request that took too long, status 408."""
    return APIError(
        408, f"The request took longer than {seconds:g} seconds. Ask for less.", kind="timeout", code="timeout"
    )


def internal() -> APIError:
    """A fault of the server, status 500; the log has its traceback."""
    return APIError(500, "The server failed. Its log has the reason.", kind="server_error", code="internal_error")


def as_api_error(error: BaseException) -> APIError:
    """Convert an exception: one that a user can correct is status 400, any other 500."""
    if isinstance(error, APIError):
        return error
    return invalid(str(error)) if isinstance(error, ZooError) else internal()
