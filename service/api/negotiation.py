"""Choice of the response's media type by the Accept header (RFC 9110, section 12.5.1)."""

from functools import lru_cache

from multipart import parse_options_header

from service.api.errors import NotAcceptable


@lru_cache(maxsize=64)  # because clients repeat the same header
def choose(accept: str, offered: tuple[str, ...]) -> str:
    """Return the offered media type of the highest quality; at a tie, the first.

    Raises NotAcceptable if the quality of each is 0.
    """
    accept = accept.strip() or "*/*"
    quality = {media_type: _compute_quality(media_type, accept) for media_type in offered}
    best = max(offered, key=lambda media_type: quality[media_type])
    if quality[best] <= 0:
        raise NotAcceptable(f"Accept {accept[:200]!r} allows none of {', '.join(offered)}")
    return best


def _compute_quality(media_type: str, accept: str) -> float:
    """Return the weight of the most specific range that covers a media type; 0 if none does."""
    best = (-1, 0.0)
    for entry in accept.split(","):
        name, options = parse_options_header(entry.strip())
        ranges = ("*/*", media_type.split("/")[0] + "/*", media_type)
        if name.lower() in ranges:
            best = max(best, (ranges.index(name.lower()), _parse_weight(options.get("q", "1"))))
    return best[1]


def _parse_weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
