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
  const wait = setInterval(() => {
    if (!window.socket?.connected) return;
    clearInterval(wait);
    reportVisibility();
    document.addEventListener("visibilitychange", reportVisibility);
    document.querySelectorAll("[data-chart]").forEach((chart) => {
      observer.observe(chart);
      stopRedrawing(chart);
    });
    const theme = localStorage.getItem("crossbench-theme");
    if (theme) emitEvent("theme", theme);
  }, 50);
});
