// Parts that the panels share: hooks, frame, slider.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

/**
 * Runs an asynchronous function of the newest input, one call at a time; no call if it is null.
 *
 * Returns {value, error, input}: the last result, or error, and the input that it is of.
 */
export function useLatest(run, input, ...dependencies) {
  const [result, setResult] = useState({ value: null, error: null, input: null });
  const state = useRef({ running: false, mounted: true }).current;
  state.input = input;
  state.run = run;
  useEffect(() => {
    state.mounted = true;
    return () => (state.mounted = false);
  }, []);
  useEffect(() => {
    state.pending = input !== null;
    if (input === null) setResult({ value: null, error: null, input });
    else if (!state.running) work(state, setResult);
  }, [input, ...dependencies]);
  return result;
}

async function work(state, setResult) {
  state.running = true;
  while (state.pending && state.mounted) {
    state.pending = false;
    const { input, run } = state;
    let result;
    try {
      result = { value: await run(input), error: null, input };
    } catch (error) {
      result = { value: null, error, input };
    }
    if (state.mounted && state.input !== null) setResult(result);
  }
  state.running = false;
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
  return html`<section class="panel ${wide ? "wide" : ""}" aria-labelledby=${`${id}-title`} id=${id}>
    <h2 id=${`${id}-title`}>${title}</h2>
    ${error && html`<p class="error" role="alert">${error.message}</p>`}
    ${children}
  </section>`;
}

/** Text in place of a result that needs an image. */
export function NoImage() {
  return html`<p class="note">Add an image to see this.</p>`;
}

/** A slider with its value in words. */
export function Slider({ label, value, min, max, step = 1, text, onInput }) {
  return html`<label class="slider">
    <span>${label}: <output>${text}</output></span>
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
