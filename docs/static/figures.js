// Figures are drawn when they come into view, in the colours of the page.
"use strict";
(function () {
  const dark = () => {
    const chosen = document.body.dataset.theme;
    if (chosen === "dark" || chosen === "light") return chosen === "dark";
    return window.matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const colours = () => dark()
    ? { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: "#ccc" } }
    : { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: "#333" } };
  const lines = () => (dark() ? "#444" : "#ddd");
  const dressed = (layout) => {
    const own = Object.assign({}, layout, colours());
    own.font = Object.assign({}, layout.font, colours().font);
    for (const axis of Object.keys(own).filter((k) => /^[xy]axis\d*$/.test(k))) {
      own[axis] = Object.assign({}, own[axis], {
        gridcolor: lines(), zerolinecolor: lines(), linecolor: lines(),
      });
    }
    delete own.width;
    own.autosize = true;
    return own;
  };
  // On a narrow page a title that would run out of it takes several lines, and no tools cover it.
  const folded = (text, letters) => {
    const lines = [""];
    for (const word of text.replaceAll("<br>", " ").split(" ")) {
      const longer = (lines.at(-1) + " " + word).trim();
      if (longer.length > letters && lines.at(-1)) lines.push(word);
      else lines[lines.length - 1] = longer;
    }
    return lines;
  };
  const narrowed = (layout, width) => {
    const title = layout.title;
    layout.margin = Object.assign({ t: 80 }, layout.margin);
    if (!title || !title.text) return;
    const lines = folded(title.text, Math.max(16, Math.floor(width / 9.5)));
    const more = lines.length - title.text.split("<br>").length;
    if (more < 1) return;
    layout.title = Object.assign({}, title, { text: lines.join("<br>") });
    layout.margin.t += 20 * more;
    layout.height += 20 * more;
  };
  // Titles of narrow panels are small and take several lines, for which rows of panels make room.
  const panels = (layout, width, size) => {  // width: of the panels together
    const starts = (axis) => new Set(Object.keys(layout)
      .filter((k) => axis.test(k)).map((k) => (layout[k].domain || [0, 1])[0])).size;
    const letters = Math.max(6, Math.floor(width / starts(/^xaxis\d*$/) / size / 0.6));
    let most = 0;
    layout.annotations = (layout.annotations || []).map((note) => {
      if (note.showarrow !== false || note.xref !== "paper" || note.xanchor !== "center") return note;
      const lines = folded(note.text || "", letters);
      most = Math.max(most, lines.length);
      return Object.assign({}, note, {
        text: lines.join("<br>"), font: Object.assign({}, note.font, { size }),
      });
    });
    const room = 1.25 * size * most;
    layout.margin.t += room;
    layout.height += room + (starts(/^yaxis\d*$/) - 1) * (60 + room);
  };
  const draw = (place) => {
    const figure = JSON.parse(place.querySelector("script").textContent);
    const still = place.classList.contains("still");
    const target = place.querySelector("div");
    const layout = dressed(figure.layout || {});
    if (still) {
      const names = new Set(figure.data.filter((t) => t.name && t.showlegend !== false && t.type !== "heatmap")
        .map((t) => t.name));
      const key = figure.layout.showlegend !== false && names.size > 1 && names.size < 8;
      Object.assign(layout, {
        height: key ? 250 : 220, showlegend: key, margin: { l: 44, r: 8, t: 8, b: 36 },
        legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: { size: 8 }, title: { text: "" } },
      });
      layout.font.size = 9;
      panels(layout, target.clientWidth, 8);
      delete layout.title;
    }
    const narrow = target.clientWidth < 520;
    if (narrow && !still) {
      layout.height = layout.height || 450;
      narrowed(layout, target.clientWidth);
      panels(layout, target.clientWidth / 2, 9);
    }
    window.Plotly.react(target, figure.data, layout, {
      responsive: true, staticPlot: still, displaylogo: false,
      displayModeBar: narrow ? false : "hover",
    });
  };
  document.addEventListener("DOMContentLoaded", () => {
    const places = [...document.querySelectorAll(".lab-figure")];
    if (!places.length) return;
    const seen = new Set();
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting || seen.has(entry.target)) continue;
        seen.add(entry.target);
        draw(entry.target);
      }
    }, { rootMargin: "400px" });
    places.forEach((place) => watcher.observe(place));
    const again = () => seen.forEach(draw);
    new MutationObserver(again).observe(document.body, { attributeFilter: ["data-theme"] });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  });
})();
