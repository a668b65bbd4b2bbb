// Charts: a histogram of scores, and a map of points.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { useDark } from "./parts.js";

const BINS = 40;
const HISTOGRAM_HEIGHT = 170;
const MARGIN = 0.06; // of a map, on each side
const STEP = 0.02; // of a map's width, for each press of an arrow key
const COLOURS = [
  "#4e79a7",
  "#f28e2b",
  "#59a14f",
  "#e15759",
  "#b07aa1",
  "#9c755f",
  "#d37295",
  "#7f7f7f",
  "#8cd17d",
  "#17becf",
];

export function colourOf(index) {
  return COLOURS[index % COLOURS.length];
}

/** Renders again when an element's width changes; returns it in whole pixels. */
function useWidth(element) {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return width;
}

function readColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Returns the middles of equal bins from `low` to `high`, and the number of values in each. */
function countBins(values, low, high) {
  const width = (high - low) / BINS || 1;
  const counts = new Array(BINS).fill(0);
  for (const value of values) counts[Math.min(BINS - 1, Math.floor((value - low) / width))] += 1;
  return [counts.map((_, i) => low + (i + 0.5) * width), counts];
}

/**
 * Histogram of the calibration scores, with lines at the threshold and at the image's score.
 *
 * `threshold` is null if the calibration does not allow the rate, `score` if there is no image.
 */
export function Histogram({ scores, threshold, score }) {
  const home = useRef();
  const dark = useDark();
  const width = useWidth(home);
  useEffect(() => {
    if (!width) return undefined;
    const low = Math.min(scores[0], score ?? scores[0]);
    const high = Math.max(scores.at(-1), score ?? -Infinity, threshold ?? -Infinity);
    const lines = [
      { value: threshold, name: "threshold", colour: readColour("--anomalous"), below: false },
      { value: score, name: "this image", colour: readColour("--ink"), below: true },
    ].filter(({ value }) => value !== null && value !== undefined);
    const chart = createHistogram(countBins(scores, low, high), width, lines, home.current);
    return () => chart.destroy();
  }, [scores, threshold, score, width, dark]);
  const parts = [`Histogram of the scores of ${scores.length} normal images.`];
  if (threshold !== null) parts.push(`Threshold ${format(threshold)}.`);
  if (score !== null && score !== undefined) parts.push(`This image ${format(score)}.`);
  return html`<div class="histogram" ref=${home} role="img" aria-label=${parts.join(" ")}></div>`;
}

function createHistogram(data, width, lines, home) {
  const ink = readColour("--muted");
  const axis = { stroke: ink, grid: { show: false }, ticks: { stroke: ink, width: 1 } };
  const options = {
    width,
    height: HISTOGRAM_HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false }, y: { range: (_, low, high) => [0, high * 1.5] } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map(format) },
      { ...axis, size: 44 },
    ],
    series: [
      {},
      {
        fill: readColour("--normal"),
        stroke: readColour("--normal"),
        paths: uPlot.paths.bars({ size: [0.95, Infinity] }),
        points: { show: false },
      },
    ],
    hooks: { draw: [(chart) => lines.forEach((line) => drawLine(chart, line))] },
  };
  return new uPlot(options, data, home);
}

function drawLine(chart, { value, name, colour, below }) {
  const { ctx: context, bbox } = chart;
  const ratio = devicePixelRatio;
  const x = Math.round(chart.valToPos(value, "x", true));
  const right = x > bbox.left + bbox.width / 2;
  context.save();
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 2 * ratio;
  context.setLineDash(below ? [] : [5 * ratio, 4 * ratio]);
  context.beginPath();
  context.moveTo(x, bbox.top);
  context.lineTo(x, bbox.top + bbox.height);
  context.stroke();
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.textAlign = right ? "right" : "left";
  context.fillText(name, x + (right ? -5 : 5) * ratio, bbox.top + (below ? 27 : 12) * ratio);
  context.restore();
}

/** Returns a number with three significant digits. */
export function format(value) {
  return Number(value.toPrecision(3)).toString();
}

/**
 * Map of points [x, y] in their class's colours, with pictures in place of dots if there are some.
 *
 * `onMove([x, y])` is called when the pointer or an arrow key moves the cursor over it, and
 * `onChoose(index)` at a click or Enter, with the index of the nearest point.
 */
export function PointMap({ points, classes, pictures, chosen, label, onMove, onChoose }) {
  const canvas = useRef();
  const dark = useDark();
  useWidth(canvas);
  const [cursor, setCursor] = useState(null);
  const frame = frameOf(points);
  useEffect(() => draw(canvas.current, frame, { points, classes, pictures, cursor, chosen }));
  const at = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return frame.invert(
      (event.clientX - box.left) / box.width,
      (event.clientY - box.top) / box.height,
    );
  };
  const move = (point) => {
    setCursor(point);
    onMove?.(point);
  };
  const press = (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[
      event.key
    ];
    const [x, y] = cursor ?? points[Math.max(0, chosen ?? 0)];
    if (step) move([x + step[0] * STEP * frame.width, y + step[1] * STEP * frame.height]);
    else if (event.key === "Enter") onChoose(findNearest(points, x, y));
    else return;
    event.preventDefault();
  };
  return html`<canvas
    class="map"
    ref=${canvas}
    data-dark=${dark}
    tabindex="0"
    role="application"
    aria-label=${label}
    onPointerMove=${(event) => move(at(event))}
    onClick=${(event) => onChoose(findNearest(points, ...at(event)))}
    onKeyDown=${press}
  ></canvas>`;
}

function findNearest(points, x, y) {
  const distances = points.map((point) => (point[0] - x) ** 2 + (point[1] - y) ** 2);
  return distances.indexOf(Math.min(...distances));
}

/** Returns the functions between points and shares of the map's width and height. */
function frameOf(points) {
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [left, bottom] = [Math.min(...xs), Math.min(...ys)];
  const width = Math.max(...xs) - left || 1;
  const height = Math.max(...ys) - bottom || 1;
  const inner = 1 - 2 * MARGIN;
  return {
    width,
    height,
    place: ([x, y]) => [
      MARGIN + (inner * (x - left)) / width,
      1 - MARGIN - (inner * (y - bottom)) / height,
    ],
    invert: (across, down) => [
      left + ((across - MARGIN) / inner) * width,
      bottom + ((1 - MARGIN - down) / inner) * height,
    ],
  };
}

function draw(canvas, frame, { points, classes, pictures, cursor, chosen }) {
  const box = canvas.getBoundingClientRect();
  const ratio = devicePixelRatio;
  [canvas.width, canvas.height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const place = (point) => {
    const [across, down] = frame.place(point);
    return [across * box.width, down * box.height];
  };
  points.forEach((point, i) => {
    const [x, y] = place(point);
    if (pictures?.[i]) drawPicture(context, pictures[i], x, y, i === chosen);
    else drawDot(context, x, y, colourOf(classes?.[i] ?? 0), i === chosen ? 7 : 3.5);
  });
  if (cursor) drawCross(context, ...place(cursor));
}

function drawDot(context, x, y, colour, radius) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function drawPicture(context, picture, x, y, chosen) {
  const side = chosen ? 52 : 36;
  context.drawImage(picture, x - side / 2, y - side / 2, side, side);
  context.strokeStyle = readColour(chosen ? "--accent" : "--line");
  context.lineWidth = chosen ? 3 : 1;
  context.strokeRect(x - side / 2, y - side / 2, side, side);
}

function drawCross(context, x, y) {
  context.strokeStyle = readColour("--ink");
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [dx, dy] of [
    [8, 0],
    [0, 8],
  ]) {
    context.moveTo(x - dx, y - dy);
    context.lineTo(x + dx, y + dy);
  }
  context.stroke();
}

export function Picture({ source, name }) {
  return html`<figure class="picture">
    <img src=${source} alt=${name} />
    <figcaption>${name}</figcaption>
  </figure>`;
}
