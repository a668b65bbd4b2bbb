"""Logging to standard error, as text or as JSON."""

import logging
import logging.config
import time
from functools import lru_cache
from typing import Literal

import orjson

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


@lru_cache(maxsize=1)
def _format_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))


def configure(form: Literal["text", "json"], level: str) -> None:
    """Configure the root logger; uvicorn logs through it from the level warning."""
    # No format uses caller, thread or process, and looking them up slows each line.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
                "json": {"()": JsonFormatter},
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {"uvicorn": {"level": "WARNING"}},
        }
    )
