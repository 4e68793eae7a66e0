"use strict";
// The colours that the user chose, for this page only.
const button = document.getElementById("theme");
button.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  button.setAttribute("aria-pressed", String(!dark));
});

// A cursor in each chart: the nearest place under the pointer, or the next one by the arrow keys.
for (const plot of document.querySelectorAll(".plot[data-series]")) {
  const series = JSON.parse(plot.dataset.series);
  const svg = plot.querySelector("svg"), cursor = plot.querySelector(".cursor"), output = plot.querySelector("output");
  const places = [...new Set(series.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  let place = -1;
  const show = (index) => {
    place = Math.min(Math.max(index, 0), places.length - 1);
    const x = places[place], line = cursor.querySelector("line");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    cursor.removeAttribute("hidden");
    const there = series.flatMap((each) => each.points.filter((point) => point[0] === x).map((point) => [each.name, point]));
    const text = there.map(([name, point]) => `${name} ${Number(point[3].toPrecision(4))}`).join(", ");
    output.textContent = `${Number(there[0][1][2].toPrecision(6))}: ${text}`;
  };
  plot.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    show(places.reduce((best, each, index) => (Math.abs(each - x) < Math.abs(places[best] - x) ? index : best), 0));
  });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -places.length, End: places.length }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(place + step);
  });
}
