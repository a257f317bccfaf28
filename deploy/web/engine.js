// One model in LiteRT.js, and its time by the rules of linux/benchmark.py: the first inference, a
// warm-up until two windows' medians agree, then every timed run.

const WARMUP = 0.3, WARMUP_LIMIT_RUNS = 20_000, TOLERANCE = 0.02, MAX_RUNS = 100_000;
const TICKS = 20; // a sample lasts so many ticks of the clock, at least, or more than one run is in it
const BREATH = 100; // ms between which the page gets its turn to draw
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

const now = () => performance.now();
const median = (values) => {
  const sorted = Float64Array.from(values).sort(), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

// Loads the runtime, compiles the model and runs it once.
export async function open(bytes, accelerator, threads) {
  const start = now();
  const litert = await import("@litertjs/core");
  const gpu = accelerator === "webgpu";
  if (threads > 1 && (gpu || !self.crossOriginIsolated)) throw new Error(`this page has one thread here, not ${threads}`);
  if (gpu && !(await navigator.gpu?.requestAdapter())) throw new Error("this browser has no WebGPU adapter");
  const jspi = gpu && "Suspending" in WebAssembly; // what the GPU cannot do is then left to wasm
  await litert.loadLiteRt("litert/core/wasm/", jspi ? { jspi } : { threads: !gpu && threads > 1 });
  const loaded = now();
  const model = await litert.loadAndCompile(bytes, { accelerator, cpuOptions: { numThreads: threads } });
  const compiled = now();
  const details = (list) => list.map(({ name, shape, dtype }) => ({ name, shape: [...shape], dtype }));
  const inputs = details(model.getInputDetails()), outputs = details(model.getOutputDetails());
  const used = model.options.accelerator;
  const build = performance.getEntriesByType("resource").map((each) => each.name).filter((name) => name.endsWith(".wasm"))
    .at(-1)?.match(/litert_wasm_(\w*?)_?internal/)?.[1] || "simd";

  // Tensors where the model computes, made of one typed array per input.
  const tensors = (values) => Promise.all(values.map(async (each, i) => {
    const tensor = new litert.Tensor(each, inputs[i].shape);
    const taken = model.getInputDetails()[i].supportedBufferTypes;
    return taken.has(tensor.bufferType) ? tensor : tensor.moveTo([...taken][0]);
  }));
  // Of WebGPU nothing is known to be computed before it is read.
  const invoke = async (given) => {
    const results = await model.run(given);
    if (used !== "wasm") for (const each of results) await each.data();
    for (const each of results) each.delete();
  };
  const run = async (values) => {
    const given = await tensors(values);
    const results = await model.run(given);
    const data = [];
    for (const each of results) data.push(await each.data());
    for (const each of [...given, ...results]) each.delete();
    return data;
  };

  const random = await tensors(inputs.map(pixels));
  const before = now();
  await invoke(random);
  const first = now() - before;
  const opened = {
    accelerator: used, threads, build, inputs, outputs, isolated: self.crossOriginIsolated === true,
    fully_accelerated: used === "wasm" ? null : model.isFullyAccelerated,
    import_ms: loaded - start, init_ms: compiled - loaded, first_ms: first, clock_ms: clock(),
  };
  return { opened, run, time: (rules, tell) => time(() => invoke(random), opened, rules, tell), arrays: inputs.map((each) => ARRAYS[each.dtype]) };
}

// What a classifier gives, dequantized, as probabilities. Where its last step is no softmax they may
// be logits; the rounded ones of a softmax over many classes may sum to anything.
export function probabilities(raw, { scale, zero_point }, softmax) {
  const given = Array.from(raw, (value) => scale === null ? value : (value - zero_point) * scale);
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  if (given.every((value) => value >= 0) && (softmax || Math.abs(sum(given) - 1) < 0.05)) return given;
  const top = Math.max(...given), powers = given.map((value) => Math.exp(value - top)), all = sum(powers);
  return powers.map((value) => value / all);
}

// Random pixels, the same ones at each call; zeros where the input is an index.
function pixels({ shape, dtype }) {
  const values = new ARRAYS[dtype](shape.reduce((a, b) => a * b, 1));
  let state = 0;
  const random = () => { // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  if (dtype !== "int32") for (let i = 0; i < values.length; i++) values[i] = dtype === "uint8" ? Math.floor(256 * random()) : 255 * random();
  return values;
}

// The step of performance.now() in ms: 0.005 where the page is isolated, 0.1 where it is not.
function clock() {
  let step = Infinity;
  for (let i = 0; i < 10; i++) {
    const start = now();
    let then = start;
    while (then === start) then = now();
    step = Math.min(step, then - start);
  }
  return step;
}

async function time(invoke, { clock_ms: step, first_ms: first }, rules, tell) {
  let breathed = now();
  const breathe = async (phase, values, batch) => {
    if (now() - breathed < BREATH) return;
    tell(phase, values, batch);
    await new Promise((resolve) => document.hidden ? setTimeout(resolve) : requestAnimationFrame(() => setTimeout(resolve)));
    breathed = now();
  };
  const sample = async (batch) => {
    const start = now();
    for (let i = 0; i < batch; i++) await invoke();
    return (now() - start) / batch;
  };
  let hidden = document.hidden;
  const hides = () => { hidden ||= document.hidden; };
  document.addEventListener("visibilitychange", hides);

  const limit = rules.warm_up * 1000, began = now();
  let tried = 0, spent = 0;
  for (; spent < Math.min(limit, Math.max(20, 2 * TICKS * step)); spent = now() - began) { await invoke(); tried++; }
  const enough = (ms) => Math.max(1, Math.ceil(TICKS * step / Math.max(ms, 1e-3)));
  let batch = enough(tried ? spent / tried : first);

  const warmup = [], medians = [];
  let warmed = 0, window = 20, steady = limit ? false : null; // without a warm-up nobody looked
  while (!steady && spent < limit && warmed < WARMUP_LIMIT_RUNS) {
    warmup.push(await sample(batch));
    warmed += batch;
    spent += warmup.at(-1) * batch;
    if (warmup.length === 1 && warmup[0] > 50) window = 5;
    if (warmup.length % window === 0) {
      medians.push(median(warmup.slice(-window)));
      const [before, after] = medians.slice(-2);
      steady = medians.length > 1 && Math.abs(after - before) < TOLERANCE * before && spent >= WARMUP * 1000;
    }
    await breathe("warm-up", warmup, batch);
  }
  if (warmup.length) batch = Math.max(batch, enough(median(warmup.slice(-window)))); // it got faster
  const samples = [];
  let total = 0, stopped = null;
  while (!stopped) {
    samples.push(await sample(batch));
    total += samples.at(-1) * batch;
    if (samples.length >= rules.min_runs && total >= rules.min_seconds * 1000) stopped = "minimum";
    else if (total >= rules.max_seconds * 1000) stopped = "max-seconds";
    else if (samples.length >= MAX_RUNS) stopped = "max-runs";
    await breathe("measuring", samples, batch);
  }
  document.removeEventListener("visibilitychange", hides);
  return { batch, hidden, window, steady, warmup_runs: tried + warmed, stopped_by: stopped, samples_ms: samples };
}
