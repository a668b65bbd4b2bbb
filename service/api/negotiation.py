"""Which media type to answer with, from the Accept header (RFC 9110, section 12.5.1)."""

from functools import lru_cache

from multipart import parse_options_header

from service.api.errors import NotAcceptable


@lru_cache(maxsize=1024)  # clients send one and the same again and again
def choose(accept: str, offered: tuple[str, ...]) -> str:
    """The offered type that the client likes best; at a tie, the one offered first. Raises NotAcceptable."""
    accept = accept.strip() or "*/*"
    quality = {kind: _quality(kind, accept) for kind in offered}
    best = max(offered, key=lambda kind: quality[kind])
    if quality[best] <= 0:
        raise NotAcceptable(f"Accept {accept[:200]!r} allows none of {', '.join(offered)}")
    return best


def _quality(kind: str, accept: str) -> float:
    """The weight of a media type: that of the most specific range that covers it, 0 where none does."""
    best = (-1, 0.0)
    for entry in accept.split(","):
        name, options = parse_options_header(entry.strip())
        ranges = ("*/*", kind.split("/")[0] + "/*", kind)
        if name.lower() in ranges:
            best = max(best, (ranges.index(name.lower()), _weight(options.get("q", "1"))))
    return best[1]


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
