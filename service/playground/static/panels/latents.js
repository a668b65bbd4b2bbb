// The latent space: the vector of the chosen image as bars, and a map of the test images.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { operate } from "../api.js";
import { colourOf, Picture, PointMap } from "../charts.js";
import { createImage, toUrl } from "../images.js";
import { Panel, useEach, useExamples, useLatest } from "../parts.js";
import { project } from "../arithmetic.js";

const MIN_RANGE = 3; // standard deviations of a standard normal prior
const STEPS = 40; // of a bar, for the arrow keys

/** Bars of the latents; dragging one decodes the vector at once. Without an image they are 0. */
export function Latents({ service, model, image }) {
  const [latents, setLatents] = useState(() => new Array(model.latent_dim).fill(0));
  const [range, setRange] = useState(MIN_RANGE);
  const encoded = useLatest((given) => encode(service, model, given), image);
  const decoded = useLatest((given) => decode(service, model, given), latents);
  const reset = () => {
    const start = encoded.value ?? new Array(model.latent_dim).fill(0);
    setRange(Math.max(MIN_RANGE, 1.2 * Math.max(...start.map(Math.abs))));
    setLatents(start);
  };
  useEffect(reset, [encoded.value]);
  const change = (index, value) => {
    const clipped = Math.min(range, Math.max(-range, value));
    setLatents((before) => before.map((each, i) => (i === index ? clipped : each)));
  };
  const error = encoded.error ?? decoded.error;
  return html`<${Panel} id="latents" title="Latent vector" error=${error} wide>
    <p class="note">
      Drag a bar, or use the arrow keys: left and right choose a bar, up and down change it.
    </p>
    <div class="parts narrow">
      <${Bars} latents=${latents} range=${range} change=${change} />
      ${decoded.value && html`<${Picture} source=${decoded.value} name="decoded" />`}
    </div>
    <p class="buttons"><button type="button" onClick=${reset}>Reset</button></p>
  </${Panel}>`;
}

function Bars({ latents, range, change }) {
  const home = useRef();
  const dragged = useRef(null);
  const [current, setCurrent] = useState(0);
  const drag = (event) => {
    const box = home.current.getBoundingClientRect();
    change(dragged.current, range * (1 - (2 * (event.clientY - box.top)) / box.height));
  };
  const begin = (event) => {
    const box = home.current.getBoundingClientRect();
    const across = Math.floor(((event.clientX - box.left) / box.width) * latents.length);
    dragged.current = Math.min(latents.length - 1, Math.max(0, across));
    setCurrent(dragged.current);
    home.current.setPointerCapture(event.pointerId);
    drag(event);
  };
  const press = (event) => {
    const across = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const up = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[event.key];
    if (across) {
      const next = Math.min(latents.length - 1, Math.max(0, current + across));
      setCurrent(next);
      home.current.children[next].focus();
    } else if (up) change(current, latents[current] + (up * 2 * range) / STEPS);
    else return;
    event.preventDefault();
  };
  return html`<div
    class="latents"
    ref=${home}
    role="group"
    aria-label="Latent vector"
    onPointerDown=${begin}
    onPointerMove=${(event) => dragged.current !== null && drag(event)}
    onPointerUp=${() => (dragged.current = null)}
    onPointerCancel=${() => (dragged.current = null)}
    onKeyDown=${press}
  >
    ${latents.map(
      (value, i) =>
        html`<${Bar} index=${i} value=${value} range=${range} current=${i === current} />`,
    )}
  </div>`;
}

function Bar({ index, value, range, current }) {
  const share = (50 * Math.abs(value)) / range;
  const style = { height: `${share}%`, top: `${value > 0 ? 50 - share : 50}%` };
  return html`<div
    class="latent"
    role="slider"
    tabindex=${current ? 0 : -1}
    aria-orientation="vertical"
    aria-label=${`latent ${index + 1}`}
    aria-valuemin=${-range}
    aria-valuemax=${range}
    aria-valuenow=${Number(value.toFixed(3))}
  >
    <div class="fill" style=${style}></div>
  </div>`;
}

async function encode(service, model, image) {
  const python = ["encode", "", "latents"];
  const request = { operation: "encode", title: "latent vector", images: [image], python };
  return (await operate(service, model, request)).latents[0];
}

/** Returns the URL of the picture of a latent vector. */
async function decode(service, model, latents) {
  const json = { latents: [latents.map((value) => Number(value.toFixed(4)))] };
  const { images } = await operate(service, model, {
    operation: "decode",
    title: "decoded latent vector",
    json,
    python: ["decode", `np.array(${JSON.stringify(json.latents)}, np.float32)`, "images[0].shape"],
  });
  return toUrl(images[0]);
}

/** Points of the test images; moving over the map decodes the place under the pointer. */
export function LatentMap({ service, model, limits, add }) {
  const { entries, error } = useExamples(service, model);
  const encoded = useEach((images) => encodeAll(service, model, images), entries, limits);
  const [latents, setLatents] = useState(null);
  const known = useMemo(() => entries.filter(({ id }) => encoded[id]?.length), [entries, encoded]);
  const map = useMemo(
    () => known.length > 0 && project(known.map(({ id }) => encoded[id])),
    [known],
  );
  const classes = [...new Set(known.map(({ label }) => label))].sort();
  const decoded = useLatest((given) => decode(service, model, given), latents);
  if (!map && !error) return null;
  const chooseExample = (index) => {
    const { file, name, label } = known[index];
    add([createImage(file, name, label)]);
  };
  const title = "Map of the latent space";
  return html`<${Panel} id="map" title=${title} error=${error ?? decoded.error} wide>
    <p class="note">
      Move over the map, or use the arrow keys, to decode the place. A click or Enter adds the
      nearest test image.
      ${
        map?.share < 1 &&
        ` The map shows the two principal components:
        ${Math.round(100 * map.share)} % of the variance.`
      }
    </p>
    ${
      map &&
      html`<div class="parts narrow">
        <${PointMap}
          points=${map.points}
          classes=${known.map(({ label }) => classes.indexOf(label))}
          label=${title}
          onMove=${(point) => setLatents(map.invert(...point))}
          onChoose=${chooseExample}
        />
        <div>
          ${decoded.value && html`<${Picture} source=${decoded.value} name="decoded" />`}
          <ul class="legend">
            ${classes.map(
              (name, i) =>
                html`<li>
                  <span style=${{ background: colourOf(i) }}></span>${name || "test image"}
                </li>`,
            )}
          </ul>
        </div>
      </div>`
    }
  </${Panel}>`;
}

function encodeAll(service, model, images) {
  return operate(service, model, { operation: "encode", images, asArray: true });
}
