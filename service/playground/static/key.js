// Question for the API key, which is kept in memory only.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

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
  const close = (value) => {
    answer.current(value);
    setKey("");
    dialog.current.close();
  };
  const submit = (event) => {
    event.preventDefault();
    close(key.trim());
  };
  return html`<dialog ref=${dialog} aria-labelledby="key-title" onCancel=${() => close(null)}>
    <form onSubmit=${submit}>
      <h2 id="key-title">API key</h2>
      <p>This service needs an API key. The page keeps it in memory until you close or reload it.</p>
      ${wrong && html`<p class="error" role="alert">The service does not know this key.</p>`}
      <label>Key
        <input
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
