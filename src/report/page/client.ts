/**
 * The script of a report's page: draws the figures in the colours of the reader's theme. It knows
 * Plotly and three elements, `#figures`, `#palettes` and `#theme`.
 *
 * @module
 */

/** JavaScript for a `script` element behind everything else. */
export const clientScript = `
"use strict";
{
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures");
  const palettes = read("palettes");
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => root.dataset.theme ?? (prefersDark.matches ? "dark" : "light");

  function mix([from, to], share) {
    const parts = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    const [a, b] = [parts(from), parts(to)];
    return "rgb(" + a.map((x, i) => Math.round(x + (b[i] - x) * share)).join(",") + ")";
  }
  /** Black or white, whichever is easier to read on a place of a colour scale. */
  function on(colors, share) {
    const at = Math.min(Math.max(share, 0), 1) * (colors.length - 1);
    const i = Math.min(Math.floor(at), colors.length - 2);
    const [r, g, b] = mix([colors[i], colors[i + 1]], at - i).match(/\\d+/g)
      .map((level) => (level / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
  }
  function scale(colors) {
    return colors.map((color, i) => [i / (colors.length - 1), color]);
  }
  /** Replaces the names of colours. */
  function painted(value, palette) {
    if (typeof value === "string" && value[0] === "@") {
      const name = value.slice(1);
      if (/^\\d+$/.test(name)) return palette.colors[name % palette.colors.length];
      if (/^r[\\d.]+$/.test(name)) return mix(palette.ramp, Number(name.slice(1)));
      const [, own, share] = name.match(/^on-(\\w+)-(.+)$/) ?? [];
      if (own) return on(palette[own], Number(share));
      if (name === "sequential" || name === "diverging") return scale(palette[name]);
      return palette[name] ?? value;
    }
    if (Array.isArray(value)) return value.map((item) => painted(item, palette));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, painted(item, palette)]),
    );
  }
  function template(palette) {
    const axis = {
      gridcolor: palette.grid, linecolor: palette.grid, zerolinecolor: palette.grid,
      tickcolor: palette.grid, ticks: "outside", ticklen: 4, automargin: true, title: { standoff: 8 },
    };
    return {
      layout: {
        font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 12, color: palette.soft },
        paper_bgcolor: palette.surface,
        plot_bgcolor: palette.surface,
        colorway: palette.colors,
        margin: { l: 56, r: 16, t: 18, b: 44 },
        xaxis: axis,
        yaxis: axis,
        legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top" },
        hoverlabel: { bgcolor: palette.surface, font: { color: palette.ink } },
      },
    };
  }
  function drawing({ data, layout, height }, palette) {
    const own = painted(layout, palette);
    return [painted(data, palette), { ...own, height: height ?? 340, template: template(palette) }];
  }
  async function draw() {
    const palette = palettes[theme()];
    button.textContent = theme() === "dark" ? "Light" : "Dark";
    for (const figure of figures) {
      const [data, layout] = drawing(figure, palette);
      const config = { responsive: true, displaylogo: false, displayModeBar: false };
      await Plotly.react("plot-" + figure.id, data, layout, config);
    }
    root.dataset.drawn = theme();
  }

  button.onclick = () => {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    draw();
  };
  prefersDark.onchange = draw;
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    draw();
  });
  addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
    draw();
  });
  /** A figure as a data URL, with its title in it. */
  window.figureImage = (id, { format, width, scale, theme }) => {
    const figure = figures.find((one) => one.id === id);
    const palette = palettes[theme];
    const [data, layout] = drawing(figure, palette);
    layout.title = { text: figure.title, x: 0.02, font: { size: 16, color: palette.ink } };
    layout.margin = { l: 56, r: 16, b: 44, ...layout.margin, t: 64 };
    return Plotly.toImage({ data, layout }, { format, width, height: layout.height + 46, scale });
  };
  draw();
}
`;
