"""The body of a request as JSON: its values are counted before they become objects."""

from __future__ import annotations

import re
from typing import Any

import orjson

from crossbench.errors import InvalidRequest, RequestTooLarge
from crossbench.serving.http.fields import Fields, kind_of

# Decoding so few bytes takes less time than counting their values
SMALL_BYTES = 65_536
VALUES_PER_ITEM = 4  # {"text": "…"} has a bracket, two texts and a comma
OTHER_VALUES = 256  # of a request beside its texts

# A text, which may lack its end, or what begins or separates values. The possessive quantifiers
# keep no state, so that the time is linear in the number of bytes, and no memory is needed.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)


def read_object(data: bytes, max_items: int) -> Fields:
    """Return the JSON object in `data`, which has at most about `max_items` texts.

    Raises:
        InvalidRequest: it is not JSON in UTF-8, or no object.
        RequestTooLarge: it has far more values than a request with so many texts.
    """
    most = max_items * VALUES_PER_ITEM + OTHER_VALUES
    if len(data) > SMALL_BYTES and has_more_values(data, most):
        raise RequestTooLarge(
            f"the request has more than {most} JSON values, too many for {max_items} texts, which "
            "is the limit: split it, or raise server.max_pairs"
        )
    try:
        values: Any = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"the body is no JSON in UTF-8 ({error}): send a JSON object"
        ) from error
    if not isinstance(values, dict):
        raise InvalidRequest(f"the body is {kind_of(values)}: send a JSON object")
    return Fields(values)


def has_more_values(data: bytes, most: int) -> bool:
    """Return whether JSON has more than `most` texts, brackets and commas in all.

    4 MB may have a million empty texts or arrays. To count them takes no object per value, and ends
    after `most`. Malformed JSON is left to the parser.
    """
    # Texts are counted too, so a text with many commas does not matter, and the count is cheap
    if sum(data.count(sign) for sign in (b",", b"[", b"{", b'"')) <= most:
        return False
    return any(number > most for number, _ in enumerate(_TOKEN.finditer(data), 1))
