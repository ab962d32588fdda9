// Reports to the server: whether the page is visible, which charts are in view, the saved theme
window.addEventListener("load", () => {
  const reportVisibility = () => emitEvent("visible", document.visibilityState === "visible");
  const inView = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries)
      inView[isIntersecting ? "add" : "delete"](target.dataset.chart);
    emitEvent("in_view", [...inView]);
  });
  // After each change ECharts redraws for a while for animations, which these charts do not have
  const stopRedrawing = (chart) => {
    const drawn = getElement(chart)?.chart;
    if (drawn) drawn.getZr().setSleepAfterStill(1);
    else setTimeout(stopRedrawing, 100, chart);
  };
  // The table of cells scrolls to the running one when another one starts, at first also to the one
  // that the tiles show, and tells what is chosen
  const followCells = (table) => {
    let followed = null;
    const follow = () => {
      const shown = followed === null && table.querySelector("tr:has([aria-pressed=true])");
      const row = table.querySelector("tr.running") ?? shown;
      const cell = row ? row.querySelector("button").dataset.cell : followed;
      if (cell === followed) return;
      followed = cell;
      table.scrollTop += row.getBoundingClientRect().top - table.getBoundingClientRect().top - 60;
    };
    follow();
    new MutationObserver(follow).observe(table, { childList: true, subtree: true });
    table.addEventListener("click", ({ target }) => {
      const cell = target.closest("[data-cell]")?.dataset.cell;
      if (cell !== undefined) emitEvent("cell", Number(cell));
    });
  };
  const wait = setInterval(() => {
    if (!window.socket?.connected) return;
    clearInterval(wait);
    reportVisibility();
    document.addEventListener("visibilitychange", reportVisibility);
    document.querySelectorAll("[data-chart]").forEach((chart) => {
      observer.observe(chart);
      stopRedrawing(chart);
    });
    document.querySelectorAll(".cells").forEach(followCells);
    const theme = localStorage.getItem("crossbench-theme");
    if (theme) emitEvent("theme", theme);
  }, 50);
});
