// The page: chooses a model and images, and shows what the model can do with them.

import { html, render, useEffect, useMemo, useState } from "./vendor/htm-preact.js";
import { Service } from "./api.js";
import { findDefault } from "./arithmetic.js";
import { Gallery } from "./gallery.js";
import { Input } from "./input.js";
import { LatentMap, Latents } from "./panels/latents.js";
import { Neighbours } from "./panels/neighbours.js";
import { Classes, Denoising, Interpolation, Reconstruction, Samples } from "./panels/pictures.js";
import { Verdict } from "./panels/verdict.js";
import { Card, KeyDialog, LastRequest } from "./views.js";

const POLL_MILLISECONDS = 4000;
const service = new Service();

// Panels with the capabilities that they need.
const PANELS = [
  [Verdict, ["anomaly-score"]],
  [Classes, ["classify"]],
  [Reconstruction, ["reconstruct"]],
  [Denoising, ["denoise"]],
  [Samples, ["sample"]],
  [Latents, ["encode", "decode"]],
  [LatentMap, ["encode", "decode"]],
  [Interpolation, ["interpolate"]],
  [Neighbours, ["encode"]],
];

function App() {
  const { cards, limits } = useModels();
  const [name, setName] = useState(() => location.hash.slice(1));
  const [version, setVersion] = useState(null); // null: the one that responds without a version
  const [images, setImages] = useState([]);
  const [chosen, setChosen] = useState(null); // id of an image
  const [rate, setRate] = useState(null); // N of one false alarm in N; null: the model's default
  const listed = cards?.find((card) => card.name === name) ?? cards?.[0];
  const pinned = listed?.versions.includes(version) ? version : null;
  const card = useCard(listed, pinned);
  const image = images.find(({ id }) => id === chosen) ?? null;
  const model = useMemo(() => card && { ...card, exact: pinned !== null }, [card, pinned]);
  const count = model?.calibration?.images;
  const n = Math.min(rate ?? findDefault(count), count + 1);

  const choose = (newName) => {
    setName(newName);
    setVersion(null);
    setRate(null);
    history.replaceState(null, "", `#${newName}`);
  };
  const add = (added) => {
    if (!added.length) return;
    setImages((before) => [...before, ...added]);
    setChosen(added[0].id);
  };
  const replace = (old, fresh) => {
    setImages((before) => [...before.filter(({ id }) => id !== old), fresh]);
    setChosen(fresh.id);
  };
  const clear = () => {
    for (const image of images) {
      image.removed = true;
      URL.revokeObjectURL(image.url);
    }
    setImages([]);
    setChosen(null);
    document.querySelector("input[type=file]").focus(); // the button that had the focus is gone
  };

  const context = {
    service,
    model,
    limits,
    images,
    image,
    add,
    replace,
    choose: setChosen,
    n,
    setRate,
  };
  const key = model && `${model.name}/${model.version}`; // another model begins anew
  return html`
    <header>
      <h1>Autoencoder playground</h1>
      <${Status} model=${model} />
      <nav><a href="docs">API</a></nav>
    </header>
    ${
      name &&
      model &&
      model.name !== name &&
      html`<p class="empty error" role="alert">${name} is not loaded.</p>`
    }
    ${cards && !model && html`<p class="empty" role="status">No model is loaded yet.</p>`}
    ${
      model &&
      html`<main>
        <aside>
          <${Card}
            cards=${cards}
            card=${card}
            version=${pinned}
            choose=${choose}
            chooseVersion=${setVersion}
          />
          <${Input} ...${context} key=${key} />
        </aside>
        <div class="work">
          ${images.length > 0 && html`<${Gallery} ...${context} clear=${clear} key=${`g${key}`} />`}
          <div class="panels" key=${key}>
            ${PANELS.filter(([, needed]) =>
              needed.every((each) => model.capabilities.includes(each)),
            ).map(([Panel]) => html`<${Panel} ...${context} />`)}
            <${LastRequest} service=${service} />
          </div>
        </div>
      </main>`
    }
    <${KeyDialog} service=${service} />
  `;
}

/** Lists the models, again and again, so that models load and swap while the page is open. */
function useModels() {
  const [state, setState] = useState({ cards: null, limits: null, text: "" });
  useEffect(() => {
    let timer;
    let stopped = false;
    const look = async () => {
      if (!document.hidden) {
        try {
          const document = await service.get("v1/models");
          const text = JSON.stringify(document);
          if (!stopped) {
            setState((before) =>
              before.text === text
                ? before
                : { cards: document.models, limits: document.limits, text },
            );
          }
        } catch {
          // Without a key there is no list; the next look asks for one again.
        }
      }
      if (!stopped) timer = setTimeout(look, POLL_MILLISECONDS);
    };
    look();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, []);
  return state;
}

/** Returns the card of a version; that of the list if no version is chosen. */
function useCard(listed, version) {
  const [other, setOther] = useState(null);
  const named = listed?.name;
  useEffect(() => {
    if (version === null) return;
    service.get(`v1/models/${named}/versions/${version}`).then(setOther, () => setOther(null));
  }, [named, version]);
  return version !== null && other?.name === named && other.version === version ? other : listed;
}

function Status({ model }) {
  const [, update] = useState(0);
  useEffect(() => service.subscribe(() => update((count) => count + 1)), []);
  const texts = {
    ok: model ? `ready: ${model.name} ${model.version}` : "connecting",
    busy: "busy: the request is sent again",
    gone: "gone: waiting until the service is back",
  };
  return html`<p class="status ${service.status}" role="status">${texts[service.status]}</p>`;
}

render(html`<${App} />`, document.getElementById("app"));
