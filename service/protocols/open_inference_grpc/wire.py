"""Bounds of a message before it is parsed, because parsing multiplies its memory.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator

from service.api.errors import MalformedRequest, PayloadTooLarge
from service.api.requests import MAX_OPTION_BYTES

MAX_FIELDS = 2**12
MAX_NUMBER_BYTES = 2**22  # of numbers in contents, which may take eight times as much memory
VARINT, DELIMITED = 0, 2  # wire types; delimited are strings, bytes, messages, packed numbers
FIXED_BYTES = {1: 8, 5: 4}  # by wire type
# Paths of fields in ModelInferRequest: bytes that stay bytes, and messages that hold other fields.
OPAQUE = {(7,), (5, 5, 8)}  # raw_input_contents, inputs.contents.bytes_contents
CONTENTS = (5, 5)  # inputs.contents
NESTED = {(5,), CONTENTS}
UNCOUNTED = OPAQUE | NESTED


def check_size(message: bytes) -> None:
    """Check the fields of a serialised ModelInferRequest.

    Raises PayloadTooLarge for too many or too large fields, MalformedRequest for other bytes.
    """
    others = numbers = 0
    for count, (path, size) in enumerate(_walk(memoryview(message), ()), 1):
        if path in UNCOUNTED:
            size = 0
        if path[:2] == CONTENTS:
            numbers += size
        else:
            others += size
        if count > MAX_FIELDS or numbers > MAX_NUMBER_BYTES:
            raise PayloadTooLarge(
                f"the message holds more than {MAX_FIELDS} fields, or {MAX_NUMBER_BYTES} bytes of "
                "numbers; send raw_input_contents"
            )
        if others > MAX_OPTION_BYTES:
            raise PayloadTooLarge(
                f"the message holds more than {MAX_OPTION_BYTES} bytes beside the data of tensors"
            )


def _walk(data: memoryview, parent: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the path and the bytes of each field."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        path, wire_type = (*parent, tag >> 3), tag & 7
        if wire_type == DELIMITED:
            size, position = _read_varint(data, position)
        elif wire_type in FIXED_BYTES:
            size = FIXED_BYTES[wire_type]
        elif wire_type == VARINT:
            size = _read_varint(data, position)[1] - position
        else:  # groups, in which other fields could hide
            raise MalformedRequest(f"the message holds the wire type {wire_type}")
        if position + size > len(data):
            raise MalformedRequest("the message is incomplete")
        yield path, size
        if path in NESTED and wire_type == DELIMITED:
            yield from _walk(data[position : position + size], path)
        position += size


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a number and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedRequest("the message is incomplete")
