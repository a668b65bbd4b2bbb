// All images: the chosen one is shown in the panels; the most anomalous come first.

import { html, useEffect, useMemo, useState } from "./vendor/htm-preact.js";
import { operate } from "./api.js";
import { format } from "./charts.js";
import { makeThumbnail } from "./images.js";
import { findDefault, isAnomalous } from "./rates.js";

const BATCH_BYTES = 8 * 2 ** 20;
const BATCH_IMAGES = 16; // so that results appear soon

/** Returns the images in batches that a request may hold. */
export function splitImages(images, most = BATCH_IMAGES) {
  const batches = [];
  let bytes = Infinity;
  for (const image of images) {
    if (bytes + image.file.size > BATCH_BYTES || batches.at(-1).length >= most) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1).push(image);
    bytes += image.file.size;
  }
  return batches;
}

/** Scores batches of images; the images of a batch with an invalid one are scored alone. */
async function* scoreAll(service, model, images) {
  for (const batch of splitImages(images)) {
    const title = batch.length > 1 ? "anomaly scores of several images" : "";
    const python = ["score", "", "results"];
    const request = { operation: "anomaly-score", title, images: batch, python };
    try {
      const { results } = await operate(service, model, request);
      yield batch.map(({ id }, i) => [id, results[i]]);
    } catch (error) {
      if (batch.length === 1) yield [[batch[0].id, { error: error.message }]];
      else for (const image of batch) yield* scoreAll(service, model, [image]);
    }
  }
}

/** Scores each image once; returns the results by the image's id. */
function useScores(service, model, images) {
  const [scores, setScores] = useState({});
  const [asked] = useState(() => new Set());
  const able = model.capabilities.includes("anomaly-score");
  useEffect(() => {
    const fresh = able ? images.filter(({ id }) => !asked.has(id)) : [];
    for (const { id } of fresh) asked.add(id);
    const work = async () => {
      for await (const scored of scoreAll(service, model, fresh)) {
        setScores((before) => ({ ...before, ...Object.fromEntries(scored) }));
      }
    };
    if (fresh.length) work();
  }, [images]);
  return scores;
}

/** Pictures of all images, sorted, with their verdicts. */
export function Gallery({ service, model, images, image, choose, clear, rate }) {
  const scores = useScores(service, model, images);
  const n = rate ?? (model.calibration ? findDefault(model.calibration.images) : null);
  const sorted = useMemo(
    () => [...images].sort((one, other) => (scores[other.id]?.score ?? -Infinity) - (scores[one.id]?.score ?? -Infinity)),
    [images, scores],
  );
  const scored = sorted.filter(({ id }) => scores[id]);
  const found = scored.filter(({ id }) => isAnomalous(scores[id].p_value, n)).length;
  const summary = scored.length
    ? `${found} of ${scored.length} anomalous, at one false alarm in ${n}` + (scored.length < images.length ? "; scoring" : "")
    : `${images.length} images`;
  return html`<section class="gallery" aria-labelledby="gallery-title">
    <h2 id="gallery-title">Your images</h2>
    <p role="status">${summary}</p>
    <p class="buttons">
      ${scored.length > 0 && html`<button type="button" onClick=${() => save(scored, scores, n)}>Save as CSV</button>`}
      <button type="button" onClick=${clear}>Remove all</button>
    </p>
    <ul class="tiles">
      ${sorted.map(
        (each) => html`<${Tile} key=${each.id} image=${each} result=${scores[each.id]} n=${n} chosen=${each.id === image?.id} choose=${choose} />`,
      )}
    </ul>
  </section>`;
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
