// What only the browser knows: whether anybody looks, and the theme that was chosen here before
window.addEventListener("load", () => {
  const tell = () => emitEvent("looking", document.visibilityState === "visible");
  document.addEventListener("visibilitychange", tell);
  const theme = localStorage.getItem("crossbench-theme");
  const wait = setInterval(() => {
    if (!window.socket?.connected) return;
    clearInterval(wait);
    tell();
    if (theme) emitEvent("theme", theme);
  }, 50);
});
