/* What a process goes through: threads, a second device, a fork, and a context that goes away under our plans. Needs a driver, ours or NVIDIA's.
 * Each must end in success or in an error with a text; the process lives on. */
#include "expect.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { D = 128, HEADS = 4, KV_HEADS = 2, PAGE = 32, PAGES = 4, BATCH = 2, STRIDE = 2, THREADS = 8, ROUNDS = 8 };
static int (*init)(unsigned), (*retain)(void **, int), (*set_current)(void *), (*get_current)(void **), (*stream_create)(void **, unsigned), (*stream_destroy)(void *);
static int (*wait_for)(void *), (*alloc)(void **, size_t), (*device_count)(int *), (*reset)(int), (*to_host)(void *, const void *, size_t), (*fill)(void *, unsigned char, size_t);

static kvf_codec *codec;
static kvf_plan *plan;
static void *memory[4]; /* of each device: cache, then everything else */
static uint64_t cache_bytes, need;
enum { ROOM = 1 << 20 };

static kvf_plan_desc desc(int device) {
    return (kvf_plan_desc){.struct_size = sizeof(kvf_plan_desc), .abi_version = KVF_ABI_VERSION, .codec = codec, .device = device, .head_dim = D,
        .heads = HEADS, .kv_heads = KV_HEADS, .page_tokens = PAGE, .dtype = KVF_DTYPE_F32, .flags = KVF_PLAN_STORE | KVF_PLAN_DECODE};
}
/* A store of no real token and a decode of no token: sound launches whatever the memory holds. */
static int launch(kvf_plan *p, char *base, void *stream) {
    char *room = base + cache_bytes;
    kvf_cache c = {.struct_size = sizeof c, .abi_version = KVF_ABI_VERSION, .base = base, .bytes = cache_bytes, .pages = PAGES, .page_tokens = PAGE, .kv_heads = KV_HEADS, .head_dim = D};
    kvf_store_args s = {.struct_size = sizeof s, .abi_version = KVF_ABI_VERSION, .k = room, .v = room, .slots = (int64_t *)(room + 65536), .status = (int32_t *)(room + 131072),
        .tokens = 3, .k_token_stride = KV_HEADS * D, .k_head_stride = D, .v_token_stride = KV_HEADS * D, .v_head_stride = D};
    kvf_decode_args a = {.struct_size = sizeof a, .abi_version = KVF_ABI_VERSION, .q = room, .table = (int32_t *)(room + 131072), .lens = (int32_t *)(room + 131072),
        .out = room + 262144, .workspace = room + 524288, .workspace_bytes = need, .status = (int32_t *)(room + 131072), .batch = BATCH, .table_stride = STRIDE, .scale = 1.0f};
    int rc = kvf_store(p, &c, &s, stream);
    return rc ? rc : kvf_decode(p, &c, &a, stream);
}

/* Threads share a plan, make their own, and keep their own last error. */
static void *work(void *stream) {
    long bad = 0;
    for (int i = 0; i < ROUNDS; i++) {
        kvf_plan_desc d = desc(0);
        kvf_plan *own;
        bad += launch(plan, memory[0], stream) != KVF_OK;
        d.heads = 3;
        bad += kvf_plan_create(&d, &own) != KVF_ERR_INVALID || !strstr(kvf_last_error(), "3 heads");
        d.heads = HEADS;
        bad += kvf_plan_create(&d, &own) != KVF_OK || launch(own, memory[0], stream) != KVF_OK || kvf_plan_destroy(own) != KVF_OK;
    }
    void *current;
    bad += get_current(&current) || current;
    return (void *)bad;
}

static void threads(void) {
    pthread_t each[THREADS];
    void *streams[THREADS], *bad;
    for (int i = 0; i < THREADS; i++) failures += stream_create(&streams[i], 1), pthread_create(&each[i], NULL, work, streams[i]);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(each[i], &bad);
        cases++;
        if (bad || wait_for(streams[i])) failures++, printf("FAILED thread %d: %ld calls\n", i, (long)bad);
        stream_destroy(streams[i]);
    }
}

/* Plans of a second device leave the first one current, and refuse its streams. */
static void second_device(void *first, void *its_stream) {
    int count = 0;
    device_count(&count);
    if (count < 2) return (void)printf("two devices: SKIPPED, there is one\n");
    kvf_plan_desc d = desc(1);
    kvf_plan *other;
    void *second, *stream, *current = NULL;
    GOOD(kvf_plan_create(&d, &other));
    get_current(&current);
    cases++;
    if (current != first) failures++, printf("FAILED a plan left another context current\n");
    if (retain(&second, 1) || set_current(second) || alloc(&memory[1], cache_bytes + ROOM) || fill(memory[1], 0, cache_bytes + ROOM) || stream_create(&stream, 1)) failures++;
    set_current(first);
    GOOD(launch(other, memory[1], stream));
    GOOD(launch(other, memory[1], NULL));
    expect("a stream of another device", launch(other, memory[1], its_stream), KVF_ERR_CUDA, "belongs to another device or context");
    GOOD(launch(plan, memory[0], its_stream));
    get_current(&current);
    cases++;
    if (current != first) failures++, printf("FAILED a launch left another context current\n");
    GOOD(kvf_plan_destroy(other));
}

/* CUDA does not live on in a child: its calls are errors, the reference works, and the parent does not notice. */
static void forked(void *stream) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        static _Alignas(16) float rows[KV_HEADS * D];
        int64_t slot = 0;
        int32_t status[4] = {0};
        void *bytes = aligned_alloc(16, cache_bytes);
        kvf_plan *own;
        kvf_plan_desc d = desc(0);
        kvf_cache c = {.struct_size = sizeof c, .abi_version = KVF_ABI_VERSION, .base = bytes, .bytes = cache_bytes, .pages = PAGES, .page_tokens = PAGE, .kv_heads = KV_HEADS, .head_dim = D};
        kvf_store_args s = {.struct_size = sizeof s, .abi_version = KVF_ABI_VERSION, .k = rows, .v = rows, .slots = &slot, .status = status, .tokens = 1};
        failures = 0;
        expect("a launch in a child", launch(plan, memory[0], stream), KVF_ERR_CUDA, "does not survive a fork");
        NOT(kvf_plan_create(&d, &own));
        GOOD(kvf_ref_store(codec, KVF_DTYPE_F32, &c, &s));
        GOOD(kvf_plan_destroy(plan));
        fflush(stdout);
        _exit(failures != 0);
    }
    int how = -1;
    waitpid(child, &how, 0);
    cases += 4;
    if (how) failures++, printf("FAILED in a forked child: %#x\n", how);
    GOOD(launch(plan, memory[0], stream));
}

/* cudaDeviceReset under a plan. */
static void context_destroyed(void) {
    if (reset(0)) return (void)printf("a context destroyed: SKIPPED, the driver refuses\n");
    expect("a launch without its context", launch(plan, memory[0], NULL), KVF_ERR_CUDA, "restart the process");
    GOOD(kvf_plan_destroy(plan));
}

int main(void) {
    void *driver = dlopen(getenv("KVF_TEST_FAKE") ? "libcuda.so" : "libcuda.so.1", RTLD_NOW | RTLD_GLOBAL), *context, *stream;
    uint64_t block;
    if (!driver) return printf("lives: SKIPPED, no libcuda\n"), 0;
#define LOAD(name, symbol) *(void **)(&name) = dlsym(driver, symbol)
    LOAD(init, "cuInit"); LOAD(retain, "cuDevicePrimaryCtxRetain"); LOAD(set_current, "cuCtxSetCurrent"); LOAD(get_current, "cuCtxGetCurrent");
    LOAD(stream_create, "cuStreamCreate"); LOAD(stream_destroy, "cuStreamDestroy_v2"); LOAD(wait_for, "cuStreamSynchronize"); LOAD(alloc, "cuMemAlloc_v2");
    LOAD(device_count, "cuDeviceGetCount"); LOAD(reset, "cuDevicePrimaryCtxReset_v2"); LOAD(to_host, "cuMemcpyDtoH_v2"); LOAD(fill, "cuMemsetD8_v2");
    GOOD(kvf_codec_open("int4", &codec));
    GOOD(kvf_block_bytes(codec, D, PAGE, &block));
    cache_bytes = block * PAGES * KV_HEADS;
    if (init(0) || retain(&context, 0) || set_current(context) || stream_create(&stream, 1)) return printf("lives: SKIPPED, no GPU\n"), 0;
    if (alloc(&memory[0], cache_bytes + ROOM) || fill(memory[0], 0, cache_bytes + ROOM)) return printf("no memory\n"), 1;
    kvf_plan_desc d = desc(0);
    GOOD(kvf_plan_create(&d, &plan));
    GOOD(kvf_workspace_bytes(plan, BATCH, STRIDE, &need));
    if (need > ROOM / 2) return printf("a workspace of %d bytes\n", (int)need), 1;
    GOOD(launch(plan, memory[0], stream));
    threads();
    second_device(context, stream);
    forked(stream);
    if (wait_for(stream)) failures++, printf("FAILED: the stream is broken\n");
    context_destroyed();
    printf("%d cases, %d failures\n", cases, failures);
    return failures != 0;
}
