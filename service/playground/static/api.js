// Requests to the service, and the same requests as people write them: in curl, or in Python.

const RETRY_SECONDS = 2;
const MAX_RETRY_SECONDS = 15;
const RETRIED = [429, 502, 503, 504];

/** The service at the address of the page. `status` is "ok", "busy" or "gone". */
export class Service {
  constructor() {
    this.key = ""; // in memory only
    this.status = "ok";
    this.requests = []; // the last of each title, the newest first
    this.listeners = new Set();
    this.askForKey = async () => null; // returns a key, or null
    this.asking = null; // one question at a time
  }

  /** Calls `listener` after each change; returns the function that stops it. */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Returns the JSON document at a path. */
  async get(path) {
    return (await this.send(path)).json();
  }

  /**
   * Sends a request until the service is there and takes it; returns the response.
   *
   * `example` describes the request to people: {title, curl, python}. Throws an error response.
   */
  async send(path, options = {}, example = null) {
    for (;;) {
      const began = performance.now();
      const response = await this.#try(path, options);
      if (response?.ok) {
        const content = await response.arrayBuffer();
        this.#setStatus("ok");
        if (example) this.#record(example, response, performance.now() - began);
        return new Response(content, { headers: response.headers });
      }
      const waits = !response || RETRIED.includes(response.status);
      if (waits) await this.#wait(response);
      else if (response.status !== 401 || !(await this.#renewKey())) {
        this.#setStatus("ok");
        throw new Error(await readProblem(response));
      }
    }
  }

  async #try(path, options) {
    const headers = { ...options.headers };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    try {
      return await fetch(path, { ...options, headers });
    } catch {
      return null; // no connection
    }
  }

  /** Asks for a key, once for all requests that need one; returns false if there is none. */
  async #renewKey() {
    this.asking ??= this.askForKey(Boolean(this.key)).finally(() => (this.asking = null));
    this.key = (await this.asking) ?? "";
    return Boolean(this.key);
  }

  /** Waits until a request that failed may be sent again. */
  async #wait(response) {
    this.#setStatus(response ? "busy" : "gone");
    const seconds = Number(response?.headers.get("Retry-After")) || RETRY_SECONDS;
    await new Promise((resolve) =>
      setTimeout(resolve, 1000 * Math.min(seconds, MAX_RETRY_SECONDS)),
    );
  }

  #setStatus(status) {
    if (status === this.status) return;
    this.status = status;
    this.#notify();
  }

  #record(example, response, milliseconds) {
    const phases = parseServerTiming(response.headers.get("Server-Timing") ?? "");
    const others = this.requests.filter(({ title }) => title !== example.title);
    this.requests = [{ ...example, phases, milliseconds }, ...others];
    this.#notify();
  }

  #notify() {
    for (const listener of this.listeners) listener();
  }
}

async function readProblem(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `the service responded with status ${response.status}`;
  }
}

/** Returns [name, milliseconds] of each entry of a header Server-Timing. */
function parseServerTiming(header) {
  const entries = header.split(",").map((entry) => entry.split(";dur="));
  return entries
    .filter((entry) => entry.length === 2)
    .map(([name, text]) => [name.trim(), Number(text)]);
}

/** Returns the rows of a matrix of float32 in NumPy's format. */
async function readArray(response) {
  const content = await response.arrayBuffer();
  const length = new DataView(content).getUint16(8, true);
  const header = new TextDecoder().decode(content.slice(10, 10 + length));
  const [rows, columns] = header
    .match(/'shape': \((\d+), (\d+)\)/)
    .slice(1)
    .map(Number);
  const data = new Float32Array(content.slice(10 + length));
  return Array.from({ length: rows }, (_, i) => [...data.subarray(i * columns, (i + 1) * columns)]);
}

/**
 * Sends a request for an operation; returns the JSON document, or with `asArray` the rows.
 *
 * It holds `images`, or else the document `json`. `title` names it to people. `python` is the
 * client's method, its arguments after the model, and the attribute to print.
 */
export async function operate(service, model, request) {
  const { operation, query = "", images = [], json = null, asArray = false } = request;
  const path = `${pathOf(model, operation)}${query}`;
  const { headers, ...body } = json ? bodyOfJson(json) : bodyOfImages(images);
  const options = { method: "POST", ...body, headers };
  if (asArray) options.headers = { ...headers, Accept: "application/x-npy" };
  const response = await service.send(
    path,
    options,
    request.title ? describe(path, model, request) : null,
  );
  return asArray ? readArray(response) : response.json();
}

/** Returns the path of an operation, or of the card, of a model or of one of its versions. */
export function pathOf({ name, version, exact }, operation = "") {
  const suffix = operation && `/${operation}`;
  return `v1/models/${name}${exact ? `/versions/${version}` : ""}${suffix}`;
}

/** Returns a body of images: one file as it is, several as a form. */
function bodyOfImages(images) {
  if (images.length === 1) {
    const [{ file }] = images;
    return { body: file, headers: { "Content-Type": file.type } };
  }
  const body = new FormData();
  for (const { file, name } of images) body.append("images", file, name);
  return { body };
}

function bodyOfJson(json) {
  return { body: JSON.stringify(json), headers: { "Content-Type": "application/json" } };
}

function describe(path, { name, version, exact }, { title, images = [], json = null, python }) {
  const address = new URL(path, document.baseURI);
  const [method, parameters, printed] = python;
  const model = JSON.stringify(exact ? `${name}/versions/${version}` : name);
  const names = images.map((image) => JSON.stringify(image.name)).join(", ");
  const all = [model, images.length && `[${names}]`, parameters].filter(Boolean).join(", ");
  return {
    title,
    curl: [`curl -s ${address.search ? `'${address}'` : address}`, ...bodyLines(images, json)].join(
      " \\\n  ",
    ),
    python: [
      ...(parameters.includes("np.") ? ["import numpy as np"] : []),
      "from autoencoder_client import Client",
      "",
      `client = Client("${new URL(".", document.baseURI).href.replace(/\/$/, "")}")`,
      `result = client.${method}(${all})`,
      `print(result.${printed})`,
    ].join("\n"),
  };
}

function bodyLines(images, json) {
  if (json) return ["-H 'Content-Type: application/json'", `-d '${JSON.stringify(json)}'`];
  if (images.length === 1) {
    const [{ name, file }] = images;
    return [`-H 'Content-Type: ${file.type}'`, `--data-binary ${quote(`@${name}`)}`];
  }
  // In a name without quotation marks, curl reads lists of files and media types.
  return images.map(
    ({ name }) => `-F ${quote(`images=@${/[",;]/.test(name) ? JSON.stringify(name) : name}`)}`,
  );
}

function quote(text) {
  return /^[\w@=.,/+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
