// The anomaly verdict on the chosen image.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { operate, pathOf } from "../api.js";
import { format, Histogram } from "../charts.js";
import { fitSize, toBlob } from "../images.js";
import { NoImage, Panel, Slider, useLatest } from "../parts.js";
import { explain, findThreshold, isAnomalous, listChoices } from "../arithmetic.js";

/** Verdict, histogram and heatmap; the slider moves the threshold to one false alarm in `n`. */
export function Verdict({ service, model, image, n, setRate }) {
  const [calibration, setCalibration] = useState(null);
  const [failure, setFailure] = useState(null);
  const [opacity, setOpacity] = useState(0.7);
  const [boxes, setBoxes] = useState(true);
  useEffect(() => {
    service.get(pathOf(model, "calibration")).then(setCalibration, setFailure);
  }, []);
  const scored = useLatest((given) => score(service, model, given), image);
  const count = model.calibration.images;
  const choices = listChoices(count);
  const choice = choices.reduce((best, each, i) => (each <= n ? i : best), 0);
  const result = scored.input === image ? scored.value : null;
  const threshold = calibration && findThreshold(calibration.scores, n);
  return html`<${Panel} id="verdict" title="Anomaly verdict" error=${scored.error ?? failure} wide>
    <div class="parts">
      <div>
        <div role="status">
          ${result && html`<${Sentence} result=${result} n=${n} count=${count} />`}
        </div>
        ${!image && html`<${NoImage} />`}
        <${Slider}
          label="False positive rate"
          value=${choice}
          min=${0}
          max=${choices.length - 1}
          text=${`one false alarm in ${n} good parts`}
          onInput=${(index) => setRate(choices[index])}
        />
        ${
          calibration &&
          html`<${Histogram}
            scores=${calibration.scores}
            threshold=${threshold}
            score=${result?.score ?? null}
          />`
        }
      </div>
      ${
        result && html`<${Heatmap} ...${{ image, result, opacity, setOpacity, boxes, setBoxes }} />`
      }
    </div>
  </${Panel}>`;
}

async function score(service, model, image) {
  const { results, warnings } = await operate(service, model, {
    operation: "anomaly-score",
    query: "?heatmap=true",
    title: "anomaly score",
    images: [image],
    python: ["score", 'picture="heatmap"', "results[0]"],
  });
  return { ...results[0], warnings, heatmap: await createImageBitmap(toBlob(results[0].heatmap)) };
}

function Sentence({ result, n, count }) {
  const anomalous = isAnomalous(result.p_value, n);
  return html`
    <p class="sentence ${anomalous ? "anomalous" : "normal"}">
      <strong>${anomalous ? "Anomalous" : "Normal"}</strong>
    </p>
    <p>Score ${format(result.score)}: ${explain(result.p_value, count)}.</p>
    ${result.warnings?.map((warning) => html`<p class="note">${warning}</p>`)}
  `;
}

function Heatmap({ image, result, opacity, setOpacity, boxes, setBoxes }) {
  const canvas = useRef();
  const { width, height } = result.heatmap;
  useEffect(() => drawHeat(canvas.current, result.heatmap), [result]);
  const place = (region) => ({
    left: `${(100 * region.x) / width}%`,
    top: `${(100 * region.y) / height}%`,
    width: `${(100 * region.width) / width}%`,
    height: `${(100 * region.height) / height}%`,
  });
  const regions = result.regions.length === 1 ? "1 region" : `${result.regions.length} regions`;
  return html`<div class="heat">
    <figure class="picture" style=${{ maxWidth: `${(50 * width) / height}vh` }}>
      <div class="frame">
        <img src=${image.url} alt=${image.name} width=${width} height=${height} />
        <canvas
          ref=${canvas}
          class="overlay"
          style=${{ opacity }}
          role="img"
          aria-label=${`Heatmap with ${regions}`}
        ></canvas>
        ${
          boxes &&
          result.regions.map((region) => html`<div class="region" style=${place(region)}></div>`)
        }
      </div>
      <figcaption>Heatmap: ${regions}</figcaption>
    </figure>
    <${Slider}
      label="Opacity of the heatmap"
      value=${opacity}
      min=${0}
      max=${1}
      step=${0.05}
      text=${`${Math.round(100 * opacity)} %`}
      onInput=${setOpacity}
    />
    <label class="inline"
      ><input type="checkbox" checked=${boxes} onChange=${() => setBoxes(!boxes)} /> Boxes around
      regions</label
    >
  </div>`;
}

/** Draws a heatmap that is transparent where it is dark. */
function drawHeat(canvas, heatmap) {
  [canvas.width, canvas.height] = fitSize(heatmap.width, heatmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(heatmap, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const brightest = Math.max(pixels.data[i], pixels.data[i + 1], pixels.data[i + 2]);
    pixels.data[i + 3] = brightest;
  }
  context.putImageData(pixels, 0, 0);
}
