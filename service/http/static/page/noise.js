// Noise on 8-bit pixels, and how far it really moved them. Pixels are ImageData; alpha is not counted.

// Normal noise of mean 0 and variance 1 for every value; the same seed gives the same noise.
export function unitNoise(pixels, seed = 1) {
  let state = seed >>> 0;
  const uniform = () => {
    // Mulberry32: small, and good enough to be looked at.
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const noise = new Float32Array(pixels.data.length);
  for (let at = 0; at < noise.length; at += 1) {
    if (at % 4 !== 3) noise[at] = Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }
  return noise;
}

// Rounded and clipped to 0..255, as any picture that can be sent.
export function withNoise(pixels, noise, levels) {
  const moved = new ImageData(pixels.width, pixels.height);
  for (let at = 0; at < noise.length; at += 1) moved.data[at] = pixels.data[at] + levels * noise[at];
  return moved;
}

// l2 over the H x W x 3 values in [0, 1].
export function distance(a, b) {
  let sum = 0;
  for (let at = 0; at < a.data.length; at += 1) sum += (a.data[at] - b.data[at]) ** 2;
  return Math.sqrt(sum) / 255;
}

// The most noise of this shape whose distance, after rounding and clipping, is at most `l2`.
export function withinBudget(pixels, noise, l2) {
  let low = 0;
  let high = (4 * 255 * l2) / Math.sqrt(noise.length * 0.75);
  let best = withNoise(pixels, noise, 0);
  for (let step = 0; step < 18; step += 1) {
    const middle = (low + high) / 2;
    const moved = withNoise(pixels, noise, middle);
    if (distance(pixels, moved) <= l2) [low, best] = [middle, moved];
    else high = middle;
  }
  return best;
}

// The difference, made `times` as large, around grey.
export function enlargedDifference(a, b, times) {
  const shown = new ImageData(a.width, a.height);
  for (let at = 0; at < a.data.length; at += 1) {
    shown.data[at] = at % 4 === 3 ? 255 : 128 + times * (b.data[at] - a.data[at]);
  }
  return shown;
}
