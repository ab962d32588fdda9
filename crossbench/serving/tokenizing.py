"""Where a request is tokenised: on the event loop if that is quick, otherwise in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crossbench.models.tokenizer import Tokenized
from crossbench.models.word_memo import NeedsLibrary

# A thread costs a request two more hand-overs. On the event loop the other requests wait for these
# characters: about 0.5 ms if their words are known, or if the library encodes them.
INLINE_CHARACTERS = 16_384
INLINE_LIBRARY_CHARACTERS = 1024

# Tokenises a request. The argument says whether it may use the tokenizers library, which is slow.
Encode = Callable[[bool], Tokenized]


@dataclass(frozen=True)
class Tokenizing:
    """Tokenises requests on the event loop, or in `threads` if that would delay other requests."""

    threads: ThreadPoolExecutor

    async def run(self, texts: Sequence[str], encode: Encode) -> Tokenized:
        """Return what `encode` returns for a request with these texts."""
        characters = sum(map(len, texts))
        if characters <= INLINE_CHARACTERS:
            try:
                return encode(characters <= INLINE_LIBRARY_CHARACTERS)
            except NeedsLibrary:
                pass
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, encode, True)

    def close(self) -> None:
        self.threads.shutdown(wait=True, cancel_futures=True)
