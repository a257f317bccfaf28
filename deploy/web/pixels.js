// A photo as a network is given it: covered, cropped in the middle, scaled by Pillow's antialiased
// bilinear filter. A canvas' own scaling differs from browser to browser, and so would the classes.

const MOST = 4e6; // pixels that are looked at; a phone's camera has more, and a canvas its limits

// Pixels of a photo, a canvas or a video frame, over white where it is transparent.
export function imageData(source, width, height) {
  const share = Math.min(1, Math.sqrt(MOST / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * share));
  canvas.height = Math.max(1, Math.round(height * share));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// uint8 (height, width, channels) of ImageData, which is changed; crop is a share of the shorter side.
export function fitted(image, [height, width, channels], crop) {
  if (channels === 1) grayed(image.data);
  const high = Math.round(height / crop), wide = Math.round(width / crop);
  const ratio = Math.min(image.width / wide, image.height / high);
  const left = (image.width - wide * ratio) / 2, top = (image.height - high * ratio) / 2;
  const across = weights(image.width, left, ratio, Math.floor((wide - width) / 2), width);
  const down = weights(image.height, top, ratio, Math.floor((high - height) / 2), height);
  const lines = new Uint8ClampedArray(image.height * width * 3);
  for (let y = 0, to = 0; y < image.height; y++) {
    for (const [start, shares] of across) {
      let r = 0, g = 0, b = 0;
      for (let i = 0, at = (y * image.width + start) * 4; i < shares.length; i++, at += 4) {
        r += shares[i] * image.data[at];
        g += shares[i] * image.data[at + 1];
        b += shares[i] * image.data[at + 2];
      }
      lines[to++] = r + 0.5 | 0; lines[to++] = g + 0.5 | 0; lines[to++] = b + 0.5 | 0;
    }
  }
  const pixels = new Uint8ClampedArray(height * width * 3);
  for (let y = 0, to = 0; y < height; y++) {
    const [start, shares] = down[y];
    for (let x = 0; x < width * 3; x++) {
      let sum = 0;
      for (let i = 0; i < shares.length; i++) sum += shares[i] * lines[(start + i) * width * 3 + x];
      pixels[to++] = sum + 0.5 | 0;
    }
  }
  return new Uint8Array(channels === 3 ? pixels.buffer : pixels.filter((_, i) => i % 3 === 0));
}

// Each pixel becomes its luma (ITU-R 601-2), in Pillow's whole numbers.
function grayed(data) {
  for (let i = 0; i < data.length; i += 4)
    data[i] = data[i + 1] = data[i + 2] = (19595 * data[i] + 38470 * data[i + 1] + 7471 * data[i + 2] + 32768) >> 16;
}

// For each of `count` outputs from `first` on: where its inputs start, and the share of each, in
// Pillow's steps of 2^-22.
function weights(size, from, ratio, first, count) {
  const reach = Math.max(1, ratio);
  return Array.from({ length: count }, (_, i) => {
    const center = from + (first + i + 0.5) * ratio;
    const start = Math.max(0, Math.floor(center - reach + 0.5));
    const end = Math.min(size, Math.floor(center + reach + 0.5));
    const shares = [];
    for (let x = start; x < end; x++) shares.push(Math.max(0, 1 - Math.abs(x + 0.5 - center) / reach));
    const sum = shares.reduce((a, b) => a + b, 0);
    return [start, shares.map((share) => Math.round(share / sum * 2 ** 22) / 2 ** 22)];
  });
}
