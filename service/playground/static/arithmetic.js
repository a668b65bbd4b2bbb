// Arithmetic of the panels: false positive rates as 1 in N, and projections of vectors.

import { createRandom } from "./images.js";

const DEFAULTS = [100, 50, 20, 10, 5]; // as the service chooses, by the size of the calibration
const STEPS = [1, 2, 5];
const ITERATIONS = 60; // of the power method

/** Returns the rates that so many calibration images allow, as the N of 1 in N, ascending. */
export function listChoices(images) {
  const most = images + 1;
  const choices = [];
  for (let scale = 1; scale <= most; scale *= 10) {
    choices.push(...STEPS.map((step) => step * scale).filter((n) => n > 1 && n < most));
  }
  return [...choices, most];
}

/** Returns the N of the service's default rate. */
export function findDefault(images) {
  return DEFAULTS.find((n) => n <= images + 1) ?? images + 1;
}

/** Returns true if a p-value is anomalous at a rate of 1 in `n`. */
export function isAnomalous(pValue, n) {
  return pValue * n <= 1 + 1e-9;
}

/** Returns the score from which on images are anomalous at a rate of 1 in `n`. */
export function findThreshold(scores, n) {
  const allowed = Math.floor((scores.length + 1) / n + 1e-9);
  return scores[scores.length - allowed];
}

/** Returns a p-value in words. */
export function explain(pValue, images) {
  const atLeast = Math.round(pValue * (images + 1)) - 1;
  const p = pValue.toPrecision(2);
  return `${atLeast} of ${images} normal images score at least as high (p = ${p})`;
}

/**
 * Returns the projection of rows (n, d) to two dimensions: {points, share, invert}.
 *
 * `points` are [x, y] of each row, `share` the share of their variance, and `invert(x, y)` is the
 * row there. Rows of two numbers are their own points.
 */
export function project(rows) {
  if (rows[0].length === 2) {
    return { points: rows, share: 1, invert: (x, y) => [x, y] };
  }
  const mean = rows[0].map((_, j) => rows.reduce((sum, row) => sum + row[j], 0) / rows.length);
  const centred = rows.map((row) => row.map((value, j) => value - mean[j]));
  const first = findComponent(centred, []);
  const second = findComponent(centred, [first]);
  const points = centred.map((row) => [dot(row, first), dot(row, second)]);
  const total = sumSquares(centred);
  return {
    points,
    share: total ? sumSquares(points) / total : 1,
    invert: (x, y) => mean.map((value, j) => value + x * first[j] + y * second[j]),
  };
}

/** Returns the unit vector of largest variance that is orthogonal to `others`. */
function findComponent(rows, others) {
  const random = createRandom(1);
  let vector = normalise(rows[0].map(() => random() - 0.5));
  for (let i = 0; i < ITERATIONS; i += 1) {
    const next = rows[0].map(() => 0);
    for (const row of rows) addScaled(next, row, dot(row, vector));
    for (const other of others) addScaled(next, other, -dot(next, other));
    vector = normalise(next);
  }
  return vector;
}

function addScaled(target, row, factor) {
  for (let j = 0; j < target.length; j += 1) target[j] += factor * row[j];
}

function normalise(vector) {
  const norm = Math.hypot(...vector) || 1;
  return vector.map((value) => value / norm);
}

function sumSquares(rows) {
  return rows.reduce((sum, row) => sum + dot(row, row), 0);
}

function dot(one, other) {
  let sum = 0;
  for (let j = 0; j < one.length; j += 1) sum += one[j] * other[j];
  return sum;
}

/** Returns the cosine similarity of two vectors. */
export function cosine(one, other) {
  return dot(one, other) / (Math.sqrt(dot(one, one) * dot(other, other)) || 1);
}
