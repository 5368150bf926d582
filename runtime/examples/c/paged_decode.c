/* An engine in miniature: it owns pages, memory and stream; kvfuse stores and attends.
 *
 *   make && ../../../target/paged_decode [codec]
 *   ../../../target/paged_decode kvfuse-4 ../../../assets/qwen3-tiny/kvfuse.calibration
 *
 * With a GPU the result is compared with the scalar reference: bit for bit where the codec promises it.
 * Without one the reference runs on two page permutations, which must not change a bit. It says which ran. */
#include <math.h>
#include <stdlib.h>

#include "driver.h"

enum { D = 128, HEADS = 8, KV_HEADS = 2, PAGE = 32, PAGES = 24, STRIDE = 8, BATCH = 2, TOKENS = 200 + 97 };

static struct problem {
    float k[TOKENS * KV_HEADS * D], v[TOKENS * KV_HEADS * D], q[BATCH * HEADS * D];
    int64_t slots[TOKENS];
    int32_t positions[TOKENS];
    int32_t table[BATCH * STRIDE], lens[BATCH];
} problem = {.lens = {200, 97}};

static struct result {
    float out[BATCH * HEADS * D], lse[BATCH * HEADS];
    int32_t status[4];
} first, second;

/* Of a kvfuse codec: what was fitted to a model of 6 layers, for the device that is used next. */
enum { LAYER = 3 };
static kvf_calibration *calibration;

/* The page allocator: gives each sequence its pages, in a random order, and each token its slot. */
static void give_pages(void) {
    int32_t pages[PAGES];
    for (int i = 0; i < PAGES; i++) pages[i] = i;
    for (int i = PAGES - 1; i > 0; i--) {
        int j = (int)((random_float() + 1.0f) * 0.5f * (i + 1)) % (i + 1), page = pages[i];
        pages[i] = pages[j], pages[j] = page;
    }
    for (int b = 0, token = 0; b < BATCH; b++) {
        int32_t *own = &problem.table[b * STRIDE];
        for (int i = 0; i < STRIDE; i++) own[i] = pages[b * STRIDE + i];
        for (int i = 0; i < problem.lens[b]; i++) problem.positions[token] = i, problem.slots[token++] = own[i / PAGE] * PAGE + i % PAGE;
    }
}

static kvf_cache cache_at(void *base, uint64_t bytes) {
    return (kvf_cache){.struct_size = sizeof(kvf_cache), .abi_version = KVF_ABI_VERSION, .base = base, .bytes = bytes,
                       .pages = PAGES, .page_tokens = PAGE, .kv_heads = KV_HEADS, .head_dim = D,
                       .layer = calibration ? LAYER : 0, .calibration = calibration};
}

/* The calls' arguments; `p` and `r` lie in host memory for the reference, in device memory for the GPU. */
static kvf_store_args store_args(struct problem *p, struct result *r) {
    return (kvf_store_args){.struct_size = sizeof(kvf_store_args), .abi_version = KVF_ABI_VERSION, .k = p->k, .v = p->v,
        .slots = p->slots, .status = r->status, .tokens = TOKENS, .k_token_stride = KV_HEADS * D, .k_head_stride = D,
        .v_token_stride = KV_HEADS * D, .v_head_stride = D, .positions = p->positions};
}

static kvf_decode_args decode_args(struct problem *p, struct result *r) {
    return (kvf_decode_args){.struct_size = sizeof(kvf_decode_args), .abi_version = KVF_ABI_VERSION, .q = p->q,
        .table = p->table, .lens = p->lens, .out = r->out, .lse = r->lse, .status = r->status, .batch = BATCH,
        .table_stride = STRIDE, .scale = 0.08838835f};
}

static int calibrate(kvf_codec *codec, const char *path, int device) {
    OK(kvf_calibration_close(calibration));
    calibration = NULL;
    kvf_calibration_desc desc = {.struct_size = sizeof desc, .abi_version = KVF_ABI_VERSION, .codec = codec, .path = path,
        .positions = STRIDE * PAGE, .device = device, .layers = 6, .kv_heads = KV_HEADS, .head_dim = D};
    if (path) OK(kvf_calibration_load(&desc, &calibration));
    return 0;
}

static int run_reference(kvf_codec *codec, void *bytes, uint64_t count, struct result *r) {
    kvf_cache cache = cache_at(bytes, count);
    kvf_store_args store = store_args(&problem, r);
    kvf_decode_args decode = decode_args(&problem, r);
    OK(kvf_ref_store(codec, KVF_DTYPE_F32, &cache, &store));
    OK(kvf_ref_decode(codec, KVF_DTYPE_F32, HEADS, &cache, &decode));
    return 0;
}

static int run_gpu(kvf_codec *codec, const char *path, uint64_t count, struct result *r) {
    void *stream, *p, *result, *base, *workspace, *store_space;
    uint64_t need, store_need;
    int rc = open_driver(&stream);
    if (rc) return rc;
    kvf_plan_desc desc = {.struct_size = sizeof desc, .abi_version = KVF_ABI_VERSION, .codec = codec, .head_dim = D,
                          .heads = HEADS, .kv_heads = KV_HEADS, .page_tokens = PAGE, .dtype = KVF_DTYPE_F32,
                          .flags = KVF_PLAN_STORE | KVF_PLAN_DECODE | KVF_PLAN_CHECKED};
    kvf_plan *plan;
    OK(kvf_plan_create(&desc, &plan));
    if (calibrate(codec, path, 0)) return 1;
    OK(kvf_workspace_bytes(plan, BATCH, STRIDE, &need));
    OK(kvf_store_workspace_bytes(plan, TOKENS, &store_need));
    if (on_device(&p, &problem, sizeof problem) || on_device(&result, r, sizeof *r) || on_device(&base, NULL, count)) return 1;
    if (on_device(&workspace, NULL, need) || on_device(&store_space, NULL, store_need)) return 1;
    kvf_cache cache = cache_at(base, count);
    kvf_store_args store = store_args(p, result);
    kvf_decode_args decode = decode_args(p, result);
    store.workspace = store_space, store.workspace_bytes = store_need;
    decode.workspace = workspace, decode.workspace_bytes = need;
    struct result called;
    OK(kvf_store(plan, &cache, &store, stream));
    OK(kvf_decode(plan, &cache, &decode, stream));
    CU(cu.wait(stream)); CU(cu.to_host(&called, result, sizeof called)); CU(cu.to_device(result, r, sizeof *r));
    /* A layer's step, whose addresses stay, is recorded once and then one call: rows, slots, lens and tables are read anew. */
    kvf_step *step;
    OK(kvf_step_create(plan, &cache, &store, &decode, &step));
    OK(kvf_step_launch(step, stream));
    CU(cu.wait(stream)); CU(cu.to_host(r, result, sizeof *r));
    if (memcmp(&called, r, sizeof called)) return printf("the recorded step has other bits than the two calls\n"), KVF_ERR_CUDA;
    OK(kvf_step_destroy(step));
    OK(kvf_plan_destroy(plan));
    return 0;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "int4", *path = argc > 2 ? argv[2] : NULL;
    kvf_codec *codec;
    uint64_t block;
    for (int i = 0; i < TOKENS * KV_HEADS * D; i++) problem.k[i] = random_float(), problem.v[i] = random_float();
    for (int i = 0; i < BATCH * HEADS * D; i++) problem.q[i] = random_float();
    OK(kvf_codec_open(name, &codec));
    if (path) {
        /* Layers have bands of their own: from here on the codec is this layer's. */
        kvf_codec *own;
        if (calibrate(codec, path, -1)) return 1;
        OK(kvf_calibration_codec(calibration, LAYER, &own));
        OK(kvf_codec_close(codec));
        codec = own;
    }
    OK(kvf_block_bytes(codec, D, PAGE, &block));
    uint64_t count = block * PAGES * KV_HEADS;
    void *bytes = aligned_alloc(16, count);
    give_pages();
    if (run_reference(codec, bytes, count, &first)) return 1;
    int rc = run_gpu(codec, path, count, &second);
    if (rc && rc != KVF_ERR_NO_GPU && rc != KVF_ERR_NO_NVRTC) return 1;
    if (rc) {
        memset(bytes, 0xff, count);
        give_pages();
        if (calibrate(codec, path, -1) || run_reference(codec, bytes, count, &second)) return 1;
    }
    int32_t exact = 1;
    if (!rc) OK(kvf_codec_exact(codec, &exact));
    float worst = 0;
    for (int i = 0; i < BATCH * HEADS * D; i++) worst = fmaxf(worst, fabsf(first.out[i] - second.out[i]));
    int same = !memcmp(&first, &second, sizeof first);
    int good = (exact ? same : worst < 1e-2f) && !(second.status[0] | second.status[1] | second.status[2]) && second.lse[BATCH * HEADS - 1] > 0.0f;
    printf("%s: %s: out[0] = %g, %s, largest difference %g: %s\n", name,
           rc ? "no usable GPU, reference twice with other pages" : "GPU against reference", second.out[0],
           same ? "every bit equal" : "bits differ", worst, good ? "good" : "BAD");
    free(bytes);
    OK(kvf_calibration_close(calibration));
    OK(kvf_codec_close(codec));
    return !good;
}
