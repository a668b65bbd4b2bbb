import json
import logging
import time

import pytest

from service.telemetry.logging import (
    AccessLog,
    Form,
    JsonFormatter,
    build_text_formatter,
    configure,
)


@pytest.mark.parametrize("worker", [None, 2])
@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_of_requests_have_the_form_of_other_lines(
    form: Form,
    worker: int | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    AccessLog(form, "info", worker).write("POST", "/path", 200, 0.0012345, "me")
    fields = {
        "method": "POST",
        "path": "/path",
        "status": 200,
        "milliseconds": 1.23,
        "request_id": "me",
    }
    message = "POST /path 200 1.23 ms me"
    record = logging.makeLogRecord(
        {"name": "service.access", "levelname": "INFO", "msg": message, "created": now, **fields}
    )
    record.msecs = int(1000 * (now % 1))
    json_lines = form == "json"
    formatter = JsonFormatter(worker) if json_lines else build_text_formatter(worker)
    assert capsys.readouterr().err == formatter.format(record) + "\n"


def test_lines_of_requests_have_the_level_info(capsys: pytest.CaptureFixture[str]) -> None:
    AccessLog("text", "warning").write("POST", "/path", 200, 0.001, "me")
    assert not capsys.readouterr().err


def test_json_log_lines_hold_message_fields_and_traceback() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x",
            logging.ERROR,
            "f",
            1,
            "took %d ms",
            (5,),
            __import__("sys").exc_info(),
            extra={"status": 500},
        )
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["message"], entry["level"], entry["status"]) == ("took 5 ms", "error", 500)
    assert "ValueError: wrong" in entry["traceback"]


@pytest.mark.parametrize(
    ("form", "expected"), [("text", "WARNING worker 2 x: hot"), ("json", '"worker":2,')]
)
def test_lines_of_a_worker_have_its_number(
    form: Form, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    root, switches = logging.getLogger(), dict(vars(logging))
    handlers, level = root.handlers[:], root.level
    try:
        configure(form, "warning", worker=2)
        logging.getLogger("x").warning("hot")
    finally:
        vars(logging).update(switches)
        root.handlers[:], root.level = handlers, level
    assert expected in capfd.readouterr().err
