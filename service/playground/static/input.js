// Ways to bring an image: drop, paste, choose, camera, test images, drawing.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { createCanvas, createImage, listImageFiles, toPng } from "./images.js";
import { useExamples } from "./parts.js";

const MANY = 20; // test images to add at once
const PEN_STEP = 4; // pixels of the drawing, for each press of an arrow key
const DRAWING = 280; // pixels of the drawing's side
const PEN = 22;

export function Input(props) {
  const { model, add } = props;
  const [over, setOver] = useState(false);
  const [others, setOthers] = useState(0); // dropped files that are no images
  const addFiles = (files) => add(files.map((file) => createImage(file)));
  useEffect(() => {
    const paste = (event) => addFiles(listImageFiles(event.clipboardData));
    const drag = (event) => {
      event.preventDefault();
      setOver(true);
    };
    const drop = (event) => {
      event.preventDefault();
      setOver(false);
      const files = listImageFiles(event.dataTransfer);
      setOthers(event.dataTransfer.files.length - files.length);
      addFiles(files);
    };
    const leave = (event) => event.relatedTarget === null && setOver(false);
    const listeners = { paste, dragover: drag, drop, dragleave: leave };
    const end = new AbortController();
    for (const [name, listener] of Object.entries(listeners))
      addEventListener(name, listener, { signal: end.signal });
    return () => end.abort();
  }, []);
  const pick = (event) => {
    addFiles([...event.target.files]);
    event.target.value = "";
  };
  return html`<section aria-labelledby="input-title">
    <h2 id="input-title">Images</h2>
    <label class="drop ${over ? "over" : ""}">
      <span>Drop images here, paste them, or choose files</span>
      <input type="file" accept="image/*" multiple onChange=${pick} />
    </label>
    ${
      others > 0 &&
      html`<p class="error" role="alert">Files that are no images, skipped: ${others}</p>`
    }
    <div class="buttons">
      <${Examples} ...${props} />
      <${Camera} add=${add} />
    </div>
    ${model.input.channels === 1 && html`<${Drawing} ...${props} />`}
  </section>`;
}

function Examples({ service, model, add }) {
  const { entries, error } = useExamples(service, model);
  const [label, setLabel] = useState("");
  if (error)
    return html`<p class="error" role="alert">
      The test images are unavailable: ${error.message}
    </p>`;
  if (!entries.length) return null;
  const labels = [...new Set(entries.map((entry) => entry.label))].filter(Boolean);
  const take = (count) => {
    const rest = entries.filter((entry) => !label || entry.label === label);
    const taken = [];
    while (taken.length < count && rest.length) {
      taken.push(...rest.splice(Math.floor(Math.random() * rest.length), 1));
    }
    add(taken.map((entry) => createImage(entry.file, entry.name, entry.label)));
  };
  const many = Math.min(
    MANY,
    label ? entries.filter((entry) => entry.label === label).length : entries.length,
  );
  return html`
    ${
      labels.length > 1 &&
      html`<label class="inline"
        >Test images
        <select value=${label} onChange=${(event) => setLabel(event.target.value)}>
          <option value="">of any label</option>
          ${labels.map((each) => html`<option value=${each}>${each}</option>`)}
        </select>
      </label>`
    }
    <button type="button" onClick=${() => take(1)}>Add a test image</button>
    <button type="button" onClick=${() => take(MANY)}>Add ${many} test images</button>
  `;
}

function Camera({ add }) {
  const dialog = useRef();
  const video = useRef();
  const [error, setError] = useState(null);
  const [ready, setReady] = useState(false);
  const tracks = useRef([]);
  const open = async () => {
    setError(null);
    dialog.current.showModal();
    try {
      if (!navigator.mediaDevices)
        throw new Error("a browser gives a page its camera only over HTTPS or on localhost");
      const opened = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment" },
      });
      tracks.current = opened.getTracks();
      if (!dialog.current?.open) return stop(); // closed while the browser asked the user
      video.current.srcObject = opened;
      await video.current.play();
      setReady(true);
    } catch (failure) {
      setError(failure);
    }
  };
  const stop = () => {
    for (const track of tracks.current) track.stop();
    setReady(false);
  };
  useEffect(() => stop, []);
  const take = async () => {
    const { videoWidth, videoHeight } = video.current;
    const canvas = createCanvas(videoWidth, videoHeight);
    canvas.getContext("2d").drawImage(video.current, 0, 0);
    const file = await toPng(canvas);
    add([createImage(file, "photograph.png")]);
    dialog.current.close();
  };
  return html`
    <button type="button" onClick=${open}>Camera</button>
    <dialog ref=${dialog} aria-label="Camera" onClose=${stop}>
      ${
        error && html`<p class="error" role="alert">The camera is unavailable: ${error.message}</p>`
      }
      <video ref=${video} muted playsinline aria-label="Camera picture"></video>
      <p class="buttons">
        <button type="button" disabled=${!ready} onClick=${take}>Take the photograph</button>
        <button type="button" onClick=${() => dialog.current.close()}>Close</button>
      </p>
    </dialog>
  `;
}

/** Board to draw on, white on black as the digits of MNIST; arrow keys move the pen. */
function Drawing({ add, replace }) {
  const canvas = useRef();
  const mark = useRef();
  const pen = useRef({ x: DRAWING / 2, y: DRAWING / 4, down: false });
  const current = useRef(null); // the image of this drawing
  const [open, setOpen] = useState(false);
  const wipe = () => {
    const context = canvas.current.getContext("2d");
    context.fillStyle = "black";
    context.fillRect(0, 0, DRAWING, DRAWING);
    current.current = null;
  };
  useEffect(() => {
    if (open) wipe();
  }, [open]);
  const moveTo = (...to) => {
    const [x, y] = to.map((each) => Math.min(DRAWING, Math.max(0, each)));
    const context = canvas.current.getContext("2d");
    if (pen.current.down) {
      Object.assign(context, { strokeStyle: "white", lineWidth: PEN, lineCap: "round" });
      context.beginPath();
      context.moveTo(pen.current.x, pen.current.y);
      context.lineTo(x, y);
      context.stroke();
    }
    Object.assign(pen.current, { x, y });
    Object.assign(mark.current.style, {
      left: `${(100 * x) / DRAWING}%`,
      top: `${(100 * y) / DRAWING}%`,
    });
  };
  const placeOf = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * DRAWING,
      ((event.clientY - box.top) / box.height) * DRAWING,
    ];
  };
  const begin = (event) => {
    pen.current.down = false;
    moveTo(...placeOf(event));
    pen.current.down = true;
    moveTo(...placeOf(event));
    event.target.setPointerCapture(event.pointerId);
  };
  const finish = async () => {
    if (!pen.current.down) return;
    pen.current.down = false;
    const image = createImage(await toPng(canvas.current), "drawing.png");
    if (current.current) replace(current.current, image);
    else add([image]);
    current.current = image.id;
  };
  const press = (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
      event.key
    ];
    const { x, y, down } = pen.current;
    if (step) moveTo(x + PEN_STEP * step[0], y + PEN_STEP * step[1]);
    else if (event.key === " " && down) finish();
    else if (event.key === " ") pen.current.down = true;
    else return;
    event.preventDefault();
  };
  return html`<details class="drawing" onToggle=${(event) => setOpen(event.target.open)}>
    <summary>Draw an image</summary>
    <div class="board">
      <canvas
        ref=${canvas}
        width=${DRAWING}
        height=${DRAWING}
        tabindex="0"
        role="application"
        aria-label="Drawing board: arrow keys move the pen, space lowers and lifts it"
        onPointerDown=${begin}
        onPointerMove=${(event) => moveTo(...placeOf(event))}
        onPointerUp=${finish}
        onPointerCancel=${finish}
        onKeyDown=${press}
      ></canvas>
      <span class="pen" ref=${mark}></span>
    </div>
    <p class="buttons"><button type="button" onClick=${wipe}>Clear the board</button></p>
  </details>`;
}
