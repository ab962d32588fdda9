"""Where a request is tokenised: on the event loop if that is quick, otherwise in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from crossbench.models.tokenizer import Tokenized
from crossbench.models.word_memo import NeedsLibrary
from crossbench.serving.speed import Speed

# A thread costs a request two more hand-overs. On the event loop the other requests wait for these
# characters: about 0.5 ms if their words are known, or if the library encodes them.
INLINE_CHARACTERS = 16_384
INLINE_LIBRARY_CHARACTERS = 1024

# Tokenises a request. The argument says whether it may use the tokenizers library, which is slow.
Encode = Callable[[bool], Tokenized]


@dataclass
class Tokenizing:
    """Tokenises requests on the event loop, or in a thread if that would delay other requests.

    `waiting_texts` and `waiting_characters` count the work of the `threads`. All methods run on
    the event loop.
    """

    threads: int
    waiting_texts: int = field(default=0, init=False)
    waiting_characters: int = field(default=0, init=False)
    _speed: Speed = field(default_factory=Speed, init=False)  # of one thread, per character

    def __post_init__(self) -> None:
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="tokenizer")

    async def run(self, texts: Sequence[str], encode: Encode) -> Tokenized:
        """Return what `encode` returns for a request with these texts."""
        characters = sum(map(len, texts))
        if characters <= INLINE_CHARACTERS:
            try:
                return encode(characters <= INLINE_LIBRARY_CHARACTERS)
            except NeedsLibrary:
                pass
        return await self.in_thread(len(texts), characters, lambda: encode(True))

    async def in_thread(
        self, texts: int, characters: int, encode: Callable[[], Tokenized]
    ) -> Tokenized:
        """Return what `encode` returns for so many texts; it runs in one of the threads."""
        loop = asyncio.get_running_loop()
        self.waiting_texts += texts
        self.waiting_characters += characters
        try:
            tokenized, seconds = await loop.run_in_executor(self._executor, _timed, encode)
        finally:
            self.waiting_texts -= texts
            self.waiting_characters -= characters
        self._speed.add(characters, seconds)
        return tokenized

    def wait_s(self) -> float:
        """Return how long the threads take for the requests that they have now."""
        return self._speed.seconds(self.waiting_characters) / self.threads

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _timed(encode: Callable[[], Tokenized]) -> tuple[Tokenized, float]:
    started_s = time.perf_counter()
    tokenized = encode()
    return tokenized, time.perf_counter() - started_s
