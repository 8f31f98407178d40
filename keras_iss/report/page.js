"use strict";
(() => {
  const divs = [...document.querySelectorAll(".picture")];
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { ink: of("--ink"), line: of("--line"), card: of("--card") };
  };
  // The theme is the reader's: each figure takes its colours from the page.
  const themed = (layout) => {
    const { ink, line, card } = colours();
    const found = {
      font: { color: ink, family: "system-ui, sans-serif" },
      hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink } },
    };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        found[key] = Object.assign({}, layout[key], {
          gridcolor: line, linecolor: line, zerolinecolor: line,
          automargin: true,
        });
      }
    }
    return Object.assign({}, layout, found);
  };
  const figures = divs.map((div) => {
    const figure = JSON.parse(div.firstElementChild.textContent);
    div.textContent = "";
    return figure;
  });
  const draw = () => divs.forEach((div, i) => Plotly.react(
    div, figures[i].data, themed(figures[i].layout),
    { responsive: true, displaylogo: false, displayModeBar: false },
  ));
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
