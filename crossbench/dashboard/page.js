// What only the browser knows: whether anybody looks, at which charts, and the theme chosen before
window.addEventListener("load", () => {
  const looking = () => emitEvent("looking", document.visibilityState === "visible");
  const inView = new Set();
  const watched = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries)
      inView[isIntersecting ? "add" : "delete"](target.dataset.chart);
    emitEvent("in_view", [...inView]);
  });
  // ECharts goes on drawing frames for a while after each change, which nothing here moves in
  const calm = (chart) => {
    const drawn = getElement(chart)?.chart;
    if (drawn) drawn.getZr().setSleepAfterStill(1);
    else setTimeout(calm, 100, chart);
  };
  const wait = setInterval(() => {
    if (!window.socket?.connected) return;
    clearInterval(wait);
    looking();
    document.addEventListener("visibilitychange", looking);
    document.querySelectorAll("[data-chart]").forEach((chart) => {
      watched.observe(chart);
      calm(chart);
    });
    const theme = localStorage.getItem("crossbench-theme");
    if (theme) emitEvent("theme", theme);
  }, 50);
});
