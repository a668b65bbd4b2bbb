// All images: the chosen one is shown in the panels; the most anomalous come first.

import { html, useEffect, useLayoutEffect, useMemo, useState } from "./vendor/htm-preact.js";
import { operate } from "./api.js";
import { format } from "./charts.js";
import { makeThumbnail } from "./images.js";
import { useEach } from "./parts.js";
import { isAnomalous } from "./arithmetic.js";

async function scoreBatch(service, model, images) {
  const title = images.length > 1 ? "anomaly scores of several images" : "";
  const python = ["score", "", "results"];
  return (await operate(service, model, { operation: "anomaly-score", title, images, python }))
    .results;
}

/** Pictures of all images, sorted, with their verdicts. */
export function Gallery({ service, model, limits, images, image, choose, clear, n }) {
  const able = model.capabilities.includes("anomaly-score");
  const scores = useEach((batch) => scoreBatch(service, model, batch), able ? images : [], limits);
  useFocusKept();
  const sorted = useMemo(
    () =>
      [...images].sort(
        (one, other) =>
          (scores[other.id]?.score ?? -Infinity) - (scores[one.id]?.score ?? -Infinity),
      ),
    [images, scores],
  );
  const scored = sorted.filter(({ id }) => scores[id]);
  const failed = scored.filter(({ id }) => scores[id].error).length;
  const found = scored.filter(({ id }) => isAnomalous(scores[id].p_value, n)).length;
  const summary = scored.length
    ? `${found} of ${scored.length - failed} anomalous, at one false alarm in ${n}` +
      (failed ? `; ${failed} failed` : "") +
      (scored.length < images.length ? "; scoring" : "")
    : `${images.length} images`;
  return html`<section class="gallery" aria-labelledby="gallery-title">
    <h2 id="gallery-title">Your images</h2>
    <p role="status">${summary}</p>
    <p class="buttons">
      ${
        scored.length > 0 &&
        html`<button type="button" onClick=${() => save(scored, scores, n)}>Save as CSV</button>`
      }
      <button type="button" onClick=${clear}>Remove all</button>
    </p>
    <ul class="tiles">
      ${sorted.map(
        (each) =>
          html`<${Tile}
            key=${each.id}
            image=${each}
            result=${scores[each.id]}
            n=${n}
            chosen=${each.id === image?.id}
            choose=${choose}
          />`,
      )}
    </ul>
  </section>`;
}

/** Gives the focus back to an element that loses it because it moves. */
function useFocusKept() {
  const focused = document.activeElement;
  useLayoutEffect(() => focused.isConnected && focused.focus({ preventScroll: true }));
}

function Tile({ image, result, n, chosen, choose }) {
  const [thumbnail, setThumbnail] = useState(null);
  useEffect(() => {
    makeThumbnail(image).then(setThumbnail);
  }, [image]);
  const anomalous = result && !result.error && isAnomalous(result.p_value, n);
  const verdict = !result ? "" : result.error ? "failed" : anomalous ? "anomalous" : "normal";
  return html`<li>
    <button
      type="button"
      class="tile ${verdict}"
      aria-pressed=${chosen}
      title=${result?.error ?? image.name}
      onClick=${() => choose(image.id)}
    >
      ${thumbnail && html`<img src=${thumbnail} alt="" />`}
      <span class="name">${image.name}</span>
      <span class="verdict">${verdict}</span>
      <span>${result?.score !== undefined && format(result.score)}</span>
    </button>
  </li>`;
}

function save(images, scores, n) {
  const rows = images.map(({ id, name, label }) => {
    const { score, p_value: pValue, error = "" } = scores[id];
    return [name, label, score ?? "", pValue ?? "", error ? "" : isAnomalous(pValue, n), error];
  });
  const lines = [["name", "label", "score", "p_value", `anomalous at 1 in ${n}`, "error"], ...rows];
  const text = lines.map((cells) => cells.map(quoteCell).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text, "\r\n"], { type: "text/csv" }));
  link.download = "scores.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Quotes a cell if needed; a name that a spreadsheet would compute becomes text. */
function quoteCell(value) {
  const text = typeof value === "string" && /^[=+\-@\t]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
