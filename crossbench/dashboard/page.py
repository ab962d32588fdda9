"""The web page: its elements are built once per browser and updated every two seconds."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import grpc
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from crossbench.dashboard import content
from crossbench.dashboard.board import Board
from crossbench.dashboard.cells_chart import CELLS_KEY, CellsChart
from crossbench.dashboard.charts import CHARTS, Chart
from crossbench.dashboard.pages import Pages
from crossbench.dashboard.tiles import TILES, Tile, tiles
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
    box: ui.element
    label: Tag
    value: Tag
    unit: Tag
    below: Tag

    def show(self, tile: Tile | None) -> None:
        """Show a tile, or nothing if it is None."""
        self.box.set_visibility(tile is not None)
        if tile is None:
            return
        self.label.update_text(tile.label)
        self.value.update_text(tile.value)
        self.unit.update_text(tile.unit)
        self.below.update_text(tile.below)


@dataclass(frozen=True, slots=True)
class ChartView:
    chart: Chart | CellsChart
    section: ui.element
    heading: Tag
    drawn: ui.echart


class Page:
    """The page of one browser."""

    def __init__(self, board: Board, watcher: Watcher) -> None:
        self._board, self._watcher = board, watcher
        self._chosen: int | None = None  # the cell that the user wants to see
        self._charts: dict[str, ChartView] = {}
        self._in_view: deque[str] = deque()
        self._ticks = 0
        self._drawn = (0, "")  # the cells that had ended when they were drawn, and the run's end

    def build(self) -> None:
        self._dark = ui.dark_mode(None)
        with ui.element("header"):
            with ui.element("div").classes("title"):
                Tag("h1", "crossbench")
                self._subtitle = Tag("p").classes("quiet")
            self._reset_button = Tag("button", "Reset").props("type=button")
            self._reset_button.on("click", self._reset)
            self._reset_button.props('aria-label="Reset the counters and charts"')
            self._theme = Tag("button", "Theme: system").props("type=button")
            self._theme.on("click", self._next_theme)
        with ui.element("main"):
            with ui.element("div").classes("status").props("role=status aria-live=polite"):
                self._dot = ui.element("span").classes("dot").props("aria-hidden=true")
                self._status = Tag("span")
            with self._section("Sweep") as self._sweep:
                self._sweep_text = Tag("p")
                self._bar = ui.element("progress").props('max=1 value=0 aria-label="Sweep"')
                self._again = Tag("p").classes("quiet")
            with ui.element("div").classes("cell") as self._cell:
                self._cell_title, self._cell_state = Tag("h2"), Tag("span").classes("badge")
            with ui.element("div").classes("tiles") as self._grid:
                self._tiles = [self._tile() for _ in range(TILES + 1)]
            with ui.element("div").classes("compare") as self._compare:
                self._chart(CellsChart())
                with self._section("Cells") as self._cells:
                    self._table = self._filled("Table of cells", "scroll cells")
            with ui.element("div").classes("charts"):
                for chart in CHARTS:
                    self._chart(chart)
            with ui.element("div").classes("pair"):
                with self._section("Errors by status") as self._errors_section:
                    self._errors = self._filled("Table of errors", "scroll")
                with self._section("Configuration"):
                    self._config = self._filled("Settings", "scroll config")
        for key in self._charts:
            self._draw(key)
        self.refresh()
        # A page that is closed or in the background is not updated
        self._timer = ui.timer(INTERVAL_S, self.refresh, immediate=False)
        ui.on("visible", self._set_visible)
        ui.on("in_view", self._set_charts_in_view)
        ui.on("theme", self._restore_theme)
        ui.on("cell", self._choose)
        client = ui.context.client
        client.on_connect(lambda: self._count_open_page(1))
        client.on_disconnect(lambda: self._count_open_page(-1))

    def refresh(self) -> None:
        """Show the current state of the board.

        Subtitle, tiles and configuration are of one cell: the chosen one, else the board's.
        """
        board, now_s = self._board, time.time()
        row = board.cells.get(self._chosen) if self._chosen is not None else None
        row = row or board.shown
        settings = row.settings if row else board.settings
        facts = row.facts if row else board.server.facts
        self._subtitle.update_text(content.subtitle(facts, settings))
        self._status.update_text(content.status_text(board))
        self._dot.classes(replace=f"dot {board.status.split()[0]}")
        self._reset_button.set_visibility(not board.cells_planned)
        self._show_sweep(now_s)
        self._cell.set_visibility(row is not None)
        if row is not None:
            self._cell_title.update_text(content.cell_title(board, row))
            self._cell_state.update_text(content.cell_state(row))
            self._cell_state.classes(replace=f"badge {content.class_of(row.outcome)}")
        found = list(tiles(board, row))
        for view, tile in zip_longest(self._tiles, found):
            view.show(tile)
        self._cells.set_visibility(bool(board.cells))
        self._compare.classes(replace="compare ended" if board.ended else "compare")
        self._table.set_content(content.cells_html(board, row))
        self._errors_section.set_visibility(not board.is_stored)
        self._errors.set_content(content.errors_html(board))
        self._config.set_content(content.config_html(facts, settings))
        for view in self._charts.values():
            view.heading.update_text(view.chart.heading(board))
            view.section.set_visibility(view.chart.is_shown(board))
        self._draw_changed_cells()
        self._ticks += 1
        if self._in_view and self._ticks % TICKS_PER_CHART == 0:
            self._draw(self._in_view[0])
            self._in_view.rotate(-1)

    def _show_sweep(self, now_s: float) -> None:
        board = self._board
        self._sweep.set_visibility(board.cells_planned > 1)
        self._sweep_text.update_text(content.sweep_text(board, now_s))
        self._bar.props(f"value={content.sweep_share(board):.3f}")
        self._again.update_text(content.again_text(board))
        self._again.set_visibility(bool(self._again.text))

    def _draw_changed_cells(self) -> None:
        """Draw the chart of cells when one has ended, and every chart when the run has."""
        now = (len(self._board.done), self._board.ended)
        if now != self._drawn:
            self._drawn = now
            for key in self._charts if self._board.ended else (CELLS_KEY,):
                self._draw(key)

    def _draw(self, key: str) -> None:
        """Update one chart.

        A chart costs the browser ten times as much as all the figures, and the browser may run on
        the measured machine. So only one of the charts in view is updated every four seconds.
        """
        view = self._charts[key]
        options = view.chart.updated(self._board, time.time())
        view.drawn.run_chart_method("setOption", options, {"lazyUpdate": True})

    def _section(self, title: str) -> ui.element:
        section = ui.element("section").props(f'aria-label="{title}"')
        with section:
            Tag("h2", title)
        return section

    def _tile(self) -> TileView:
        with ui.element("div").classes("tile") as box:
            label = Tag("h3")
            with ui.element("p"):
                value, unit = Tag("strong"), Tag("span")
            return TileView(box, label, value, unit, Tag("small"))

    def _chart(self, chart: Chart | CellsChart) -> None:
        section = ui.element("section").props(f'aria-label="{chart.title}"')
        with section:
            heading = Tag("h2", chart.heading(self._board))
            with ui.element("p").classes("legend").props("aria-hidden=true"):
                for key in chart.keys:
                    mark = Tag("span", key.name).style(f"--key: var(--{key.color})")
                    mark.classes("dashed" if key.dashed else "")
            drawn = ui.echart(chart.options(), renderer="svg").classes("chart")
            drawn.props(f'role=img aria-label="{chart.about}"')
            drawn.props(f"data-chart={chart.key}")
        self._charts[chart.key] = ChartView(chart, section, heading, drawn)

    def _filled(self, label: str, classes: str) -> ui.html:
        element = ui.html("").classes(classes)
        # It scrolls, so keys must reach it
        element.props(f'tabindex=0 role=group aria-label="{label}"')
        return element

    def _choose(self, event: GenericEventArguments) -> None:
        """Show a cell; the running one again if it is chosen, and then the next ones."""
        number = event.args if isinstance(event.args, int) else None
        self._chosen = None if number == self._board.current else number
        self.refresh()

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
        wanted = [key for key in self._charts if key in event.args and key != CELLS_KEY]
        for key in wanted:
            if key not in self._in_view:
                self._draw(key)
        self._in_view = deque(wanted)

    def _count_open_page(self, change: int) -> None:
        self._board.open_pages += change
