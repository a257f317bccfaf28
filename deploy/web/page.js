// The page: what it shows, what it asks of engine.js, what it sends.
import { open, probabilities } from "./engine.js";
import { fitted, imageData } from "./pixels.js";

const $ = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const number = (name, otherwise) => /^\d+$/.test(asked.get(name) ?? "") ? Number(asked.get(name)) : otherwise;
const threads = Math.max(1, number("threads", 1)), accelerator = asked.get("on") === "webgpu" ? "webgpu" : "wasm";
const cores = navigator.hardwareConcurrency || 1, user_agent = navigator.userAgent.slice(0, 500);
const digits = (ms) => ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : ms.toFixed(0);
const about = await (await fetch("about.json")).json();
const index = Math.min(number("model", 0), about.models.length - 1), model = about.models[index];

async function send(name, body, kind = "application/json") {
  const answer = await fetch(name, { method: "POST", headers: { "Content-Type": kind }, body });
  if (!answer.ok) throw new Error(`the terminal does not take it: ${await answer.text()}`);
  return answer.json();
}

function status(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

async function fail(error) {
  const text = String(error?.message ?? error).slice(0, 500) || "it failed";
  $("problem").textContent = text;
  $("problem").hidden = false;
  status("stopped", "failed");
  await send("problem", JSON.stringify({ model: index, text, user_agent })).catch(() => {});
}
addEventListener("error", (event) => fail(event.error ?? event.message));
addEventListener("unhandledrejection", (event) => fail(event.reason));

// ------------------------------------------------------------------ what stands there
const link = (changes) => `?${new URLSearchParams({ model: index, on: accelerator, threads, ...changes })}`;
const size = model.bytes < 1e6 ? `${Math.round(model.bytes / 1000)} kB` : `${(model.bytes / 1e6).toFixed(1)} MB`;
const short = (name) => name.replace(/\.tflite$/, "");
document.title = `${short(model.name)} · kzoo`;
$("title").replaceChildren(...short(model.name).split(/(?<=[_-])/).flatMap((part) => [part, document.createElement("wbr")]));
$("facts").textContent = [size, model.image && `${model.image[1]} × ${model.image[0]} pixels`,
  model.classes.length && `${model.classes.length} classes`, model.quantization].filter(Boolean).join(" · ");
$("versions").textContent = `kzoo ${about.kzoo} · LiteRT.js ${about.litert}`;
$("models").hidden = about.models.length < 2;
about.models.forEach((each, i) => {
  const a = $("models").appendChild(document.createElement("a"));
  a.textContent = short(each.name);
  a.href = link({ model: i });
  if (i === index) a.setAttribute("aria-current", "page");
});
const note = (text) => { $("notes").appendChild(document.createElement("li")).textContent = text; };
if (!isSecureContext) note("This is plain http, which browsers do not trust: one thread, no WebGPU, no live camera. A photo can be taken all the same.");
else if (!self.crossOriginIsolated) note("This browser does not isolate the page: one thread, and a coarse clock.");

const gpu = await navigator.gpu?.requestAdapter().catch(() => null);
const options = [["wasm", 1, "1 thread"]];
if (self.crossOriginIsolated) for (let n = 2; n <= Math.min(cores, 16); n *= 2) options.push(["wasm", n, `${n} threads`]);
if (gpu) options.push(["webgpu", 1, "WebGPU"]);
if (!options.some(([on, n]) => on === accelerator && n === threads)) options.push([accelerator, threads, accelerator === "webgpu" ? "WebGPU" : `${threads} threads`]);
for (const [on, n, text] of options) {
  const label = $("choices").appendChild(document.createElement("label"));
  const input = label.appendChild(document.createElement("input"));
  Object.assign(input, { type: "radio", name: "on", checked: on === accelerator && n === threads });
  label.appendChild(document.createElement("span")).textContent = text;
  input.addEventListener("change", () => location.replace(link({ on, threads: n }))); // each in a fresh page
}
$("choices").hidden = options.length < 2;
const chosen = accelerator === "webgpu" ? "WebGPU" : threads === 1 ? "1 thread" : `${threads} threads`;

// ------------------------------------------------------------------ times
const kept = () => JSON.parse(sessionStorage.getItem(`${model.sha256}`) ?? "[]");
function table() {
  const rows = kept();
  $("results").hidden = !rows.length;
  $("results").tBodies[0].replaceChildren(...rows.map((row) => {
    const tr = document.createElement("tr");
    for (const text of [row.on, `${digits(row.p50_ms)} ms`, row.p90_ms === null ? "too few runs" : `${digits(row.p90_ms)} ms`, row.count])
      tr.appendChild(document.createElement("td")).textContent = text;
    return tr;
  }));
}

function bars(counts, kind) {
  const most = Math.max(...counts), wide = 400 / counts.length;
  $("histogram").replaceChildren(...counts.map((count, i) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect"), high = count > 1e-3 ? Math.max(2, 92 * count / most) : 0;
    for (const [name, value] of Object.entries({ x: i * wide + 0.5, y: 96 - high, width: wide - 1, height: high, class: kind(i) })) bar.setAttribute(name, value);
    return bar;
  }));
}

function draw(samples) {
  const sorted = Float64Array.from(samples).sort(), bins = 48;
  const low = sorted[0], high = Math.max(sorted[Math.floor(0.98 * (sorted.length - 1))], low * 1.02);
  const counts = new Array(bins).fill(0);
  for (const each of sorted) if (each <= high) counts[Math.min(bins - 1, Math.floor(bins * (each - low) / (high - low)))]++;
  const middle = Math.floor(bins * (sorted[sorted.length >> 1] - low) / (high - low));
  bars(counts, (at) => at === middle ? "" : "rest");
  $("fastest").textContent = `${digits(low)} ms`;
  $("slowest").textContent = `${digits(high)} ms`;
  $("p50").textContent = digits(sorted[sorted.length >> 1]);
  $("p50").parentElement.classList.remove("idle");
}

function progress(phase, samples, batch) {
  const runs = (samples.length * batch).toLocaleString("en");
  const spent = samples.reduce((a, b) => a + b, 0) * batch / 1000;
  if (phase === "measuring") {
    draw(samples);
    $("progress").style.width = `${100 * Math.min(samples.length / about.rules.min_runs, spent / (about.rules.min_seconds || 1e-9), 1)}%`;
  }
  $("under").textContent = phase === "measuring" ? `${runs} runs` : `warming up, ${runs} runs`;
}

// What is told of this device, as far as the browser tells it.
async function device() {
  const told = await navigator.userAgentData?.getHighEntropyValues(["model", "platformVersion", "architecture", "bitness"]).catch(() => null);
  const info = gpu?.info;
  const text = (value) => String(value ?? "").slice(0, 200);
  return {
    user_agent, cores, memory_gb: navigator.deviceMemory ?? null,
    model: text(told?.model), platform: text(told && [told.platform, told.platformVersion].join(" ").trim()),
    architecture: text(told && `${told.architecture}${told.bitness ? `, ${told.bitness} bits` : ""}`),
    webgpu: info ? text([info.vendor, info.architecture, info.device, info.description, info.isFallbackAdapter && "software"].filter(Boolean).join(" ")) || "unnamed" : null,
  };
}

// While it measures, nothing else may compute.
const busy = (is) => { for (const id of ["measure", "photo", "camera"]) $(id).disabled = is; };

async function measure() {
  busy(true);
  stop();
  status("measuring");
  $("progress").style.width = "0";
  const timed = await engine.time(about.rules, progress);
  draw(timed.samples_ms);
  const summary = await send("result", JSON.stringify({ model: index, ...engine.opened, ...timed, device: await device() }));
  const each = summary.p50_ms;
  $("p50").textContent = digits(each);
  $("progress").style.width = "100%";
  const p90 = summary.p90_ms === null ? "too few runs for a p90" : `90 % within ${digits(summary.p90_ms)} ms`;
  $("under").textContent = `${chosen} · ${p90} · ${Math.round(1000 / each).toLocaleString("en")} images a second`;
  sessionStorage.setItem(model.sha256, JSON.stringify([...kept().filter((row) => row.on !== chosen), { on: chosen, ...summary }]));
  table();
  status("sent to the terminal", "ready");
  $("measure").textContent = "Measure again";
  busy(false);
  $("measure").onclick = () => location.replace(link({ go: 1 })); // in a fresh page, as the first time
}

// ------------------------------------------------------------------ classes
async function classify(source, width, height) {
  const bytes = fitted(imageData(source, width, height), model.image, model.crop);
  const values = model.input.dtype === "float32" ? Float32Array.from(bytes) : bytes;
  const start = performance.now();
  const [raw] = await engine.run([values]);
  const spent = performance.now() - start;
  const order = probabilities(raw, model.output, model.softmax).map((share, i) => [share, i]).sort((a, b) => b[0] - a[0]).slice(0, 5);
  const list = $("classes");
  while (list.children.length > order.length) list.lastChild.remove();
  for (const li of list.children) if (!li.firstChild) li.append(...["i", "b", "b"].map((name) => document.createElement(name)));
  order.forEach(([share, i], at) => {
    const [bar, name, percent] = list.children[at].children;
    bar.style.width = `${100 * share}%`;
    name.textContent = model.classes[i] ?? `class ${i}`;
    percent.textContent = `${(100 * share).toFixed(1)} %`;
  });
  $("seen").textContent = `${digits(spent)} ms for this one`;
}

async function photo(file) {
  if (!file) return;
  stop();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    $("seen").textContent = "This browser cannot read that file as a photo.";
    return;
  }
  const canvas = $("preview"), share = Math.min(1, 900 / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, bitmap.width * share);
  canvas.height = Math.max(1, bitmap.height * share);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  shown(canvas);
  await classify(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
}

function shown(element) {
  for (const each of [$("preview"), $("video"), $("hint")]) each.hidden = each !== element;
  $("drop").classList.toggle("full", element !== $("hint"));
}

let stream = null;
function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  if (stream) shown($("hint"));
  stream = null;
  $("camera").textContent = "Camera";
}

async function camera() {
  if (stream) return stop();
  const video = $("video");
  busy(true); // until the user has decided
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    $("seen").textContent = error.name === "NotFoundError" ? "This device has no camera." : "The camera was not allowed.";
    return;
  } finally {
    busy(false);
  }
  const own = stream;
  video.srcObject = stream;
  await video.play();
  shown(video);
  $("camera").textContent = "Stop";
  while (stream === own) {
    if (video.videoWidth) await classify(video, video.videoWidth, video.videoHeight);
    await new Promise(requestAnimationFrame);
  }
}

// ------------------------------------------------------------------ kzoo check --on browser
async function outputs() {
  const given = await (await fetch("inputs")).arrayBuffer(), parts = [];
  for (let at = 0; at < given.byteLength;) {
    const values = engine.opened.inputs.map(({ shape }, i) => {
      const kind = engine.arrays[i], count = shape.reduce((a, b) => a * b, 1);
      const bytes = given.slice(at, at += count * kind.BYTES_PER_ELEMENT);
      if (bytes.byteLength < count * kind.BYTES_PER_ELEMENT) throw new Error("the inputs are no multiple of what the model takes");
      return new kind(bytes);
    });
    for (const each of await engine.run(values)) parts.push(each);
  }
  await send("result", JSON.stringify({ model: index, ...engine.opened, device: await device() }));
  await send("outputs", new Blob(parts), "application/octet-stream");
}

// ------------------------------------------------------------------ beginning
table();
bars(Array.from({ length: 48 }, (_, i) => Math.exp(-(((i - 12) / (i < 12 ? 4 : 9)) ** 2))), () => "ghost"); // of what is to come
status("loading the model");
const answer = await fetch(`model/${index}`);
if (!answer.ok) throw new Error("the model did not arrive");
const engine = await open(new Uint8Array(await answer.arrayBuffer()), accelerator, threads);
status("ready", "ready");
$("device").textContent = [`${cores} ${cores === 1 ? "core" : "cores"}`, `a clock in steps of ${(1000 * engine.opened.clock_ms).toFixed(0)} µs`,
  gpu ? "WebGPU" : "no WebGPU"].join(" · ");
busy(false);
$("measure").onclick = measure;
if (model.image) {
  $("classify").hidden = false;
  $("photo").addEventListener("change", (event) => photo(event.target.files[0]));
  $("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  $("camera").onclick = camera;
  const drop = $("drop");
  for (const name of ["dragover", "dragleave", "drop"])
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && !$("photo").disabled) photo(event.dataTransfer.files[0]);
    });
}
if (about.task === "outputs") await outputs();
else if (about.task === "time" || asked.has("go")) await measure();
