"""Logging to standard error, as text or as JSON."""

import logging
import logging.config
import sys
import time
from contextlib import suppress
from functools import lru_cache
from typing import Literal

import orjson

ACCESS = "service.access"  # the logger of the lines of requests
TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
Form = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formatter of one JSON object per line.

    Its keys are time, level, logger, message, the keys of `extra`, and traceback if any.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _format_time(int(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


class AccessLog:
    """Writes a line for each request to standard error, in the form of the other lines.

    A record of `logging` would take three times as long.
    """

    def __init__(self, form: Form, level: str) -> None:
        self._json = form == "json"
        self._enabled = logging.getLevelNamesMapping()[level.upper()] <= logging.INFO

    def write(self, method: str, path: str, status: int, seconds: float, request_id: str) -> None:
        """Write the line of a request that has ended."""
        if not self._enabled:
            return
        now, milliseconds = time.time(), round(1000 * seconds, 2)
        message = f"{method} {path} {status} {milliseconds} ms {request_id}"
        if self._json:
            entry = {
                "time": _format_time(int(now)),
                "level": "info",
                "logger": ACCESS,
                "message": message,
                "method": method,
                "path": path,
                "status": status,
                "milliseconds": milliseconds,
                "request_id": request_id,
            }
            line = orjson.dumps(entry).decode()
        else:
            line = _format_text(now, message)
        with suppress(OSError, ValueError):  # as `logging` does if nothing reads the lines
            sys.stderr.write(f"{line}\n")


def _format_text(now: float, message: str) -> str:
    second = _format_time(int(now), logging.Formatter.default_time_format)
    return f"{second},{int(1000 * (now % 1)):03d} INFO    {ACCESS}: {message}"


@lru_cache(maxsize=2)
def _format_time(second: int, form: str = "%Y-%m-%dT%H:%M:%S%z") -> str:
    return time.strftime(form, time.localtime(second))


def configure(form: Form, level: str) -> None:
    """Configure the root logger; uvicorn logs through it from the level warning."""
    # No format uses caller, thread or process, and looking them up slows each line.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "text": {"format": TEXT},
                "json": {"()": JsonFormatter},
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {"uvicorn": {"level": "WARNING"}},
        }
    )
