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
Form = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formatter of one JSON object per line.

    Its keys are time, level, worker if any, logger, message, the keys of `extra`, and traceback if
    any.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = _describe_worker(worker)

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _format_time(int(record.created)),
            "level": record.levelname.lower(),
            **self._worker,
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

    def __init__(self, form: Form, level: str, worker: int | None = None) -> None:
        self._json = form == "json"
        self._worker, self._name = _describe_worker(worker), _format_name(ACCESS, worker)
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
                **self._worker,
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
            second = _format_time(int(now), logging.Formatter.default_time_format)
            line = f"{second},{int(1000 * (now % 1)):03d} INFO    {self._name}: {message}"
        with suppress(OSError, ValueError):  # as `logging` does if nothing reads the lines
            sys.stderr.write(f"{line}\n")


def build_text_formatter(worker: int | None = None) -> logging.Formatter:
    """Return the formatter of lines of text."""
    name = _format_name("%(name)s", worker)
    return logging.Formatter(f"%(asctime)s %(levelname)-7s {name}: %(message)s")


def _describe_worker(worker: int | None) -> dict[str, int]:
    return {} if worker is None else {"worker": worker}


def _format_name(name: str, worker: int | None) -> str:
    return name if worker is None else f"worker {worker} {name}"


@lru_cache(maxsize=2)
def _format_time(second: int, form: str = "%Y-%m-%dT%H:%M:%S%z") -> str:
    return time.strftime(form, time.localtime(second))


def configure(form: Form, level: str, worker: int | None = None) -> None:
    """Configure the root logger; uvicorn logs through it from the level warning.

    Each line has the number of the worker, if there is one.
    """
    # No format uses caller, thread or process, and looking them up slows each line.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "text": {"()": build_text_formatter, "worker": worker},
                "json": {"()": JsonFormatter, "worker": worker},
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {"uvicorn": {"level": "WARNING"}},
        }
    )
