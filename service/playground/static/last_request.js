// The last requests as curl and as Python, and their times.

import { html, useEffect, useState } from "./vendor/htm-preact.js";

const LANGUAGES = { curl: "curl", python: "Python" };

/** The last request of each kind. */
export function LastRequest({ service }) {
  const [, update] = useState(0);
  const [title, setTitle] = useState("");
  const [language, setLanguage] = useState("curl");
  useEffect(() => service.subscribe(() => update((count) => count + 1)), [service]);
  const request = service.requests.find((each) => each.title === title) ?? service.requests[0];
  if (!request) return null;
  const { phases, milliseconds } = request;
  const rest = Math.max(0, milliseconds - phases.reduce((sum, [, time]) => sum + time, 0));
  return html`<section class="panel wide" aria-labelledby="request-title">
    <h2 id="request-title">The request</h2>
    <p class="buttons">
      <label class="inline">Show
        <select value=${title} onChange=${(event) => setTitle(event.target.value)}>
          <option value="">the last request</option>
          ${service.requests.map((each) => html`<option value=${each.title}>${each.title}</option>`)}
        </select>
      </label>
      ${Object.entries(LANGUAGES).map(
        ([each, name]) => html`<button type="button" aria-pressed=${each === language} onClick=${() => setLanguage(each)}>${name}</button>`,
      )}
      <button type="button" onClick=${() => navigator.clipboard.writeText(request[language])}>Copy</button>
    </p>
    <pre tabindex="0" aria-label="Code of the request"><code>${request[language]}</code></pre>
    ${service.key && html`<p class="note">With your key: <code>${language === "curl" ? '-H "Authorization: Bearer $AE_API_KEY"' : "Client(..., key=...)"}</code></p>`}
    <table class="bars">
      <caption>Time of ${request.title}: ${milliseconds.toFixed(0)} ms</caption>
      ${[...phases, ["network and page", rest]].map(
        ([name, time]) => html`<tr>
          <th scope="row">${name}</th>
          <td><div class="bar" style=${{ width: `${(100 * time) / milliseconds}%` }}></div></td>
          <td>${time.toFixed(1)} ms</td>
        </tr>`,
      )}
    </table>
  </section>`;
}
