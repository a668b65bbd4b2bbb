"""Errors of the client.

ClientError
├── InvalidRequest     an argument cannot be sent
├── Unreachable        no connection, or none within the retries
└── ServiceError       the service responded with an error; `code` says which
"""


class ClientError(Exception):
    """Base of all errors of the client."""


class InvalidRequest(ClientError):
    """An argument cannot be sent, such as a file that is missing."""


class Unreachable(ClientError):
    """The service cannot be reached, or has not admitted the request within the retries."""


class ServiceError(ClientError):
    """The service responded with an error: its status, code, detail and request ID."""

    def __init__(self, status: int, code: str, detail: str, request_id: str) -> None:
        super().__init__(f"{detail} ({status} {code}, request {request_id})")
        self.status, self.code, self.detail, self.request_id = status, code, detail, request_id
