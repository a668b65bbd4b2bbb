// The images that are nearest to the chosen one, by their embeddings.

import { html, useEffect, useMemo, useState } from "../vendor/htm-preact.js";
import { operate } from "../api.js";
import { PointMap } from "../charts.js";
import { splitImages } from "../gallery.js";
import { makeThumbnail } from "../images.js";
import { Panel } from "../parts.js";
import { cosine, project } from "../projection.js";

const NEAREST = 6;

/** Nearest neighbours of the chosen image among all images, and a map of these. */
export function Neighbours({ service, model, images, image, choose }) {
  const { vectors, error } = useVectors(service, model, images);
  const known = images.filter(({ id }) => vectors[id]);
  const map = useMemo(() => (known.length > 2 ? project(known.map(({ id }) => vectors[id])) : null), [images, vectors]);
  const pictures = usePictures(known);
  const own = image && vectors[image.id];
  const nearest = own
    ? known
        .filter(({ id }) => id !== image.id)
        .map((each) => ({ ...each, similarity: cosine(own, vectors[each.id]) }))
        .sort((one, other) => other.similarity - one.similarity)
        .slice(0, NEAREST)
    : [];
  return html`<${Panel} id="neighbours" title="Nearest neighbours" error=${error} wide>
    ${images.length < 2 && html`<p class="note">Add several images to see which are alike.</p>`}
    <ol class="tiles">
      ${nearest.map(
        ({ id, name, url, similarity }) => html`<li>
          <button type="button" class="tile" onClick=${() => choose(id)}>
            <img src=${pictures[id]?.src ?? url} alt="" />
            <span class="name">${name}</span>
            <span class="verdict">${similarity.toFixed(3)}</span>
          </button>
        </li>`,
      )}
    </ol>
    ${map &&
    html`<${PointMap}
      points=${map.points}
      pictures=${known.map(({ id }) => pictures[id])}
      chosen=${known.findIndex(({ id }) => id === image?.id)}
      cursor=${own && map.points[known.findIndex(({ id }) => id === image.id)]}
      label="Map of your images by their embeddings"
      onChoose=${(index) => choose(known[index].id)}
    />`}
  </${Panel}>`;
}

/** Encodes each image once; returns the vectors by the image's id. */
function useVectors(service, model, images) {
  const [vectors, setVectors] = useState({});
  const [error, setError] = useState(null);
  const [asked] = useState(() => new Set());
  useEffect(() => {
    const fresh = images.filter(({ id }) => !asked.has(id));
    for (const { id } of fresh) asked.add(id);
    const work = async () => {
      for (const batch of splitImages(fresh)) {
        const found = await encodeBatch(service, model, batch);
        setVectors((before) => ({ ...before, ...found }));
      }
    };
    work().catch(setError);
  }, [images]);
  return { vectors, error };
}

async function encodeBatch(service, model, images) {
  const python = ["encode", "", "latents.shape"];
  const request = { operation: "encode", title: "embeddings", images, asArray: true, python };
  const rows = await operate(service, model, request);
  return Object.fromEntries(images.map(({ id }, i) => [id, rows[i]]));
}

/** Loads the thumbnails of images; returns the loaded pictures by the image's id. */
function usePictures(images) {
  const [pictures, setPictures] = useState({});
  const [asked] = useState(() => new Set());
  useEffect(() => {
    for (const image of images.filter(({ id }) => !asked.has(id))) {
      asked.add(image.id);
      load(image).then((picture) => setPictures((before) => ({ ...before, [image.id]: picture })), () => {});
    }
  }, [images]);
  return pictures;
}

async function load(image) {
  const picture = new Image();
  picture.src = await makeThumbnail(image);
  await picture.decode();
  return picture;
}
