/* Times one .tflite file with libLiteRt.so, and prints one JSON object: the record of
 * linux/benchmark.py, by the same options, for machines without Python.
 *
 *     runner MODEL --library libLiteRt.so --threads 2
 *
 * C11, Linux or Android, no header of LiteRT: its C API is opened by dlopen. Exit codes: 2 wrong
 * use, 3 the file or the library is missing, 4 the runtime refuses the model. A damaged model may
 * end the process by a signal: run it in a process you can lose.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { WARMUP_LIMIT_RUNS = 20000, MEMORY_RUNS = 10, MOST_TENSORS = 64, MOST_OPERATORS = 8192 };
static const double WARMUP_SECONDS = 0.3, STEADY_TOLERANCE = 0.02,
                    POWER_SECONDS = 0.5;

static int logged = -1, terminal = -1; /* while stderr is captured: the log, and where it was */

static void end_capture(void) {
  char piece[4096];
  ssize_t got;
  if (logged < 0) return;
  dup2(terminal, 2);
  lseek(logged, 0, SEEK_SET);
  while ((got = read(logged, piece, sizeof piece)) > 0)
    if (write(2, piece, (size_t)got) != got) break;
  logged = -1;
}

static void fail(int code, const char *format, ...) {
  va_list values;
  fflush(stderr);
  end_capture();
  va_start(values, format);
  fputs("error: ", stderr);
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  va_end(values);
  exit(code);
}

/* ---- options ---------------------------------------------------------------------------------*/

static struct {
  const char *model, *library, *version, *delegate, *cpus, *ops, *inputs, *outputs, *supplies;
  long threads, min_runs, max_runs, seed;
  double warm_up, min_seconds, max_seconds;
  bool memory;
} options = {.library = "libLiteRt.so", .version = "unknown",
             .supplies = "/sys/class/power_supply", .threads = 1, .min_runs = 100,
             .max_runs = 100000, .warm_up = 10, .min_seconds = 1, .max_seconds = 60};

static double number(const char *name, const char *text, double least) {
  char *end;
  double value = strtod(text, &end);
  if (*end || end == text || !(value >= least)) fail(2, "%s is a number from %g, not %s", name, least, text);
  return value;
}

static void parse(int count, char **words) {
  for (int i = 1; i < count; i++) {
    const char *name = words[i];
    if (strncmp(name, "--", 2)) {
      if (options.model) fail(2, "one MODEL, not %s too", name);
      options.model = name;
      continue;
    }
    if (!strcmp(name, "--memory")) { options.memory = true; continue; }
    if (++i == count) fail(2, "%s needs a value", name);
    const char *value = words[i];
    if (!strcmp(name, "--library")) options.library = value;
    else if (!strcmp(name, "--runtime-version")) options.version = value;
    else if (!strcmp(name, "--delegate")) options.delegate = value;
    else if (!strcmp(name, "--supplies")) options.supplies = value;
    else if (!strcmp(name, "--cpus")) options.cpus = value;
    else if (!strcmp(name, "--ops")) options.ops = value;
    else if (!strcmp(name, "--inputs")) options.inputs = value;
    else if (!strcmp(name, "--outputs")) options.outputs = value;
    else if (!strcmp(name, "--threads")) options.threads = (long)number(name, value, 1);
    else if (!strcmp(name, "--seed")) options.seed = (long)number(name, value, 0);
    else if (!strcmp(name, "--min-runs")) options.min_runs = (long)number(name, value, 1);
    else if (!strcmp(name, "--max-runs")) options.max_runs = (long)number(name, value, 1);
    else if (!strcmp(name, "--warm-up")) options.warm_up = number(name, value, 0);
    else if (!strcmp(name, "--min-seconds")) options.min_seconds = number(name, value, 0);
    else if (!strcmp(name, "--max-seconds")) options.max_seconds = number(name, value, 0);
    else fail(2, "unknown option %s", name);
  }
  if (!options.model) fail(2, "usage: runner MODEL [--library FILE] [--threads N] ...");
  if (!options.inputs != !options.outputs) fail(2, "--inputs and --outputs go together");
  if (options.ops && strcmp(options.ops, "delegate") && strcmp(options.ops, "node"))
    fail(2, "--ops is delegate or node, not %s", options.ops);
}

/* A number of a list of cores, moving on behind it; -1 where there is none. */
static long core(const char **at) {
  if (**at < '0' || **at > '9') return -1;
  return strtol(*at, (char **)at, 10);
}

/* "0,4-7", as taskset has it. The kernel leaves out what is not there; here it is an error. */
static void pin(const char *list) {
  const char *meant = "a list of this machine's cores is meant, such as 0,4-7", *at = list;
  cpu_set_t set, had;
  CPU_ZERO(&set);
  do {
    if (at != list) at++;
    long first = core(&at), last = first;
    if (*at == '-') { at++; last = core(&at); }
    if (first < 0 || last < first || (*at && *at != ',')) fail(2, "--cpus %s: %s", list, meant);
    if (last >= CPU_SETSIZE) fail(2, "--cpus %s: core %ld is not to be had; %s", list, last, meant);
    for (long cpu = first; cpu <= last; cpu++) CPU_SET(cpu, &set);
  } while (*at);
  if (sched_setaffinity(0, sizeof set, &set)) fail(2, "--cpus %s: %s; %s", list, strerror(errno), meant);
  CPU_ZERO(&had);
  sched_getaffinity(0, sizeof had, &had);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &set) && !CPU_ISSET(cpu, &had))
      fail(2, "--cpus %s: core %d is not to be had; %s", list, cpu, meant);
}

/* ---- the machine -----------------------------------------------------------------------------*/

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static double milliseconds(int64_t start) { return (double)(now() - start) / 1e6; }

/* A field of /proc/self/status in bytes, or -1. */
static long status_bytes(const char *field) {
  char line[256];
  long found = -1;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && found < 0 && fgets(line, sizeof line, file))
    if (!strncmp(line, field, strlen(field)) && line[strlen(field)] == ':')
      found = strtol(line + strlen(field) + 1, NULL, 10) * 1024;
  if (file) fclose(file);
  return found;
}

/* Sets the kernel's high-water mark to what is resident now; names where the peak comes from. */
static const char *reset_peak(void) {
  FILE *file = fopen("/proc/self/clear_refs", "w");
  bool done = file && fputs("5", file) >= 0;
  if (file && fclose(file)) done = false;
  return done ? "VmHWM" : "VmHWM, not reset";
}

static uint8_t *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) fail(3, "file %s: %s", path, strerror(errno));
  fseek(file, 0, SEEK_END);
  long length = ftell(file);
  rewind(file);
  uint8_t *content = malloc((size_t)length + 1);
  if (length < 0 || !content || fread(content, 1, (size_t)length, file) != (size_t)length)
    fail(3, "file %s cannot be read", path);
  fclose(file);
  *size = (size_t)length;
  return content;
}

/* FIPS 180-4, section 6.2; the constants are roots of primes, computed as the standard has them. */
static void sha256(const uint8_t *data, size_t size, char out[65]) {
  uint32_t k[64], h[8], w[64];
  for (int n = 2, count = 0; count < 64; n++) {
    bool prime = true;
    for (int d = 2; d * d <= n; d++) prime = prime && n % d;
    if (!prime) continue;
    /* the first 32 bits of the fraction of n^(1/2) and n^(1/3), by bisection in integers */
    unsigned __int128 low = 0, high = (unsigned __int128)1 << 36;
    while (high - low > 1) {
      unsigned __int128 m = (low + high) / 2;
      if (m * m * m >> 1 >= (unsigned __int128)n << 95) high = m; else low = m;
    }
    k[count] = (uint32_t)low;
    if (count < 8) {
      low = 0; high = (unsigned __int128)1 << 36;
      while (high - low > 1) {
        unsigned __int128 m = (low + high) / 2;
        if (m * m > (unsigned __int128)n << 64) high = m; else low = m;
      }
      h[count] = (uint32_t)low;
    }
    count++;
  }
  size_t padded = (size + 9 + 63) / 64 * 64;
  for (size_t block = 0; block < padded; block += 64) {
    for (int i = 0; i < 16; i++) {
      w[i] = 0;
      for (int b = 0; b < 4; b++) {
        size_t at = block + 4 * (size_t)i + (size_t)b;
        uint8_t byte = at < size ? data[at] : at == size ? 0x80 : 0;
        if (at >= padded - 8) byte = (uint8_t)((uint64_t)size * 8 >> 8 * (padded - 1 - at));
        w[i] = w[i] << 8 | byte;
      }
    }
#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))
    for (int i = 16; i < 64; i++) {
      uint32_t s0 = ROTATE(w[i - 15], 7) ^ ROTATE(w[i - 15], 18) ^ w[i - 15] >> 3;
      uint32_t s1 = ROTATE(w[i - 2], 17) ^ ROTATE(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t v[8];
    memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; i++) {
      uint32_t s1 = ROTATE(v[4], 6) ^ ROTATE(v[4], 11) ^ ROTATE(v[4], 25);
      uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
      uint32_t s0 = ROTATE(v[0], 2) ^ ROTATE(v[0], 13) ^ ROTATE(v[0], 22);
      uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
      memmove(v + 1, v, 7 * sizeof *v);
      v[4] += t1;
      v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
  }
  for (int i = 0; i < 8; i++) snprintf(out + 8 * i, 9, "%08x", (unsigned)h[i]);
}

/* ---- LiteRT ----------------------------------------------------------------------------------*/

typedef void *Handle;
typedef struct { int type; struct { uint32_t rank; int32_t sizes[8]; uint32_t strides[8]; } layout; } TensorType;
typedef struct { size_t total, used, own; } EventMemory;
typedef struct {
  const char *tag;
  int type;
  uint64_t start_us, elapsed_us;
  EventMemory before, after;
  uint64_t index, more;
  int source;
} Event;
typedef struct { const char *name; char kind[12]; int type, bytes; int64_t sizes[8]; uint32_t rank; } Described;

static Handle library, environment, compiled, signature, profiler;
static Handle inputs[MOST_TENSORS], outputs[MOST_TENSORS];
static size_t input_count, output_count;
static Described input_types[MOST_TENSORS], output_types[MOST_TENSORS];
static int (*run_model)(Handle, size_t, size_t, Handle *, size_t, Handle *);

static void *symbol(const char *name) {
  void *found = dlsym(library, name);
  if (!found) fail(3, "%s has no %s: another version of LiteRT?", options.library, name);
  return found;
}

#define CALL(name, ...)                                                                    \
  do {                                                                                     \
    int status_ = ((int (*)())symbol(#name))(__VA_ARGS__);                                 \
    if (status_) fail(4, "LiteRT %s refuses the model: " #name " gives status %d", options.version, status_); \
  } while (0)

/* LiteRtElementType, which are TensorFlow Lite's numbers. */
static const struct { int type, bytes; const char *name; } TYPES[] = {
    {1, 4, "float32"}, {2, 4, "int32"}, {3, 1, "uint8"}, {4, 8, "int64"}, {6, 1, "bool"},
    {7, 2, "int16"}, {9, 1, "int8"}, {10, 2, "float16"}};

static void describe(Handle tensor, const char *name, Described *told) {
  TensorType type;
  memset(&type, 0, sizeof type);
  CALL(LiteRtGetRankedTensorType, tensor, &type);
  told->name = name; /* the model's, which is never freed */
  told->type = type.type;
  told->rank = type.layout.rank & 0x7f; /* above: whether there are strides */
  for (uint32_t i = 0; i < told->rank && i < 8; i++) told->sizes[i] = type.layout.sizes[i];
  snprintf(told->kind, sizeof told->kind, "type %d", type.type);
  for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
    if (TYPES[i].type == type.type) {
      snprintf(told->kind, sizeof told->kind, "%s", TYPES[i].name);
      told->bytes = TYPES[i].bytes;
    }
}

static void create_buffers(void) {
  CALL(LiteRtGetNumSignatureInputs, signature, &input_count);
  CALL(LiteRtGetNumSignatureOutputs, signature, &output_count);
  if (input_count > MOST_TENSORS || output_count > MOST_TENSORS) fail(4, "over %d inputs or outputs", MOST_TENSORS);
  for (size_t i = 0; i < input_count + output_count; i++) {
    bool in = i < input_count;
    size_t at = in ? i : i - input_count;
    Handle tensor, needs;
    const char *name = "";
    TensorType type;
    memset(&type, 0, sizeof type);
    if (in) {
      CALL(LiteRtGetSignatureInputTensorByIndex, signature, at, &tensor);
      CALL(LiteRtGetCompiledModelInputBufferRequirements, compiled, (size_t)0, at, &needs);
      CALL(LiteRtGetSignatureInputName, signature, at, &name);
    } else {
      CALL(LiteRtGetSignatureOutputTensorByIndex, signature, at, &tensor);
      CALL(LiteRtGetCompiledModelOutputBufferRequirements, compiled, (size_t)0, at, &needs);
      CALL(LiteRtGetSignatureOutputName, signature, at, &name);
    }
    CALL(LiteRtGetRankedTensorType, tensor, &type);
    CALL(LiteRtCreateManagedTensorBufferFromRequirements, environment, &type, needs,
         in ? &inputs[at] : &outputs[at]);
    describe(tensor, name, in ? &input_types[at] : &output_types[at]);
  }
}

static void add_option(Handle all, const char *identifier, const char *text) {
  Handle option;
  CALL(LiteRtCreateOpaqueOptions, identifier, strdup(text), free, &option);
  CALL(LiteRtAddOpaqueOptions, all, option);
}

static void open_library(void) {
  library = dlopen(options.library, RTLD_NOW);
  if (!library) fail(3, "%s", dlerror());
  run_model = symbol("LiteRtRunCompiledModel");
}

static void compile(const uint8_t *content, size_t size) {
  Handle model, all;
  char text[128];
  bool plain = options.ops && !strcmp(options.ops, "node");
  int accelerators = 1; /* the CPU's */
  if (options.delegate && !strcmp(options.delegate, "none")) plain = true;
  else if (options.delegate && !strcmp(options.delegate, "gpu")) accelerators = 1 | 2;
  else if (options.delegate && strcmp(options.delegate, "xnnpack"))
    fail(2, "this runner has no delegate %s; it has xnnpack, gpu and none", options.delegate);
  CALL(LiteRtCreateEnvironment, 0, NULL, &environment);
  CALL(LiteRtCreateModelFromBuffer, environment, content, size, &model);
  CALL(LiteRtCreateOptions, &all);
  CALL(LiteRtSetOptionsHardwareAccelerators, all, accelerators);
  snprintf(text, sizeof text, "num_threads = %ld\n%s", options.threads,
           plain ? "kernel_mode = \"builtin\"\n" : "");
  add_option(all, "xnnpack", text);
  if (options.ops) add_option(all, "runtime_options_string", "enable_profiling = true\n");
  CALL(LiteRtCreateCompiledModel, environment, model, all, &compiled);
  CALL(LiteRtGetModelSignature, model, (size_t)0, &signature);
  create_buffers();
  if (options.ops) CALL(LiteRtCompiledModelGetProfiler, compiled, &profiler);
}

/* As benchmark.py has it: the delegate is what the runtime's own log line names. */
static void compile_logged(const uint8_t *content, size_t size, char *delegate, size_t room) {
  static const char before[] = "Created TensorFlow Lite ", after[] = " delegate";
  int log = memfd_create("log", 0);
  terminal = dup(2);
  if ((logged = log) >= 0) dup2(log, 2);
  compile(content, size);
  end_capture();
  snprintf(delegate, room, "unknown");
  off_t length = log < 0 ? 0 : lseek(log, 0, SEEK_END);
  char *text = calloc(1, (size_t)length + 1), *from = NULL, *to = NULL;
  if (length && pread(log, text, (size_t)length, 0) == length && (from = strstr(text, before)))
    to = strstr(from += sizeof before - 1, after);
  if (to) snprintf(delegate, room, "%.*s", (int)(to - from), from);
  else if (length) snprintf(delegate, room, "none");
  free(text);
}

static void invoke(void) {
  int status = run_model(compiled, 0, input_count, inputs, output_count, outputs);
  if (status) fail(4, "LiteRT %s fails to run the model: status %d", options.version, status);
}

/* Random pixels over the whole range of an integer, in [0, 255] of a float; else zeros. */
static void fill_inputs(char *told, size_t room) {
  uint64_t state = (uint64_t)options.seed * 2 + 1;
  size_t used = 0;
  for (size_t i = 0; i < input_count; i++) {
    Described *type = &input_types[i];
    uint8_t *bytes;
    size_t size;
    CALL(LiteRtGetTensorBufferSize, inputs[i], &size);
    CALL(LiteRtLockTensorBuffer, inputs[i], (void **)&bytes, 1);
    bool integer = type->type == 3 || type->type == 9 || type->type == 7, real = type->type == 1;
    memset(bytes, 0, size);
    for (size_t at = 0; (integer || real) && at + (real ? 4 : 1) <= size; at += real ? 4 : 1) {
      state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
      if (real) {
        float value = (float)(state >> 40) * (255.0f / 16777216.0f);
        memcpy(bytes + at, &value, 4);
      } else bytes[at] = (uint8_t)(state >> 56);
    }
    CALL(LiteRtUnlockTensorBuffer, inputs[i]);
    used += (size_t)snprintf(told + used, used < room ? room - used : 0, "%s", i ? "; " : "");
    size_t left = used < room ? room - used : 0;
    const char *range = integer ? "over its full range" : "in [0, 255]";
    used += (size_t)(integer || real
                         ? snprintf(told + used, left, "random pixels of the C runner, seed %ld, %s %s",
                                    options.seed, type->kind, range)
                         : snprintf(told + used, left, "zeros, %s", type->kind));
  }
}

/* ---- what is measured ------------------------------------------------------------------------*/

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static double median(const int64_t *samples, long count) {
  int64_t *sorted = malloc((size_t)count * sizeof *sorted);
  memcpy(sorted, samples, (size_t)count * sizeof *sorted);
  qsort(sorted, (size_t)count, sizeof *sorted, ascending);
  double found = (double)(sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
  free(sorted);
  return found;
}

static void print_string(const char *text) {
  putchar('"');
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') putchar('\\');
    if ((unsigned char)*text < 0x20) printf("\\u%04x", (unsigned)(unsigned char)*text);
    else putchar(*text);
  }
  putchar('"');
}

static void print_samples(const char *name, const int64_t *samples, long count) {
  printf(", \"%s\": [", name);
  for (long i = 0; i < count; i++) printf("%s%lld", i ? ", " : "", (long long)samples[i]);
  putchar(']');
}

static void print_tensors(const char *name, const Described *types, size_t count) {
  printf(", \"%s\": [", name);
  for (size_t i = 0; i < count; i++) {
    printf("%s{\"name\": ", i ? ", " : "");
    print_string(types[i].name);
    printf(", \"shape\": [");
    for (uint32_t d = 0; d < types[i].rank; d++) printf("%s%lld", d ? ", " : "", (long long)types[i].sizes[d]);
    printf("], \"dtype\": \"%s\"}", types[i].kind);
  }
  putchar(']');
}

static int64_t timed_invoke(void) {
  int64_t start = now();
  invoke();
  return now() - start;
}

/* Until the medians of two windows differ by less than 2 %, as benchmark.py has it. */
static void warm_up(void) {
  int64_t *runs = malloc(WARMUP_LIMIT_RUNS * sizeof *runs), spent = 0;
  long count = 0, window = 20;
  double before = 0;
  bool steady = false;
  while (!steady && (double)spent < options.warm_up * 1e9 && count < WARMUP_LIMIT_RUNS) {
    runs[count] = timed_invoke();
    spent += runs[count++];
    if (count == 1 && runs[0] > 50000000) window = 5;
    if (count % window) continue;
    double after = median(runs + count - window, window), change = after - before;
    bool close = before > 0 && (change < 0 ? -change : change) < STEADY_TOLERANCE * before;
    steady = close && (double)spent >= WARMUP_SECONDS * 1e9;
    before = after;
  }
  print_samples("warmup_ns", runs, count);
  printf(", \"warmup_runs\": %ld, \"window\": %ld, \"steady\": %s", count, window, steady ? "true" : options.warm_up > 0 ? "false" : "null");
  free(runs);
}

/* What the whole device draws now, in watts, from its battery's current and voltage; -1 without. */
static double power(void) {
  char pattern[512];
  double most = -1;
  glob_t found;
  snprintf(pattern, sizeof pattern, "%s/*", options.supplies);
  if (glob(pattern, 0, NULL, &found)) return most;
  for (size_t i = 0; i < found.gl_pathc; i++) {
    static const char *const names[] = {"current_now", "voltage_now"};
    double product = 1;
    for (int n = 0; n < 2; n++) {
      char path[640];
      long value;
      snprintf(path, sizeof path, "%s/%s", found.gl_pathv[i], names[n]);
      FILE *file = fopen(path, "r");
      product = file && fscanf(file, "%ld", &value) == 1 ? product * (double)value / 1e6 : NAN;
      if (file) fclose(file);
    }
    if (fabs(product) > most) most = fabs(product); /* false of NAN */
  }
  globfree(&found);
  return most;
}

static void time_runs(void) {
  long room = 1024, count = 0, asked = 0, told = 0;
  double watts = 0;
  int64_t *samples = malloc((size_t)room * sizeof *samples), total = 0;
  const char *stopped = NULL;
  while (!stopped) {
    if (count == room) samples = realloc(samples, (size_t)(room *= 2) * sizeof *samples);
    samples[count] = timed_invoke();
    total += samples[count++];
    if ((double)total >= POWER_SECONDS * 1e9 * (double)(asked + 1)) {
      double now_w = power();
      asked++;
      if (now_w >= 0) { watts += now_w; told++; }
    }
    if (count >= options.min_runs && (double)total >= options.min_seconds * 1e9) stopped = "minimum";
    else if ((double)total >= options.max_seconds * 1e9) stopped = "max-seconds";
    else if (count >= options.max_runs) stopped = "max-runs";
  }
  print_samples("samples_ns", samples, count);
  printf(", \"stopped_by\": \"%s\"", stopped);
  if (told) printf(", \"power_w\": %.9g", watts / (double)told);
  else printf(", \"power_w\": null");
  free(samples);
}

/* Every event of every run: its operator, and its time in whole microseconds. */
static void time_operators(void) {
  struct { char name[160]; int type; uint64_t index; int64_t *us; long run; } *found =
      calloc(MOST_OPERATORS, sizeof *found);
  int64_t *samples = malloc((size_t)options.min_runs * sizeof *samples), total = 0;
  long known = 0, runs = 0;
  while (runs < options.min_runs && (double)total < options.max_seconds * 1e9) {
    int count = 0;
    CALL(LiteRtResetProfiler, profiler);
    CALL(LiteRtStartProfiler, profiler);
    total += samples[runs++] = timed_invoke();
    CALL(LiteRtStopProfiler, profiler);
    CALL(LiteRtGetNumProfilerEvents, profiler, &count);
    Event *events = calloc((size_t)count + 1, sizeof *events);
    CALL(LiteRtGetProfilerEvents, profiler, count, events);
    for (int e = 0, at = 0; e < count; e++, at++) {
      /* Runs repeat the same events in the same order: the search starts where the last ended. A
       * delegate counts its operators anew in each of its parts: one event of a run is one row's. */
      const char *tag = events[e].tag ? events[e].tag : "";
      long row = -1;
      for (long step = 0; step < known && row < 0; step++) {
        long candidate = (at + step) % known;
        if (found[candidate].run < runs && found[candidate].type == events[e].type &&
            found[candidate].index == events[e].index &&
            !strncmp(found[candidate].name, tag, sizeof found->name - 1))
          row = candidate;
      }
      if (row < 0) {
        if (known == MOST_OPERATORS) fail(4, "over %d operators", MOST_OPERATORS);
        row = known++;
        snprintf(found[row].name, sizeof found->name, "%s", tag);
        found[row].type = events[e].type;
        found[row].index = events[e].index;
        found[row].us = calloc((size_t)options.min_runs, sizeof(int64_t));
      }
      at = (int)row;
      found[row].us[runs - 1] = (int64_t)events[e].elapsed_us;
      found[row].run = runs;
    }
    free(events);
  }
  print_samples("samples_ns", samples, runs);
  printf(", \"operators\": [");
  for (long row = 0; row < known; row++) {
    printf("%s{\"name\": ", row ? ", " : "");
    print_string(found[row].name);
    printf(", \"type\": %d, \"index\": %llu", found[row].type, (unsigned long long)found[row].index);
    print_samples("us", found[row].us, runs);
    putchar('}');
  }
  putchar(']');
}

/* One inference for each input set of the file; the raw outputs one after another. */
static void write_outputs(void) {
  size_t size, used = 0;
  long images = 0;
  uint8_t *given = read_file(options.inputs, &size);
  FILE *file = fopen(options.outputs, "wb");
  if (!file) fail(3, "file %s: %s", options.outputs, strerror(errno));
  while (used < size) {
    for (size_t i = 0; i < input_count; i++) {
      size_t bytes = (size_t)input_types[i].bytes;
      void *there;
      for (uint32_t d = 0; d < input_types[i].rank; d++) bytes *= (size_t)input_types[i].sizes[d];
      if (!bytes || size - used < bytes)
        fail(2, "--inputs has %zu bytes, no multiple of the inputs of the model", size);
      CALL(LiteRtLockTensorBuffer, inputs[i], &there, 1);
      memcpy(there, given + used, bytes);
      CALL(LiteRtUnlockTensorBuffer, inputs[i]);
      used += bytes;
    }
    invoke();
    images++;
    for (size_t i = 0; i < output_count; i++) {
      size_t bytes = (size_t)output_types[i].bytes;
      void *there;
      for (uint32_t d = 0; d < output_types[i].rank; d++) bytes *= (size_t)output_types[i].sizes[d];
      CALL(LiteRtLockTensorBuffer, outputs[i], &there, 0);
      bool written = fwrite(there, 1, bytes, file) == bytes;
      CALL(LiteRtUnlockTensorBuffer, outputs[i]);
      if (!written) fail(3, "file %s: %s", options.outputs, strerror(errno));
    }
  }
  if (fclose(file)) fail(3, "file %s: %s", options.outputs, strerror(errno));
  free(given);
  printf(", \"images\": %ld", images);
}

int main(int count, char **words) {
  char hash[65], told[1024] = "", delegate[64];
  size_t size;
  parse(count, words);
  if (options.cpus) pin(options.cpus);
  int64_t start = now();
  open_library();
  double import_ms = milliseconds(start);
  long baseline = status_bytes("VmRSS");
  const char *source = options.memory ? reset_peak() : NULL;
  uint8_t *content = read_file(options.model, &size);
  sha256(content, size, hash);
  start = now();
  compile_logged(content, size, delegate, sizeof delegate);
  double init_ms = milliseconds(start);
  fill_inputs(told, sizeof told);
  printf("{\"runtime\": \"ai-edge-litert\", \"call\": \"LiteRtRunCompiledModel\", \"runtime_version\": ");
  print_string(options.version);
  printf(", \"threads\": %ld, \"model_sha256\": \"%s\", \"model_bytes\": %zu, \"input\": \"%s\"",
         options.threads, hash, size, told);
  print_tensors("inputs", input_types, input_count);
  print_tensors("outputs", output_types, output_count);
  if (options.memory) {
    for (int i = 0; i < MEMORY_RUNS; i++) invoke();
    printf(", \"peak_bytes\": %ld, \"baseline_bytes\": %ld, \"source\": \"%s\"", status_bytes("VmHWM"),
           baseline, source);
  } else if (options.inputs) {
    write_outputs();
  } else {
    start = now();
    invoke();
    printf(", \"import_ms\": %.6f, \"init_ms\": %.6f, \"first_ms\": %.6f", import_ms, init_ms, milliseconds(start));
    warm_up();
    if (options.ops) time_operators();
    else time_runs();
  }
  printf(", \"delegate\": \"%s\", \"delegated_share\": null}\n", delegate);
  return fflush(stdout) ? 3 : 0;
}
