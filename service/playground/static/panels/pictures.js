// Panels of pictures: reconstruction, noise, samples, interpolation; and the classes.

import { html, useMemo, useState } from "../vendor/htm-preact.js";
import { operate } from "../api.js";
import { format, Picture } from "../charts.js";
import {
  addNoise,
  drawDifference,
  drawPixels,
  meanSquaredError,
  readPixels,
  toBlob,
  toPng,
  toUrl,
} from "../images.js";
import { NoImage, Panel, Slider, useLatest } from "../parts.js";

const STEPS = 9; // of an interpolation
const SAMPLES = 16;
const MAX_TEMPERATURE = 2;

/** Probability of each class, the likeliest first. */
export function Classes({ service, model, image }) {
  const classified = useLatest((given) => classify(service, model, given), image);
  const result = classified.value;
  const sorted =
    result && Object.entries(result.probabilities).sort((one, other) => other[1] - one[1]);
  return html`<${Panel} id="classes" title="Class" error=${classified.error}>
    ${!image && html`<${NoImage} />`}
    <p class="sentence" role="status">
      ${result && html`<strong>${result.label}</strong>, ${percent(result.probability)}`}
    </p>
    ${
      sorted &&
      html`<table class="bars">
        ${sorted.map(
          ([name, probability]) =>
            html`<tr>
              <th scope="row">${name}</th>
              <td><div class="bar" style=${{ width: `${100 * probability}%` }}></div></td>
              <td>${percent(probability)}</td>
            </tr>`,
        )}
      </table>`
    }
  </${Panel}>`;
}

async function classify(service, model, image) {
  const python = ["classify", "", "results[0].label"];
  const request = { operation: "classify", title: "class", images: [image], python };
  return (await operate(service, model, request)).results[0];
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** The image at the model's size, its reconstruction, their difference and the error. */
export function Reconstruction({ service, model, image }) {
  const { value, error } = useLatest((given) => reconstruct(service, model, given), image);
  return html`<${Panel} id="reconstruction" title="Reconstruction" error=${error}>
    ${!image && html`<${NoImage} />`}
    ${
      value &&
      html`<div class="pictures">
          ${value.original && html`<${Picture} source=${value.original} name="image" />`}
          <${Picture} source=${value.reconstruction} name="reconstruction" />
          ${value.original && html`<${Picture} source=${value.difference} name="difference" />`}
        </div>
        <p role="status">Mean squared error: ${format(value.error)}</p>`
    }
  </${Panel}>`;
}

async function reconstruct(service, model, image) {
  const python = ["reconstruct", "", "errors"];
  const request = { operation: "reconstruct", title: "reconstruction", images: [image], python };
  const { images, errors } = await operate(service, model, request);
  const before = await readPixels(image.file, model.input).catch(() => null); // TIFF
  const after = await readPixels(toBlob(images[0]), model.input);
  return {
    original: before && drawPixels(before, model.input).toDataURL(),
    reconstruction: toUrl(images[0]),
    difference: before && drawDifference(before, after, model.input).toDataURL(),
    error: errors[0],
  };
}

/** The image, the image with Gaussian noise, and the denoised image. */
export function Denoising({ service, model, image }) {
  const [sigma, setSigma] = useState(0.5);
  const input = useMemo(() => image && { image, sigma }, [image, sigma]);
  const { value, error } = useLatest((given) => denoise(service, model, given), input);
  return html`<${Panel} id="denoising" title="Denoising" error=${error}>
    ${!image && html`<${NoImage} />`}
    <${Slider}
      label="Noise"
      value=${sigma}
      min=${0}
      max=${1}
      step=${0.05}
      text=${`standard deviation ${sigma.toFixed(2)}`}
      onInput=${setSigma}
    />
    ${
      value &&
      html`<div class="pictures">
          <${Picture} source=${value.clean} name="image" />
          <${Picture} source=${value.noisy} name="with noise" />
          <${Picture} source=${value.denoised} name="denoised" />
        </div>
        <p role="status">
          Mean squared error: ${format(value.before)} with noise, ${format(value.after)} denoised
        </p>`
    }
  </${Panel}>`;
}

async function denoise(service, model, { image, sigma }) {
  const clean = await readPixels(image.file, model.input);
  const noisy = addNoise(clean, sigma);
  const drawn = drawPixels(noisy, model.input);
  const sent = { name: "noisy.png", file: await toPng(drawn) };
  const python = ["denoise", "", "images[0]"];
  const request = { operation: "denoise", title: "denoised image", images: [sent], python };
  const { images } = await operate(service, model, request);
  const denoised = await readPixels(toBlob(images[0]), model.input);
  return {
    clean: drawPixels(clean, model.input).toDataURL(),
    noisy: drawn.toDataURL(),
    denoised: toUrl(images[0]),
    before: meanSquaredError(noisy, clean),
    after: meanSquaredError(denoised, clean),
  };
}

/** Samples of a seed and a temperature. */
export function Samples({ service, model, limits }) {
  const [seed, setSeed] = useState(1);
  const [temperature, setTemperature] = useState(1);
  const count = Math.min(SAMPLES, limits.max_images);
  const input = useMemo(() => ({ count, seed, temperature }), [seed, temperature]);
  const { value, error } = useLatest((given) => sample(service, model, given), input);
  return html`<${Panel} id="samples" title="Samples" error=${error}>
    <p class="buttons">
      <label class="inline">Seed
        <input
          class="field"
          type="number"
          min="0"
          max="4294967295"
          value=${seed}
          onInput=${({ target }) =>
            target.validity.valid && target.value && setSeed(Number(target.value))}
        />
      </label>
      <button type="button" onClick=${() => setSeed((before) => before + 1)}>Next seed</button>
    </p>
    <${Slider}
      label="Temperature"
      value=${temperature}
      min=${0}
      max=${MAX_TEMPERATURE}
      step=${0.1}
      text=${temperature.toFixed(1)}
      onInput=${setTemperature}
    />
    <div class="grid">
      ${value?.map((url, i) => html`<img src=${url} alt=${`sample ${i + 1}`} />`)}
    </div>
  </${Panel}>`;
}

async function sample(service, model, { count, seed, temperature }) {
  const { images } = await operate(service, model, {
    operation: "sample",
    title: "samples",
    json: { count, seed, temperature },
    python: ["sample", `${count}, seed=${seed}, temperature=${temperature}`, "images[0].shape"],
  });
  return images.map(toUrl);
}

/** Images on the path from the chosen image to another. */
export function Interpolation({ service, model, images, image }) {
  const [chosen, setChosen] = useState(null);
  const [method, setMethod] = useState("linear");
  const others = images.filter(({ id }) => id !== image?.id);
  const other = others.find(({ id }) => id === chosen) ?? others[0];
  const input = useMemo(
    () => (image && other ? { ends: [image, other], method } : null),
    [image, other, method],
  );
  const { value, error } = useLatest((given) => interpolate(service, model, given), input);
  return html`<${Panel} id="interpolation" title="Interpolation" error=${error} wide>
    ${!other && html`<p class="note">Add two images to see the path between them.</p>`}
    ${
      other &&
      html`<p class="buttons">
        <label class="inline"
          >From the chosen image to
          <select value=${other.id} onChange=${(event) => setChosen(Number(event.target.value))}>
            ${others.map(({ id, name }) => html`<option value=${id}>${name}</option>`)}
          </select>
        </label>
        <label class="inline"
          >Path
          <select value=${method} onChange=${(event) => setMethod(event.target.value)}>
            <option value="linear">linear</option>
            <option value="spherical">spherical</option>
          </select>
        </label>
      </p>`
    }
    ${
      value &&
      html`<div class="strip">
        ${value.map((url, i) => html`<img src=${url} alt=${`step ${i + 1} of ${STEPS}`} />`)}
      </div>`
    }
  </${Panel}>`;
}

async function interpolate(service, model, { ends, method }) {
  const { images } = await operate(service, model, {
    operation: "interpolate",
    query: `?steps=${STEPS}&method=${method}`,
    title: "interpolation",
    images: ends,
    python: ["interpolate", `steps=${STEPS}, method="${method}"`, "images[0].shape"],
  });
  return images.map(toUrl);
}
