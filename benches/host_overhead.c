/* What a step costs the host over the C ABI: store and decode enqueued, then recorded as a kvf_step, then replayed from a graph.
 *
 *   cc -std=c11 -O2 -Iruntime/include benches/host_overhead.c target/release/libruntime.a -ldl -lgcc_s -lrt -lpthread -lm -lc
 *
 * 32 sequences of up to 4096 tokens, 32 query heads, 8 kv heads, D 128, one layer. Steps are enqueued in bursts that
 * fit the driver's queue, so that the device never makes the host wait; the median of bursts counts. `bare_launch_us` is
 * the driver's own cost for one kernel that does nothing, in the same run, then with as many arguments as decode has, then also with
 * the attribute of its launch: a store is one launch, decode one or two. The recorded step and the replayed graph must give the bits of the enqueued step, also after lengths have changed on the device. Rows go to KVF_RESULTS,
 * a JSON object a line. Without a GPU it prints SKIPPED. */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kvfuse.h"

enum { D = 128, HEADS = 32, KV_HEADS = 8, PAGE = 64, BATCH = 32, STRIDE = 64, BURST = 64, BURSTS = 40 };

#define OK(call) do { int rc_ = (call); if (rc_) { printf("FAILED %s: %s: %s\n", #call, kvf_status_str(rc_), kvf_last_error()); exit(1); } } while (0)
#define CU(call) do { int rc_ = (call); if (rc_) { printf("FAILED %s: CUDA error %d\n", #call, rc_); exit(1); } } while (0)
#define LOAD(ret, name, symbol, ...) ret (*name)(__VA_ARGS__) = (ret (*)(__VA_ARGS__))dlsym(cuda, symbol)

/* CUlaunchConfig and CUlaunchAttribute of the driver. */
struct attribute { int id; char pad[4]; union { int value; char bytes[64]; } of; };
struct config { unsigned grid[3], block[3], shared; void *stream; struct attribute *attributes; unsigned count; };

static kvf_plan *plan;
static kvf_step *step;
static kvf_cache cache;
static kvf_store_args store;
static kvf_decode_args decode;
static void *stream, *graph;
static int (*wait_for)(void *), (*replay)(void *, void *);
static int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
static int (*launch_ex)(const struct config *, void *, void **, void **);
static void *nothing_kernel, *twenty_kernel;
/* Kernels that do nothing, with one argument and with as many as decode has. */
static const char nothing_text[] = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry nothing(.param .u64 a) { ret; }\n"
    ".visible .entry twenty(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d, .param .u64 e, .param .u64 f, .param .u64 g, .param .u64 h, .param .u64 i, .param .u64 j,"
    ".param .u32 k, .param .u32 l, .param .u32 m, .param .u32 n, .param .u32 o, .param .u32 p, .param .u32 q, .param .u32 r, .param .u32 s, .param .u32 t) { ret; }\n";

static void enqueue_store(void) { OK(kvf_store(plan, &cache, &store, stream)); }
static void enqueue_decode(void) { OK(kvf_decode(plan, &cache, &decode, stream)); }
static void enqueue_both(void) { enqueue_store(), enqueue_decode(); }
static void enqueue_nothing(void) {
    uint64_t argument = 0;
    void *arguments[] = {&argument};
    CU(launch(nothing_kernel, 256, 1, 1, 256, 1, 1, 0, stream, arguments, NULL));
}
static void enqueue_twenty(void) {
    uint64_t value = 0;
    void *arguments[20];
    for (int i = 0; i < 20; i++) arguments[i] = &value;
    CU(launch(twenty_kernel, 256, 1, 1, 256, 1, 1, 0, stream, arguments, NULL));
}
/* As the kernels of decode are launched: before their predecessor has ended. */
static void enqueue_early(void) {
    uint64_t value = 0;
    void *arguments[20];
    for (int i = 0; i < 20; i++) arguments[i] = &value;
    struct attribute early = {.id = 6, .of.value = 1};
    struct config config = {.grid = {256, 1, 1}, .block = {256, 1, 1}, .stream = stream, .attributes = &early, .count = 1};
    CU(launch_ex(&config, twenty_kernel, arguments, NULL));
}
static void launch_step(void) { OK(kvf_step_launch(step, stream)); }
static void replay_graph(void) { CU(replay(graph, stream)); }

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of the host for one `call`. */
static double host_us(void (*call)(void)) {
    double each[BURSTS];
    for (int i = -4; i < BURSTS; i++) {
        double begin = now_us();
        for (int n = 0; n < BURST; n++) call();
        double took = (now_us() - begin) / BURST;
        if (i >= 0) each[i] = took;
        CU(wait_for(stream));
    }
    qsort(each, BURSTS, sizeof *each, ascending);
    return each[BURSTS / 2];
}

static void report(const char *codec, const char *device, double create, double again) {
    double s = host_us(enqueue_store), d = host_us(enqueue_decode), both = host_us(enqueue_both), one = host_us(launch_step), r = host_us(replay_graph), bare = host_us(enqueue_nothing), twenty = host_us(enqueue_twenty), early = launch_ex ? host_us(enqueue_early) : 0.0;
    char row[640];
    snprintf(row, sizeof row, "{\"bench\": \"host_overhead\", \"codec\": \"%s\", \"batch\": %d, \"store_us\": %.2f, \"decode_us\": %.2f, \"step_us\": %.2f, \"recorded_step_us\": %.2f, "
             "\"replay_us\": %.2f, \"bare_launch_us\": %.2f, \"bare_20_arguments_us\": %.2f, \"bare_early_us\": %.2f, \"plan_ms\": %.2f, \"second_plan_ms\": %.2f, \"device\": \"%s\"}", codec, BATCH, s, d, both, one, r, bare, twenty, early, create, again, device);
    puts(row);
    const char *path = getenv("KVF_RESULTS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) fprintf(file, "%s\n", row), fclose(file);
}

int main(int argc, char **argv) {
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    int (*init)(unsigned) = cuda ? (int (*)(unsigned))dlsym(cuda, "cuInit") : NULL;
    if (!init || init(0)) return puts("SKIPPED host_overhead: no GPU or driver"), 0;
    LOAD(int, retain, "cuDevicePrimaryCtxRetain", void **, int);
    LOAD(int, set_current, "cuCtxSetCurrent", void *);
    LOAD(int, name_of, "cuDeviceGetName", char *, int, int);
    LOAD(int, stream_create, "cuStreamCreate", void **, unsigned);
    LOAD(int, alloc, "cuMemAlloc_v2", uint64_t *, size_t);
    LOAD(int, clear, "cuMemsetD8_v2", uint64_t, unsigned char, size_t);
    LOAD(int, to_device, "cuMemcpyHtoD_v2", uint64_t, const void *, size_t);
    LOAD(int, to_host, "cuMemcpyDtoH_v2", void *, uint64_t, size_t);
    LOAD(int, begin_capture, "cuStreamBeginCapture_v2", void *, int);
    LOAD(int, end_capture, "cuStreamEndCapture", void *, void **);
    LOAD(int, instantiate, "cuGraphInstantiateWithFlags", void **, void *, unsigned long long);
    LOAD(int, synchronize, "cuStreamSynchronize", void *);
    LOAD(int, graph_launch, "cuGraphLaunch", void *, void *);
    LOAD(int, load_module, "cuModuleLoadData", void **, const void *);
    LOAD(int, find_function, "cuModuleGetFunction", void **, void *, const char *);
    wait_for = synchronize, replay = graph_launch;
    *(void **)&launch = dlsym(cuda, "cuLaunchKernel");
    *(void **)&launch_ex = dlsym(cuda, "cuLaunchKernelEx");
    char device[128] = "";
    void *context, *captured, *module;
    CU(retain(&context, 0)); CU(set_current(context)); CU(name_of(device, sizeof device, 0)); CU(stream_create(&stream, 1));
    CU(load_module(&module, nothing_text)); CU(find_function(&nothing_kernel, module, "nothing")); CU(find_function(&twenty_kernel, module, "twenty"));
    for (int arg = 1; arg < (argc > 1 ? argc : 2); arg++) {
        const char *name = argc > 1 ? argv[arg] : "int4";
        kvf_codec *codec;
        uint64_t block, need, base, rows, slots, q, table, lens, out, workspace, status;
        OK(kvf_codec_open(name, &codec));
        kvf_plan_desc desc = {.struct_size = sizeof desc, .abi_version = KVF_ABI_VERSION, .codec = codec, .head_dim = D, .heads = HEADS,
                              .kv_heads = KV_HEADS, .page_tokens = PAGE, .dtype = KVF_DTYPE_BF16, .flags = KVF_PLAN_STORE | KVF_PLAN_DECODE};
        double begin = now_us();
        OK(kvf_plan_create(&desc, &plan));
        double create = (now_us() - begin) * 1e-3;
        OK(kvf_plan_destroy(plan));
        begin = now_us();
        OK(kvf_plan_create(&desc, &plan));
        double again = (now_us() - begin) * 1e-3;
        OK(kvf_block_bytes(codec, D, PAGE, &block));
        OK(kvf_workspace_bytes(plan, BATCH, STRIDE, &need));
        uint64_t pages = BATCH * STRIDE, bytes = pages * KV_HEADS * block;
        static uint16_t numbers[BATCH * HEADS * D], first[BATCH * HEADS * D], second[BATCH * HEADS * D];
        static int32_t own[BATCH * STRIDE], lengths[BATCH];
        static int64_t places[BATCH];
        for (int i = 0; i < BATCH * HEADS * D; i++) numbers[i] = 0x3f00 + (i * 37 & 0x80ff);
        for (int i = 0; i < BATCH * STRIDE; i++) own[i] = i;
        for (int b = 0; b < BATCH; b++) lengths[b] = 100 + b, places[b] = (int64_t)(b * STRIDE + 1) * PAGE + 35 + b % 29;
        CU(alloc(&base, bytes)); CU(clear(base, 0, bytes)); CU(alloc(&rows, sizeof numbers)); CU(alloc(&slots, sizeof places));
        CU(alloc(&q, sizeof numbers)); CU(alloc(&table, sizeof own)); CU(alloc(&lens, sizeof lengths)); CU(alloc(&out, sizeof numbers));
        CU(alloc(&workspace, need)); CU(alloc(&status, 16)); CU(clear(status, 0, 16));
        CU(to_device(rows, numbers, sizeof numbers)); CU(to_device(q, numbers, sizeof numbers)); CU(to_device(table, own, sizeof own));
        CU(to_device(lens, lengths, sizeof lengths)); CU(to_device(slots, places, sizeof places));
        cache = (kvf_cache){.struct_size = sizeof cache, .abi_version = KVF_ABI_VERSION, .base = (void *)base, .bytes = bytes, .pages = (int64_t)pages,
                            .page_tokens = PAGE, .kv_heads = KV_HEADS, .head_dim = D};
        store = (kvf_store_args){.struct_size = sizeof store, .abi_version = KVF_ABI_VERSION, .k = (void *)rows, .v = (void *)rows, .slots = (void *)slots,
                                 .status = (void *)status, .tokens = BATCH, .k_token_stride = KV_HEADS * D, .k_head_stride = D,
                                 .v_token_stride = KV_HEADS * D, .v_head_stride = D};
        decode = (kvf_decode_args){.struct_size = sizeof decode, .abi_version = KVF_ABI_VERSION, .q = (void *)q, .table = (void *)table, .lens = (void *)lens,
                                   .out = (void *)out, .workspace = (void *)workspace, .workspace_bytes = need, .status = (void *)status, .batch = BATCH,
                                   .table_stride = STRIDE, .scale = 0.08838835f};
        CU(begin_capture(stream, 1)); enqueue_both(); CU(end_capture(stream, &captured)); CU(instantiate(&graph, captured, 0));
        /* Lengths change on the device: the graph follows, with the bits of an enqueued step. */
        for (int b = 0; b < BATCH; b++) lengths[b] = 1000 + 90 * b;
        CU(to_device(lens, lengths, sizeof lengths));
        enqueue_both(); CU(wait_for(stream)); CU(to_host(first, out, sizeof first)); CU(clear(out, 0, sizeof first));
        replay_graph(); CU(wait_for(stream)); CU(to_host(second, out, sizeof second));
        static const uint16_t nothing[BATCH * HEADS * D];
        if (!memcmp(first, nothing, sizeof first)) return puts("FAILED the step wrote nothing"), 1;
        if (memcmp(first, second, sizeof first)) return puts("FAILED the replayed step has other bits"), 1;
        OK(kvf_step_create(plan, &cache, &store, &decode, &step));
        CU(clear(out, 0, sizeof second)); launch_step(); CU(wait_for(stream)); CU(to_host(second, out, sizeof second));
        if (memcmp(first, second, sizeof first)) return puts("FAILED the recorded step has other bits"), 1;
        report(name, device, create, again);
        OK(kvf_step_destroy(step));
        OK(kvf_plan_destroy(plan));
        OK(kvf_codec_close(codec));
    }
    return 0;
}
