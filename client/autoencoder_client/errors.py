"""Errors of the client.

ClientError
├── InvalidRequest     an argument cannot be sent
├── Unreachable        no connection, or none within the retries
├── InvalidResponse    a response is not one of the service
└── ServiceError       the service responded with an error; `code` says which
"""


class ClientError(Exception):
    """Base of all errors of the client."""


class InvalidRequest(ClientError):
    """An argument cannot be sent, such as a file that is missing."""


class Unreachable(ClientError):
    """The service cannot be reached, or has not admitted the request within the retries."""


class InvalidResponse(ClientError):
    """A response is not one of the service; the URL may be of another server."""


class ServiceError(ClientError):
    """The service responded with an error: its status, code, detail, request ID and URL."""

    def __init__(self, status: int, code: str, detail: str, request_id: str, url: str) -> None:
        super().__init__(f"{url} responded {status} {code}: {detail} (request {request_id})")
        self.status, self.code, self.detail = status, code, detail
        self.request_id, self.url = request_id, url
