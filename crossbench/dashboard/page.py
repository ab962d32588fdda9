"""The web page: its elements are built once per browser and updated every two seconds."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from crossbench.dashboard import content
from crossbench.dashboard.board import Board
from crossbench.dashboard.charts import CHARTS, GPU_CHART, Chart
from crossbench.dashboard.pages import Pages
from crossbench.dashboard.watch import Watcher

INTERVAL_S = 2.0
TICKS_PER_CHART = 2
THEMES: dict[bool | None, str] = {None: "system", True: "dark", False: "light"}
PACKAGE_FOLDER = Path(__file__).parent
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" '
    'rx="3" fill="#0072B2"/><path d="M3 12V8m5 4V4m5 8V6" stroke="#fff" stroke-width="2"/></svg>'
)


def add_page(app: FastAPI, board: Board, watcher: Watcher, pages: Pages) -> None:
    """Serve the dashboard of `board` at `/` on `app`."""
    style, script = ((PACKAGE_FOLDER / name).read_text("utf-8") for name in ("page.css", "page.js"))

    @ui.page("/")
    def index() -> None:
        pages.add(ui.context.client)
        ui.add_css(style)
        ui.add_body_html(f"<script>{script}</script>")
        Page(board, watcher).build()

    nicegui_app.config.socket_io_js_transports = ["websocket"]
    ui.run_with(
        app,
        title="crossbench",
        favicon=ICON,
        dark=None,
        language="en-US",
        tailwind=False,  # it would scan the page at every change
        binding_refresh_interval=None,
        gzip_middleware_factory=None,  # compression is useless on loopback
        show_welcome_message=False,
    )


class Tag(TextElement):
    """An HTML element with a text."""

    def __init__(self, tag: str, text: str = "") -> None:
        super().__init__(tag=tag, text=text)

    def update_text(self, text: str) -> None:
        """Set the text; an unchanged text is not sent to the browser."""
        if text != self.text:
            self.text = text


@dataclass(frozen=True, slots=True)
class TileView:
    label: Tag
    value: Tag
    unit: Tag
    below: Tag

    def show(self, tile: content.Tile) -> None:
        self.label.update_text(tile.label)
        self.value.update_text(tile.value)
        self.unit.update_text(tile.unit)
        self.below.update_text(tile.below)


class Page:
    """The page of one browser."""

    def __init__(self, board: Board, watcher: Watcher) -> None:
        self._board, self._watcher = board, watcher
        self._html: list[tuple[ui.html, Callable[[Board], str]]] = []
        self._charts: dict[str, tuple[Chart, ui.echart]] = {}
        self._headings: list[tuple[Chart, Tag]] = []
        self._in_view: deque[str] = deque()
        self._ticks = 0

    def build(self) -> None:
        self._dark = ui.dark_mode(None)
        with ui.element("header"):
            with ui.element("div").classes("title"):
                Tag("h1", "crossbench")
                self._subtitle = Tag("p").classes("quiet")
            reset = Tag("button", "Reset").props("type=button").on("click", self._reset)
            reset.props('aria-label="Reset the counters and charts"')
            self._theme = Tag("button", "Theme: system").props("type=button")
            self._theme.on("click", self._next_theme)
        with ui.element("main"):
            with ui.element("div").classes("status").props("role=status aria-live=polite"):
                self._dot = ui.element("span").classes("dot").props("aria-hidden=true")
                self._status = Tag("span")
            with self._section("Sweep") as self._sweep:
                self._sweep_text = Tag("p")
                self._bar = ui.element("progress").props('max=1 value=0 aria-label="Sweep"')
            with ui.element("div").classes("tiles") as self._grid:
                self._tiles: list[TileView] = []
            with ui.element("div").classes("charts"):
                for chart in CHARTS:
                    self._chart(chart)
                self._gpu = self._chart(GPU_CHART)
            with self._section("Cells") as self._cells:
                self._fill("Table of cells", content.cells_html, "scroll")
            with ui.element("div").classes("pair"):
                with self._section("Errors by status"):
                    self._fill("Table of errors", content.errors_html, "scroll")
                with self._section("Configuration"):
                    self._fill("Settings", content.config_html, "scroll config")
        self.refresh()
        for key in self._charts:
            self._draw(key)
        # A page that is closed or in the background is not updated
        self._timer = ui.timer(INTERVAL_S, self.refresh, immediate=False)
        ui.on("visible", self._set_visible)
        ui.on("in_view", self._set_charts_in_view)
        ui.on("theme", self._restore_theme)
        client = ui.context.client
        client.on_connect(lambda: self._count_open_page(1))
        client.on_disconnect(lambda: self._count_open_page(-1))

    def refresh(self) -> None:
        """Show the current state of the board."""
        board, now_s = self._board, time.time()
        self._subtitle.update_text(content.subtitle(board))
        self._status.update_text(content.status_text(board))
        self._dot.classes(replace=f"dot {board.status.split()[0]}")
        self._sweep.set_visibility(bool(board.cells_planned))
        self._cells.set_visibility(bool(board.cells))
        self._sweep_text.update_text(content.sweep_text(board, now_s))
        self._bar.props(f"value={content.sweep_share(board):.3f}")
        for index, tile in enumerate(content.tiles(board)):
            if index == len(self._tiles):
                with self._grid:
                    self._tiles.append(self._tile())
            self._tiles[index].show(tile)
        for element, text in self._html:
            element.set_content(text(board))
        for chart, heading in self._headings:
            heading.update_text(chart.heading(board))
        self._gpu.set_visibility(board.has_device)
        self._ticks += 1
        if self._in_view and self._ticks % TICKS_PER_CHART == 0:
            self._draw(self._in_view[0])
            self._in_view.rotate(-1)

    def _draw(self, key: str) -> None:
        """Update one chart.

        A chart costs the browser ten times as much as all the figures, and the browser may run on
        the measured machine. So only one of the charts in view is updated every four seconds.
        """
        chart, element = self._charts[key]
        options = chart.updated(self._board, time.time())
        element.run_chart_method("setOption", options, {"lazyUpdate": True})

    def _section(self, title: str) -> ui.element:
        section = ui.element("section").props(f'aria-label="{title}"')
        with section:
            Tag("h2", title)
        return section

    def _tile(self) -> TileView:
        with ui.element("div").classes("tile"):
            label = Tag("h2")
            with ui.element("p"):
                value, unit = Tag("strong"), Tag("span")
            return TileView(label, value, unit, Tag("small"))

    def _chart(self, chart: Chart) -> ui.element:
        names = ", ".join(line.name for line in chart.lines)
        section = ui.element("section").props(f'aria-label="{chart.title}"')
        with section:
            self._headings.append((chart, Tag("h2", chart.heading(self._board))))
            drawn = ui.echart(chart.options(), renderer="svg").classes("chart")
            drawn.props(f'role=img aria-label="{chart.title} over the last minutes: {names}"')
            drawn.props(f"data-chart={chart.key}")
        self._charts[chart.key] = (chart, drawn)
        return section

    def _fill(self, label: str, text: Callable[[Board], str], classes: str) -> None:
        element = ui.html(text(self._board)).classes(classes)
        element.props(
            f'tabindex=0 role=group aria-label="{label}"'
        )  # it scrolls, so keys must reach it
        self._html.append((element, text))

    async def _reset(self) -> None:
        with contextlib.suppress(
            grpc.aio.AioRpcError
        ):  # the status line shows that the server is gone
            await self._watcher.reset()
        self.refresh()

    def _next_theme(self) -> None:
        order = list(THEMES)
        self._set_theme(order[(order.index(self._dark.value) + 1) % len(order)])
        name = THEMES[self._dark.value]
        ui.run_javascript(f"localStorage.setItem('crossbench-theme', '{name}')")

    def _restore_theme(self, event: GenericEventArguments) -> None:
        known = {name: value for value, name in THEMES.items()}
        if event.args in known:
            self._set_theme(known[event.args])

    def _set_theme(self, dark: bool | None) -> None:
        self._dark.value = dark
        self._theme.update_text(f"Theme: {THEMES[dark]}")

    def _set_visible(self, event: GenericEventArguments) -> None:
        self._timer.active = bool(event.args)
        if event.args:
            self.refresh()

    def _set_charts_in_view(self, event: GenericEventArguments) -> None:
        wanted = [key for key in self._charts if key in event.args]
        for key in wanted:
            if key not in self._in_view:
                self._draw(key)
        self._in_view = deque(wanted)

    def _count_open_page(self, change: int) -> None:
        self._board.open_pages += change
