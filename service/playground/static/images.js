// Images: read, reduced, drawn, with noise, and as files.

const THUMBNAIL = 96; // pixels of the longer side
const SMALL_BYTES = 20_000; // of a file that is its own thumbnail
const MAX_SHOWN = 1200; // pixels of the longer side of a photograph on the page

let count = 0;

/** Returns an image of the page, {id, name, file, url, label}. `label` may be empty. */
export function createImage(file, name = file.name, label = "") {
  count += 1;
  return { id: count, name, file, url: URL.createObjectURL(file), label };
}

/** Returns the files among dropped or pasted items that are images. */
export function listImageFiles(transfer) {
  return [...transfer.files].filter((file) => file.type.startsWith("image/"));
}

/** Returns the width and height at which an image of a size is shown, at most `longest`. */
export function fitSize(width, height, longest = MAX_SHOWN) {
  const scale = Math.min(1, longest / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

let thumbnails = Promise.resolve(); // one at a time, because photographs fill the memory

/** Returns the URL of a small picture of an image, which is made once. */
export function makeThumbnail(image) {
  image.thumbnail ??= thumbnails = thumbnails.then(() => reduce(image));
  return image.thumbnail;
}

async function reduce({ file, url, removed }) {
  if (removed || file.size < SMALL_BYTES) return url;
  try {
    const bitmap = await createImageBitmap(file);
    const [width, height] = fitSize(bitmap.width, bitmap.height, THUMBNAIL);
    const canvas = createCanvas(width, height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    return URL.createObjectURL(await toPng(canvas));
  } catch {
    return url; // a format of the service that the browser does not show, such as TIFF
  }
}

/** Returns the pixels of an image at a model's size, grey if the model is: 0..1 by [pixel]. */
export async function readPixels(blob, { width, height, channels }) {
  const bitmap = await createImageBitmap(blob);
  const canvas = createCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Float32Array(width * height * channels);
  for (let i = 0; i < width * height; i += 1) {
    const [red, green, blue] = data.subarray(4 * i, 4 * i + 3);
    if (channels === 1) pixels[i] = (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
    else pixels.set([red / 255, green / 255, blue / 255], 3 * i);
  }
  return pixels;
}

/** Returns a canvas of pixels in 0..1 of a model's size. */
export function drawPixels(pixels, { width, height, channels }) {
  const canvas = createCanvas(width, height);
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    for (let c = 0; c < 3; c += 1) {
      image.data[4 * i + c] = Math.round(255 * pixels[channels * i + (channels === 1 ? 0 : c)]);
    }
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Returns a canvas of the difference of pixels: from black to yellow. */
export function drawDifference(pixels, others, { width, height, channels }) {
  const colours = [];
  for (let i = 0; i < pixels.length; i += channels) {
    let sum = 0;
    for (let c = i; c < i + channels; c += 1) sum += Math.abs(pixels[c] - others[c]);
    const heat = sum / channels;
    colours.push(Math.min(1, 2 * heat), heat, heat / 4);
  }
  return drawPixels(colours, { width, height, channels: 3 });
}

/** Returns pixels with Gaussian noise of standard deviation `sigma`, clipped to 0..1. */
export function addNoise(pixels, sigma, seed = 1) {
  const random = createRandom(seed);
  return pixels.map((value) => {
    const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    return Math.min(1, Math.max(0, value + sigma * normal));
  });
}

/** Returns a generator of numbers in [0, 1): mulberry32, public domain. */
export function createRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Returns the mean squared difference of pixels. */
export function meanSquaredError(pixels, others) {
  return pixels.reduce((sum, value, i) => sum + (value - others[i]) ** 2, 0) / pixels.length;
}

export function createCanvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

export function toPng(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// A PNG in base64, as a URL or a blob.
export function toUrl(base64) {
  return `data:image/png;base64,${base64}`;
}

export function toBlob(base64) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], {
    type: "image/png",
  });
}

/** Returns the images of a zip whose files are stored as they are. */
export function readZip(content) {
  const view = new DataView(content);
  let end = content.byteLength - 22;
  while (view.getUint32(end, true) !== 0x06054b50) end -= 1;
  const entries = [];
  let at = view.getUint32(end + 16, true);
  for (let rest = view.getUint16(end + 10, true); rest > 0; rest -= 1) {
    const size = view.getUint32(at + 20, true);
    const [name, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    const path = new TextDecoder().decode(content.slice(at + 46, at + 46 + name));
    const local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    entries.push(describeEntry(path, content.slice(start, start + size)));
    at += 46 + name + extra + comment;
  }
  return entries;
}

function describeEntry(path, content) {
  const slash = path.lastIndexOf("/");
  const type = path.endsWith(".png") ? "image/png" : "image/jpeg";
  const label = path.slice(0, Math.max(0, slash));
  return createImage(new Blob([content], { type }), path.replaceAll("/", "-"), label);
}
