/* A libcuda that runs on the CPU, so that everything around a kernel is tested where there is no GPU:
 * arguments, order, graphs, context handling, and what happens when any one call fails.
 *
 * It finds every kernel of a cubin and knows its parameters; it emulates one, saxpy(y, x, a, n): y[i] = a * x[i] + y[i], and of the
 * others only counts the launches. A call is an error when it may not happen (a wait during a capture, a launch without a current
 * context, a freed address, a stream of another context).
 * FAKE_CUDA_FAIL=n makes the n-th call fail, fake_fail_at(n) the n-th from now; a failing release still
 * releases. FAKE_CUDA_DEVICES=n lists n devices. fake_calls(), fake_live(), fake_fired() and fake_launches() let the test look inside. */
#include <elf.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 1, OOM = 2, NOT_INITIALISED = 3, FOREIGN = 400, NO_DEVICE = 100, BAD_DEVICE = 101, NO_CONTEXT = 201, NOT_FOUND = 500, DESTROYED = 709, CAPTURING = 900, INJECTED = 999 };
enum { MAX_LIVE = 4096, MAX_OPS = 64 };

typedef struct { uint64_t y, x; float a; int32_t n; } op; /* n below 0: a kernel that is not emulated */
typedef struct stream { void *context; int capturing, count; op ops[MAX_OPS]; } stream;
typedef struct { int count; op ops[MAX_OPS]; } graph;
typedef struct { int saxpy, shared, params, sizes[64]; } function;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { uint64_t at, bytes; } memory[MAX_LIVE];
static long calls, live, launches, fail_at = -2;
static _Thread_local void *current;
static char contexts[16], destroyed[16];
static pid_t opened; /* by that process: a child that it forks has no CUDA */
static stream default_stream;

long fake_calls(void) { return __atomic_load_n(&calls, __ATOMIC_SEQ_CST); }
long fake_live(void) { return __atomic_load_n(&live, __ATOMIC_SEQ_CST); }
void fake_fail_at(long n) { fail_at = n > 0 ? fake_calls() + n : -1; }
long fake_launches(void) { return __atomic_load_n(&launches, __ATOMIC_SEQ_CST); }
int fake_fired(void) { return fail_at > 0 && fake_calls() >= fail_at; }

/* Every entry passes here. */
static int failing(void) {
    long n = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (fail_at == -2) fail_at = getenv("FAKE_CUDA_FAIL") ? atol(getenv("FAKE_CUDA_FAIL")) : -1;
    return n == fail_at;
}
static int unusable(void) { return opened != getpid() ? NOT_INITIALISED : current && destroyed[(char *)current - contexts] ? DESTROYED : OK; }
#define ENTER do { if (failing()) return INJECTED; } while (0)
#define ENTER_CURRENT do { ENTER; if (unusable()) return unusable(); if (!current) return NO_CONTEXT; } while (0)
#define STREAM(s) stream *self = (s) ? (stream *)(s) : &default_stream
#define OWN_STREAM if (self->context && self->context != current) return FOREIGN

static void *make(size_t bytes) { __atomic_add_fetch(&live, 1, __ATOMIC_SEQ_CST); return calloc(1, bytes); }
static int unmake(void *p) { __atomic_sub_fetch(&live, 1, __ATOMIC_SEQ_CST); free(p); return failing() ? INJECTED : OK; }

static int inside(uint64_t at, uint64_t bytes) {
    pthread_mutex_lock(&lock);
    int found = 0;
    for (int i = 0; i < MAX_LIVE && !found; i++) found = memory[i].at && at >= memory[i].at && at + bytes <= memory[i].at + memory[i].bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

/* Errors. */
int cuGetErrorString(int code, const char **text) { *text = code == INJECTED ? "injected failure" : code == OOM ? "out of memory" : "some error"; return OK; }
int cuGetErrorName(int code, const char **text) { return cuGetErrorString(code, text); }

/* Devices and contexts. */
int cuInit(unsigned flags) { (void)flags; ENTER; if (!opened) opened = getpid(); return opened != getpid() ? NOT_INITIALISED : getenv("FAKE_CUDA_NO_DEVICE") ? NO_DEVICE : OK; }
int cuDriverGetVersion(int *version) { ENTER; *version = 13000; return OK; }
static int devices(void) { return getenv("FAKE_CUDA_DEVICES") ? atoi(getenv("FAKE_CUDA_DEVICES")) : 1; }
int cuDeviceGetCount(int *count) { ENTER; *count = devices(); return OK; }
int cuDeviceGet(int *device, int ordinal) { ENTER; *device = ordinal; return ordinal < 0 || ordinal >= devices() ? BAD_DEVICE : OK; }
int cuDeviceGetName(char *name, int size, int device) { ENTER; snprintf(name, size, "fake %d", device); return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    ENTER;
    switch (attribute) {
    case 75: *value = 9; break;            /* capability major */
    case 76: *value = 0; break;            /* minor */
    case 16: *value = 4; break;            /* multiprocessors */
    case 38: *value = 1 << 20; break;      /* L2 */
    case 97: *value = 227 * 1024; break;   /* shared memory, opt-in */
    default: *value = 1;
    }
    return OK;
}
int cuDevicePrimaryCtxRetain(void **ctx, int device) { ENTER; *ctx = &contexts[device]; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; ENTER; return OK; }
int cuDevicePrimaryCtxReset_v2(int device) { ENTER; destroyed[device] = 1; return OK; }
int cuCtxGetCurrent(void **ctx) { ENTER; if (opened != getpid()) return NOT_INITIALISED; *ctx = current; return OK; }
int cuCtxSetCurrent(void *ctx) { ENTER; current = ctx; return OK; }
/* As the driver's: while any stream is being captured there is no waiting for all of them. */
static _Atomic int captures;
int cuCtxSynchronize(void) { ENTER_CURRENT; return captures ? CAPTURING : OK; }
int cuMemGetInfo_v2(size_t *available, size_t *total) { ENTER_CURRENT; *available = *total = 1 << 30; return OK; }

/* Memory. */
int cuMemAlloc_v2(uint64_t *at, size_t bytes) {
    ENTER_CURRENT;
    if (!bytes) return INVALID;
    if (bytes > 1u << 30) return OOM;
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < MAX_LIVE && memory[i].at) i++;
    if (i < MAX_LIVE) memory[i].at = *at = (uint64_t)(uintptr_t)make(bytes), memory[i].bytes = bytes;
    pthread_mutex_unlock(&lock);
    return i < MAX_LIVE ? OK : OOM;
}
int cuMemFree_v2(uint64_t at) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < MAX_LIVE && memory[i].at != at) i++;
    if (i < MAX_LIVE) memory[i].at = 0;
    pthread_mutex_unlock(&lock);
    return i < MAX_LIVE ? unmake((void *)(uintptr_t)at) : INVALID;
}
static int copy(void *to, const void *from, size_t bytes, uint64_t device) { if (!inside(device, bytes)) return INVALID; memmove(to, from, bytes); return OK; }
#define AT(address) ((void *)(uintptr_t)(address))
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { ENTER_CURRENT; return copy(AT(to), from, bytes, to); }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) { ENTER_CURRENT; return copy(to, AT(from), bytes, from); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *s) { STREAM(s); ENTER_CURRENT; return self->capturing ? CAPTURING : copy(AT(to), from, bytes, to); }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *s) { STREAM(s); ENTER_CURRENT; return self->capturing ? CAPTURING : copy(to, AT(from), bytes, from); }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *s) { STREAM(s); ENTER_CURRENT; return self->capturing || !inside(from, bytes) ? CAPTURING : copy(AT(to), AT(from), bytes, to); }
int cuMemsetD8_v2(uint64_t at, unsigned char byte, size_t bytes) { ENTER_CURRENT; if (!inside(at, bytes)) return INVALID; memset(AT(at), byte, bytes); return OK; }
int cuMemsetD8Async(uint64_t at, unsigned char byte, size_t bytes, void *s) { STREAM(s); return self->capturing ? CAPTURING : cuMemsetD8_v2(at, byte, bytes); }
int cuPointerGetAttribute(void *data, int attribute, uint64_t at) { ENTER_CURRENT; *(unsigned *)data = 2; return attribute == 2 && inside(at, 1) ? OK : INVALID; }

/* Modules. A module is a copy of the cubin; a function is what the section .nv.info.NAME says of a kernel. */
static size_t elf_bytes(const Elf64_Ehdr *e) { return e->e_shoff + (size_t)e->e_shnum * e->e_shentsize; }
int cuModuleLoadData(void **module, const void *image) {
    ENTER_CURRENT;
    if (memcmp(image, "\177ELF", 4)) return 200;
    *module = memcpy(make(elf_bytes(image)), image, elf_bytes(image));
    return OK;
}
int cuModuleUnload(void *module) { return unmake(module); }
int cuModuleGetFunction(void **f, void *module, const char *name) {
    static function functions[1024];
    static int count;
    ENTER_CURRENT;
    const char *image = module, wanted[] = ".nv.info.";
    const Elf64_Ehdr *e = module;
    const Elf64_Shdr *sections = (const void *)(image + e->e_shoff);
    for (int i = 0; i < e->e_shnum; i++) {
        const char *title = image + sections[e->e_shstrndx].sh_offset + sections[i].sh_name;
        if (strncmp(title, wanted, sizeof wanted - 1) || strcmp(title + sizeof wanted - 1, name)) continue;
        int slot = __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST);
        if (slot >= 1024) return OOM;
        function *own = &functions[slot];
        own->saxpy = !strcmp(name, "saxpy");
        const unsigned char *at = (const void *)(image + sections[i].sh_offset), *end = at + sections[i].sh_size;
        while (at + 4 <= end) {
            /* Format, attribute, and a size, or for formats below 4 a value in its place. 0x17 describes a parameter: index, ordinal, offset, size. */
            unsigned size = at[0] == 4 ? at[2] | at[3] << 8 : 0;
            if (at[0] == 4 && at[1] == 0x17) {
                int ordinal = at[8] | at[9] << 8;
                own->sizes[ordinal] = (at[14] | at[15] << 8) >> 2;
                if (ordinal >= own->params) own->params = ordinal + 1;
            }
            at += 4 + size;
        }
        *f = own;
        return OK;
    }
    return NOT_FOUND;
}
int cuFuncGetAttribute(int *value, int attribute, void *f) { (void)attribute, (void)f; ENTER; *value = 16; return OK; }
int cuFuncSetAttribute(void *f, int attribute, int value) { ENTER; if (attribute == 8) ((function *)f)->shared = value; return OK; }
int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, void *f, int threads, size_t shared, unsigned flags) {
    (void)f, (void)threads, (void)shared, (void)flags;
    ENTER;
    *blocks = 2;
    return OK;
}
int cuFuncGetParamInfo(void *f, size_t index, size_t *offset, size_t *size) {
    (void)offset;
    ENTER;
    if (index >= (size_t)((function *)f)->params) return INVALID;
    *size = ((function *)f)->sizes[index];
    return OK;
}

/* Streams, launches, graphs. */
static int apply(const op *o) {
    __atomic_add_fetch(&launches, 1, __ATOMIC_SEQ_CST);
    if (o->n < 0) return OK;
    if (!inside(o->y, 4u * o->n) || !inside(o->x, 4u * o->n)) return 700;
    float *y = AT(o->y), *x = AT(o->x);
    for (int i = 0; i < o->n; i++) y[i] = o->a * x[i] + y[i];
    return OK;
}
int cuStreamCreate(void **s, unsigned flags) { (void)flags; ENTER_CURRENT; *s = make(sizeof(stream)); ((stream *)*s)->context = current; return OK; }
int cuStreamDestroy_v2(void *s) { return unmake(s); }
int cuStreamSynchronize(void *s) { STREAM(s); ENTER_CURRENT; return self->capturing ? CAPTURING : OK; }
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **args, void **extra) {
    STREAM(s);
    ENTER_CURRENT;
    OWN_STREAM;
    if (!gx || !gy || !gz || !bx || !by || !bz || extra || (int)shared > (shared > 48 * 1024 ? ((function *)f)->shared : 48 * 1024)) return INVALID;
    op o = {.n = -1};
    if (((function *)f)->saxpy) o = (op){*(uint64_t *)args[0], *(uint64_t *)args[1], *(float *)args[2], *(int32_t *)args[3]};
    if (!self->capturing) return apply(&o);
    if (self->count == MAX_OPS) return OOM;
    self->ops[self->count++] = o;
    return OK;
}
typedef struct { unsigned gx, gy, gz, bx, by, bz, shared; void *stream, *attributes; unsigned count; } config;
int cuLaunchKernelEx(const config *c, void *f, void **args, void **extra) {
    return cuLaunchKernel(f, c->gx, c->gy, c->gz, c->bx, c->by, c->bz, c->shared, c->stream, args, extra);
}
int cuStreamBeginCapture_v2(void *s, int mode) { STREAM(s); ENTER_CURRENT; if (self->capturing || mode != 1) return INVALID; self->capturing = 1, self->count = 0, captures++; return OK; }
int cuStreamEndCapture(void *s, void **out) {
    STREAM(s);
    int was = self->capturing;
    self->capturing = 0; /* even when it fails */
    captures -= was;
    ENTER_CURRENT;
    if (!was) return INVALID;
    *out = NULL;
    graph *g = make(sizeof *g);
    g->count = self->count;
    memcpy(g->ops, self->ops, sizeof g->ops);
    *out = g;
    return OK;
}
int cuGraphInstantiateWithFlags(void **exec, void *g, unsigned long long flags) { (void)flags; ENTER; *exec = memcpy(make(sizeof(graph)), g, sizeof(graph)); return OK; }
int cuGraphUpload(void *exec, void *s) { (void)exec, (void)s; ENTER_CURRENT; return OK; }
int cuGraphLaunch(void *exec, void *s) {
    (void)s;
    ENTER_CURRENT;
    int rc = OK;
    for (int i = 0; i < ((graph *)exec)->count && !rc; i++) rc = apply(&((graph *)exec)->ops[i]);
    return rc;
}
int cuGraphExecDestroy(void *exec) { return unmake(exec); }
int cuGraphDestroy(void *g) { return unmake(g); }

/* Events. */
int cuEventCreate(void **event, unsigned flags) { ENTER_CURRENT; *event = make(1); *(char *)*event = flags == 0; return OK; }
int cuEventDestroy_v2(void *event) { return unmake(event); }
int cuEventRecord(void *event, void *s) { (void)event, (void)s; ENTER_CURRENT; return OK; }
int cuEventSynchronize(void *event) { (void)event; ENTER; return OK; }
int cuEventElapsedTime_v2(float *ms, void *a, void *b) { ENTER; *ms = 0.5f; return *(char *)a && *(char *)b ? OK : INVALID; }
int cuEventElapsedTime(float *ms, void *a, void *b) { return cuEventElapsedTime_v2(ms, a, b); }
