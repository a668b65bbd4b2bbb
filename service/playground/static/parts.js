// Parts that the panels share: hooks, frame, slider.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { pathOf } from "./api.js";
import { readZip } from "./images.js";

const BATCH_BYTES = 8 * 2 ** 20;
const FIRST_BATCH = 16; // images, so that results appear soon; each batch has twice as many

/**
 * Runs an asynchronous function of the newest input, one call at a time; no call if it is null.
 *
 * Returns {value, error, input}: the last result, or error, and the input that it is of.
 */
export function useLatest(run, input) {
  const [result, setResult] = useState({ value: null, error: null, input: null });
  const state = useRef({ running: false, mounted: true }).current;
  state.input = input;
  state.run = run;
  useEffect(() => () => (state.mounted = false), []);
  useEffect(() => {
    state.pending = input !== null;
    if (input === null) setResult({ value: null, error: null, input });
    else if (!state.running) work(state, setResult);
  }, [input]);
  return result;
}

async function work(state, setResult) {
  state.running = true;
  while (state.pending && state.mounted) {
    state.pending = false;
    const { input, run } = state;
    const result = await run(input).then(
      (value) => ({ value, error: null, input }),
      (error) => ({ value: null, error, input }),
    );
    if (state.mounted && state.input !== null) setResult(result);
  }
  state.running = false;
}

/**
 * Runs a function of a batch of images, for each image once; returns the results by the image's id.
 *
 * The images of a batch that fails run alone; the result of one that fails alone is {error}.
 */
export function useEach(run, images, limits) {
  const [results, setResults] = useState({});
  const state = useRef({ begun: new Set() }).current;
  state.images = images;
  useEffect(() => () => (state.images = []), []);
  useEffect(() => {
    const fresh = images.filter(({ id }) => !state.begun.has(id));
    for (const { id } of fresh) state.begun.add(id);
    const work = async () => {
      for await (const found of runBatches(run, splitImages(fresh, limits))) {
        if (!state.images.length) return; // all are removed, or the model is another
        setResults((before) => ({ ...before, ...found }));
      }
    };
    work();
  }, [images]);
  return results;
}

async function* runBatches(run, batches) {
  for (const batch of batches) {
    try {
      const results = await run(batch);
      yield Object.fromEntries(batch.map(({ id }, i) => [id, results[i]]));
    } catch ({ message }) {
      if (batch.length === 1) yield { [batch[0].id]: { error: message } };
      else
        yield* runBatches(
          run,
          batch.map((image) => [image]),
        );
    }
  }
}

/** Returns the images in batches that a request may hold. */
function splitImages(images, limits) {
  const mostBytes = Math.min(BATCH_BYTES, limits.max_body_bytes / 2); // the rest is for the form
  const batches = [];
  let bytes = Infinity;
  for (const image of images) {
    bytes += image.file.size;
    const most = Math.min(limits.max_images, FIRST_BATCH * 2 ** (batches.length - 1));
    if (bytes > mostBytes || batches.at(-1).length >= most) {
      batches.push([]);
      bytes = image.file.size;
    }
    batches.at(-1).push(image);
  }
  return batches;
}

/** Loads the test images of a model; returns {entries, error}. */
export function useExamples(service, model) {
  const [state, setState] = useState({ entries: [], error: null });
  useEffect(() => {
    if (!("examples.zip" in model.sha256)) return;
    service
      .send(pathOf(model, "examples"))
      .then(async (response) => setState({ entries: readZip(await response.arrayBuffer()) }))
      .catch((error) => setState({ entries: [], error }));
  }, []);
  return state;
}

/** Renders again when the browser turns dark or light; returns true if it is dark. */
export function useDark() {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const update = () => setDark(query.matches);
    query.addEventListener("change", update);
    return () => query.removeEventListener("change", update);
  }, []);
  return dark;
}

/** A titled part of the page, with an error in place of its content if there is one. */
export function Panel({ id, title, error = null, wide = false, children }) {
  return html`<section
    class="panel ${wide ? "wide" : ""}"
    aria-labelledby=${`${id}-title`}
    id=${id}
  >
    <h2 id=${`${id}-title`}>${title}</h2>
    ${error && html`<p class="error" role="alert">${error.message}</p>`} ${children}
  </section>`;
}

export function NoImage() {
  return html`<p class="note">Add an image to see this.</p>`;
}

export function Slider({ label, value, min, max, step = 1, text, onInput }) {
  return html`<label class="slider">
    <span>${label}: ${text}</span>
    <input
      type="range"
      min=${min}
      max=${max}
      step=${step}
      value=${value}
      aria-label=${label}
      aria-valuetext=${text}
      onInput=${(event) => onInput(Number(event.target.value))}
    />
  </label>`;
}
