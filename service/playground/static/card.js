// Choice of the model, and its card.

import { html } from "./vendor/htm-preact.js";
import { format } from "./charts.js";

/** The model's card. `version` is null if the model responds without one. */
export function Card({ cards, card, version, choose, chooseVersion }) {
  const { input } = card;
  const colours = input.channels === 1 ? "grey" : "colour";
  const facts = [
    ["Architecture", card.architecture],
    ["Input", `${input.height}×${input.width} pixels, ${colours}`],
    ["Latents", card.latent_dim],
    ["Provider", card.execution_provider],
    ["Calibration", card.calibration && `${card.calibration.images} normal images: ${card.calibration.method}`],
    ["Trained on", `${card.training_data.name} (${card.training_data.licence})`],
  ];
  return html`<section class="card" aria-labelledby="model-title">
    <h2 id="model-title">Model</h2>
    <label>Name
      <select value=${card.name} onChange=${(event) => choose(event.target.value)}>
        ${cards.map(({ name }) => html`<option value=${name}>${name}</option>`)}
      </select>
    </label>
    <label>Version
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
        ${facts.filter(([, fact]) => fact).map(([name, fact]) => html`<dt>${name}</dt><dd>${fact}</dd>`)}
        ${Object.entries(card.metrics).map(([name, value]) => html`<dt>${nameMetric(name)}</dt><dd>${format(value)}</dd>`)}
      </dl>
    </details>
  </section>`;
}

function nameMetric(name) {
  return name.replaceAll("_", " ").replace(/\b(auroc|aupro|mse|nll|elbo|psnr|ssim|pca)\b/g, (word) => word.toUpperCase());
}
