// Views of the service: the card of the model, the last request, and the question for the key.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { format } from "./charts.js";

const LANGUAGES = { curl: "curl", python: "Python" };
const WITH_KEY = {
  curl: '-H "Authorization: Bearer $AE_API_KEY"',
  python: "Client(..., key=...)",
};

/** `version` is null if the model responds without one. */
export function Card({ cards, card, version, choose, chooseVersion }) {
  const { input } = card;
  const colours = input.channels === 1 ? "grey" : "colour";
  const facts = [
    ["Architecture", card.architecture],
    ["Input", `${input.height}×${input.width} pixels, ${colours}`],
    ["Latents", card.latent_dim],
    ["Provider", card.execution_provider],
    [
      "Calibration",
      card.calibration && `${card.calibration.images} normal images: ${card.calibration.method}`,
    ],
    ["Trained on", `${card.training_data.name} (${card.training_data.licence})`],
  ];
  return html`<section class="card" aria-labelledby="model-title">
    <h2 id="model-title">Model</h2>
    <label
      >Name
      <select value=${card.name} onChange=${(event) => choose(event.target.value)}>
        ${cards.map(({ name }) => html`<option value=${name}>${name}</option>`)}
      </select>
    </label>
    <label
      >Version
      <select
        value=${version ?? ""}
        onChange=${(event) => chooseVersion(event.target.value ? Number(event.target.value) : null)}
      >
        <option value="">${version === null ? `current (${card.version})` : "current"}</option>
        ${card.versions.map((each) => html`<option value=${each}>${each}</option>`)}
      </select>
    </label>
    <p>${card.description}</p>
    ${card.weak && html`<p class="error">Weak: ${card.weak}</p>`}
    <details open=${innerWidth > 700}>
      <summary>Card and metrics</summary>
      <dl>
        ${facts
          .filter(([, fact]) => fact)
          .map(
            ([name, fact]) =>
              html`<dt>${name}</dt>
                <dd>${fact}</dd>`,
          )}
        ${Object.entries(card.metrics).map(
          ([name, value]) =>
            html`<dt>${nameMetric(name)}</dt>
              <dd>${format(value)}</dd>`,
        )}
      </dl>
    </details>
  </section>`;
}

function nameMetric(name) {
  return name
    .replaceAll("_", " ")
    .replace(/\b(auroc|aupro|mse|nll|elbo|psnr|ssim|pca)\b/g, (word) => word.toUpperCase());
}

/** Dialog that opens when the service needs a key. */
export function KeyDialog({ service }) {
  const dialog = useRef();
  const answer = useRef(() => {});
  const [wrong, setWrong] = useState(false);
  const [key, setKey] = useState("");
  useEffect(() => {
    service.askForKey = (refused) =>
      new Promise((resolve) => {
        answer.current = resolve;
        setWrong(refused);
        dialog.current.showModal();
      });
  }, [service]);
  const submit = (event) => {
    event.preventDefault();
    answer.current(key.trim());
    setKey("");
    dialog.current.close();
  };
  return html`<dialog
    ref=${dialog}
    aria-labelledby="key-title"
    onClose=${() => answer.current(null)}
  >
    <form onSubmit=${submit}>
      <h2 id="key-title">API key</h2>
      <p>
        This service needs an API key. The page keeps it in memory until you close or reload it.
      </p>
      ${wrong && html`<p class="error" role="alert">The service does not know this key.</p>`}
      <label
        >Key
        <input
          class="field"
          type="password"
          autocomplete="off"
          required
          value=${key}
          onInput=${(event) => setKey(event.target.value)}
        />
      </label>
      <p class="buttons"><button type="submit">Use this key</button></p>
    </form>
  </dialog>`;
}

export function LastRequest({ service }) {
  const [, update] = useState(0);
  const [title, setTitle] = useState("");
  const [language, setLanguage] = useState("curl");
  useEffect(() => service.subscribe(() => update((count) => count + 1)), [service]);
  const request = service.requests.find((each) => each.title === title) ?? service.requests[0];
  if (!request) return null;
  const { phases, milliseconds } = request;
  const copy = () => navigator.clipboard.writeText(request[language]);
  const rest = Math.max(0, milliseconds - phases.reduce((sum, [, time]) => sum + time, 0));
  return html`<section class="panel wide" aria-labelledby="request-title">
    <h2 id="request-title">The request</h2>
    <p class="buttons">
      <label class="inline"
        >Show
        <select value=${title} onChange=${(event) => setTitle(event.target.value)}>
          <option value="">the last request</option>
          ${service.requests.map(
            (each) => html`<option value=${each.title}>${each.title}</option>`,
          )}
        </select>
      </label>
      ${Object.entries(LANGUAGES).map(
        ([each, name]) =>
          html`<button
            type="button"
            aria-pressed=${each === language}
            onClick=${() => setLanguage(each)}
          >
            ${name}
          </button>`,
      )}
      ${navigator.clipboard && html`<button type="button" onClick=${copy}>Copy</button>`}
    </p>
    <pre tabindex="0" aria-label="Code of the request"><code>${request[language]}</code></pre>
    ${service.key && html`<p class="note">With your key: <code>${WITH_KEY[language]}</code></p>`}
    <table class="bars">
      <caption>
        Time of ${request.title}: ${milliseconds.toFixed(0)} ms
      </caption>
      ${[...phases, ["network and page", rest]].map(
        ([name, time]) =>
          html`<tr>
            <th scope="row">${name}</th>
            <td><div class="bar" style=${{ width: `${(100 * time) / milliseconds}%` }}></div></td>
            <td>${time.toFixed(1)} ms</td>
          </tr>`,
      )}
    </table>
  </section>`;
}
