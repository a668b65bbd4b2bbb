// The images that are nearest to the chosen one, by their embeddings.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { operate } from "../api.js";
import { PointMap } from "../charts.js";
import { makeThumbnail } from "../images.js";
import { Panel, useEach } from "../parts.js";
import { cosine, project } from "../arithmetic.js";

const MAX_PICTURES = 300; // on the map; other images are dots
const NEAREST = 6;

/** Nearest neighbours of the chosen image among all images, and a map of these. */
export function Neighbours({ service, model, limits, images, image, choose }) {
  const vectors = useEach((batch) => encodeBatch(service, model, batch), images, limits);
  const known = images.filter(({ id }) => vectors[id]?.length);
  const map = useMap(known, vectors, images);
  const pictures = usePictures(map.known);
  const own = image && vectors[image.id];
  const nearest = own
    ? known
        .filter(({ id }) => id !== image.id)
        .map((each) => ({ ...each, similarity: cosine(own, vectors[each.id]) }))
        .sort((one, other) => other.similarity - one.similarity)
        .slice(0, NEAREST)
    : [];
  return html`<${Panel} id="neighbours" title="Nearest neighbours" wide>
    ${images.length < 2 && html`<p class="note">Add several images to see which are alike.</p>`}
    <ol class="tiles">
      ${nearest.map(
        ({ id, name, url, similarity }) =>
          html`<li>
            <button type="button" class="tile" onClick=${() => choose(id)}>
              <img src=${pictures[id]?.src ?? url} alt="" />
              <span class="name">${name}</span>
              <span class="verdict">${similarity.toFixed(3)}</span>
            </button>
          </li>`,
      )}
    </ol>
    ${
      map.points &&
      html`<${PointMap}
        points=${map.points}
        pictures=${map.known.map(({ id }) => pictures[id])}
        chosen=${map.known.findIndex(({ id }) => id === image?.id)}
        label="Map of your images by their embeddings: arrow keys move over it, Enter chooses"
        onChoose=${(index) => choose(map.known[index].id)}
      />`
    }
  </${Panel}>`;
}

/** Returns the map of the images with vectors, {known, points}: the last one until all are done. */
function useMap(known, vectors, images) {
  const last = useRef({ known });
  const map = useMemo(() => {
    if (!images.every(({ id }) => vectors[id])) return null;
    return {
      known,
      points: known.length > 2 && project(known.map(({ id }) => vectors[id])).points,
    };
  }, [images, vectors]);
  if (map) last.current = map;
  return last.current;
}

function encodeBatch(service, model, images) {
  const python = ["encode", "", "latents.shape"];
  return operate(service, model, {
    operation: "encode",
    title: "embeddings",
    images,
    asArray: true,
    python,
  });
}

/** Loads the thumbnails of images; returns the loaded pictures by the image's id. */
function usePictures(images) {
  const [pictures, setPictures] = useState({});
  const [asked] = useState(() => new Set());
  useEffect(() => {
    for (const image of images.slice(0, MAX_PICTURES).filter(({ id }) => !asked.has(id))) {
      asked.add(image.id);
      load(image).then(
        (picture) => setPictures((before) => ({ ...before, [image.id]: picture })),
        () => {},
      );
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
