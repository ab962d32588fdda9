"""target.scrape: samples a server's Prometheus metrics while it is measured."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from crossbench.errors import TargetUnreachable
from crossbench.measure.scraped import ScrapedValue, parse
from crossbench.runner.http_target import HttpServer
from crossbench.runner.targets import Remote
from crossbench.serving.access import PUBLIC
from crossbench.settings.plan import CellPlan
from crossbench.wording import counted

INTERVAL_S = 1.0
TIMEOUT_S = 5.0
MOST_BYTES = 4 << 20  # of one page; a server with thousands of series has less


class Scraper:
    """Reads the page at `url` about once a second, and parses it only after the measurement.

    A page that cannot be read is left out. `ca` is a PEM file of the authorities to trust for
    https, None for the well-known ones.
    """

    def __init__(self, url: str, ca: str | None) -> None:
        self._url, self._ca = url, ca
        self._pages: list[tuple[float, str]] = []
        self._faults: list[str] = []

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Sample until the context ends, at its beginning and its end too.

        Raises:
            TargetUnreachable: the first page cannot be read.
        """
        started_s = time.perf_counter()
        await self._sample(started_s)
        try:
            parsed = [value for at_s, page in self._pages for value in parse(page, at_s)]
        except ValueError as error:
            self._faults.append(f"no Prometheus text ({error})")
            parsed = []
        if not parsed:
            fault = self._faults[0] if self._faults else "the page has no metrics"
            raise TargetUnreachable(
                f"target.scrape={self._url} has no metrics that can be read: {fault}. Give the "
                "address of the server's Prometheus metrics, or leave it out"
            )
        sampling = asyncio.create_task(self._repeat(started_s), name="scraper")
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            await self._sample(started_s)

    def values(self) -> Sequence[ScrapedValue]:
        """Return everything that was sampled; times are since the start of `watch`."""
        found: list[ScrapedValue] = []
        for at_s, page in self._pages:
            try:
                found += parse(page, at_s)
            except ValueError as error:
                self._faults.append(f"no Prometheus text ({error})")
        return found

    def warning(self) -> str:
        """Return how many samples are missing and why; empty if none is. Call `values` first."""
        if not self._faults:
            return ""
        missing = counted(len(self._faults), "sample")
        return f"target.scrape={self._url}: {missing} could not be read ({self._faults[0]})"

    async def _repeat(self, started_s: float) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._sample(started_s)

    async def _sample(self, started_s: float) -> None:
        from crossbench.serving.http_page import PageError, read_page

        try:
            page = await read_page(self._url, TIMEOUT_S, MOST_BYTES, self._ca)
        except PageError as error:
            self._faults.append(str(error))
        else:
            self._pages.append((time.perf_counter() - started_s, page))


def find_scraper(plan: CellPlan) -> Scraper | None:
    """Return the scraper of a cell's `target.scrape`, None without one."""
    target = plan.target.build()
    if not isinstance(target, HttpServer | Remote) or target.scrape is None:
        return None
    ca = target.ca if isinstance(target, HttpServer) else target.access.ca
    return Scraper(target.scrape, None if ca == PUBLIC else ca)
