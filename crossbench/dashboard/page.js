// What only the browser knows: whether anybody looks, at which charts, and the theme chosen before
window.addEventListener("load", () => {
  const looking = () => emitEvent("looking", document.visibilityState === "visible");
  const inView = new Set();
  const watched = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries)
      inView[isIntersecting ? "add" : "delete"](target.dataset.chart);
    emitEvent("in_view", [...inView]);
  });
  const wait = setInterval(() => {
    if (!window.socket?.connected) return;
    clearInterval(wait);
    looking();
    document.addEventListener("visibilitychange", looking);
    document.querySelectorAll("[data-chart]").forEach((chart) => watched.observe(chart));
    const theme = localStorage.getItem("crossbench-theme");
    if (theme) emitEvent("theme", theme);
  }, 50);
});
