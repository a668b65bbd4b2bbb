import json
import logging

from service.telemetry.logging import JsonFormatter


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
