"use strict";

// Sorting: the buttons in the headers; cells without a value stay last in both directions.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headers = [...table.querySelectorAll("thead th")];
  const body = table.tBodies[0];
  headers.forEach((header, place) => header.querySelector("button").addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "ascending";
    headers.forEach(other => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => row.cells[place].dataset.sort;
    const compared = (a, b) => {
      const numbers = [Number(a), Number(b)];
      return numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
    };
    const rows = [...body.rows];
    const known = rows.filter(row => value(row) !== undefined);
    known.sort((a, b) => (down ? -1 : 1) * compared(value(a), value(b)));
    body.append(...known, ...rows.filter(row => value(row) === undefined));
  }));
}

// Figures: their colors are names of CSS variables, so that they follow light and dark.
const styles = getComputedStyle(document.documentElement);
const color = name => styles.getPropertyValue(name).trim();
const figures = () => JSON.parse(
  document.getElementById("figures").textContent,
  (_, value) => typeof value === "string" && /^--color-[a-z]+$/.test(value) ? color(value) : value,
);

const finger = matchMedia("(pointer: coarse)").matches;

// These buttons and no others: the rest would send the figure elsewhere, or do nothing here.
const settings = {
  responsive: true, displaylogo: false, displayModeBar: !finger,
  modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
};

function template() {
  const axis = {
    gridcolor: color("--color-rule"), zerolinecolor: color("--color-rule"), linecolor: color("--color-rule"),
    automargin: true, title: { standoff: 8 },
  };
  return { layout: {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
    font: { color: color("--color-ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
    margin: { l: 8, r: 8, t: 36, b: 8 },
    legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom" },
    hoverlabel: { align: "left", bgcolor: color("--color-card"), bordercolor: color("--color-muted"), font: { color: color("--color-ink") } },
    modebar: { color: color("--color-muted"), activecolor: color("--color-link"), bgcolor: "rgba(0,0,0,0)" },
    dragmode: finger ? false : "zoom",  // a finger scrolls the page
  } };
}

function draw() {
  const all = figures();
  const common = template();
  return Promise.all([...document.querySelectorAll("[data-figure]")].map(place => {
    const { data, layout } = all[place.dataset.figure];
    const entries = data.filter(trace => trace.showlegend !== false).length;
    const height = layout.height + (place.clientWidth < 600 ? 14 * entries : 0);  // there the legend is a column
    return Plotly.react(place, data, { ...layout, height, template: common }, settings);
  }));
}

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), byte => byte.charCodeAt(0));
  const source = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
}

unpack().then(draw).then(
  () => {
    document.documentElement.dataset.drawn = "yes";
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  },
  error => {
    for (const place of document.querySelectorAll("[data-figure]")) {
      place.textContent = `This browser cannot draw the figures (${error.message}); the tables have their numbers.`;
    }
  },
);
