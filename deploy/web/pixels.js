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

// uint8 (height, width, channels) of ImageData; crop is a share of the shorter side.
export function fitted(image, [height, width, channels], crop) {
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
      lines[to++] = r; lines[to++] = g; lines[to++] = b;
    }
  }
  const pixels = new Uint8ClampedArray(height * width * 3);
  for (let y = 0, to = 0; y < height; y++) {
    const [start, shares] = down[y];
    for (let x = 0; x < width * 3; x++) {
      let sum = 0;
      for (let i = 0; i < shares.length; i++) sum += shares[i] * lines[(start + i) * width * 3 + x];
      pixels[to++] = sum;
    }
  }
  if (channels === 3) return new Uint8Array(pixels.buffer);
  const gray = new Uint8Array(height * width); // ITU-R 601-2, in Pillow's whole numbers
  for (let i = 0; i < gray.length; i++)
    gray[i] = (19595 * pixels[3 * i] + 38470 * pixels[3 * i + 1] + 7471 * pixels[3 * i + 2] + 32768) >> 16;
  return gray;
}

// For each of `count` outputs from `first` on: where its inputs start, and the share of each.
function weights(size, from, ratio, first, count) {
  const reach = Math.max(1, ratio);
  return Array.from({ length: count }, (_, i) => {
    const center = from + (first + i + 0.5) * ratio;
    const start = Math.max(0, Math.floor(center - reach + 0.5));
    const end = Math.min(size, Math.floor(center + reach + 0.5));
    const shares = [];
    for (let x = start; x < end; x++) shares.push(Math.max(0, 1 - Math.abs(x + 0.5 - center) / reach));
    const sum = shares.reduce((a, b) => a + b, 0);
    return [start, shares.map((share) => share / sum)];
  });
}
