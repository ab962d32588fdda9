"""Checks of a request: its size, before it is decoded, and its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.errors import InvalidRequest, RequestTooLarge
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.wire import OTHER_FIELDS, SMALL_BYTES, has_more_fields

MAX_UTF8_BYTES = 4  # of one character


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits of the config. All methods raise InvalidRequest if a request exceeds them."""

    settings: ServerSettings

    def check_bytes(self, data: bytes, what: str) -> None:
        """Check the size of a request, and that it cannot have far too many `what`."""
        limit, most = self.settings.max_request_bytes, self.settings.max_pairs
        if len(data) > limit:
            raise RequestTooLarge(
                f"the request has {len(data)} bytes, the limit is {limit}: split it, or raise "
                "server.max_request_bytes"
            )
        if len(data) > SMALL_BYTES and has_more_fields(data, most + OTHER_FIELDS):
            raise RequestTooLarge(
                f"the request contains more than {most} {what}, which is the limit: split the "
                "request, or raise server.max_pairs"
            )

    def check_count(self, count: int, what: str) -> None:
        """Check the number of pairs or texts."""
        if count == 0:
            raise InvalidRequest(f"the request contains no {what}: send at least one")
        if count > self.settings.max_pairs:
            raise RequestTooLarge(
                f"the request contains {count} {what}, the limit is {self.settings.max_pairs}: "
                "split the request, or raise server.max_pairs"
            )

    def check_texts(self, texts: Sequence[str], what: str) -> None:
        """Check that no text is empty or too long."""
        limit = self.settings.max_text_bytes
        for index, text in enumerate(texts):
            if not text or text.isspace():
                raise InvalidRequest(f"text {index} of {what} is empty: send text, or omit it")
            if len(text) * MAX_UTF8_BYTES > limit and (size := len(text.encode())) > limit:
                raise RequestTooLarge(
                    f"text {index} of {what} has {size} bytes, the limit is {limit}: shorten it "
                    "(a model reads only its first tokens), or raise server.max_text_bytes"
                )
