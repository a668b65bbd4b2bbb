// False positive rates, as one false alarm in so many normal images.

const DEFAULTS = [100, 50, 20, 10, 5]; // as the service chooses, by the size of the calibration
const STEPS = [1, 2, 5];

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
  return `${atLeast} of ${images} normal images score at least as high (p = ${pValue.toPrecision(2)})`;
}
