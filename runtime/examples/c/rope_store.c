/* Keys and queries as projections leave them: norm, RoPE and store in one launch, then attention over what it stored.
 *
 *   make && ../../../target/rope_store [codec]
 *
 * Two sequences grow by a token a step, as an engine decodes. The result is compared with the same steps over rows that
 * were normalised and turned here, in double: near, because that is another rounding. With a GPU the fused launch is also
 * compared with the scalar reference, bit for bit where the codec promises it. */
#include <math.h>
#include <stdlib.h>

#include "driver.h"

enum { D = 128, ROTARY = 64, HEADS = 8, KV_HEADS = 2, PAGE = 32, PAGES = 4, STRIDE = 2, BATCH = 2, STEPS = 40 };
enum { ROPE = KVF_ROPE_NORM | KVF_ROPE_WEIGHTS | KVF_ROPE_QUERIES };

/* All steps' rows: projections of a token of each sequence. */
static struct problem {
    float k[STEPS][BATCH * KV_HEADS * D], v[STEPS][BATCH * KV_HEADS * D], q[STEPS][BATCH * HEADS * D];
    float cos_sin[STEPS][ROTARY], k_norm[D], q_norm[D];
    int64_t slots[STEPS][BATCH];
    int32_t positions[STEPS][BATCH], lens[STEPS][BATCH], table[BATCH * STRIDE];
} fused, apart;

static struct result {
    float q[BATCH * HEADS * D], out[BATCH * HEADS * D];
    int32_t status[4];
} by_reference, by_hand, by_gpu;

static void fill(struct problem *p) {
    for (int i = 0; i < BATCH * STRIDE; i++) p->table[i] = (3 * i + 1) % PAGES;
    for (int i = 0; i < D; i++) p->k_norm[i] = 1.0f + 0.2f * random_float(), p->q_norm[i] = 1.0f + 0.2f * random_float();
    for (int t = 0; t < STEPS; t++) {
        for (int i = 0; i < BATCH * KV_HEADS * D; i++) p->k[t][i] = 5.0f * random_float(), p->v[t][i] = random_float();
        for (int i = 0; i < BATCH * HEADS * D; i++) p->q[t][i] = 3.0f * random_float();
        for (int i = 0; i < ROTARY / 2; i++) {
            double angle = t * pow(1e4, -2.0 * i / ROTARY);
            p->cos_sin[t][i] = (float)cos(angle), p->cos_sin[t][i + ROTARY / 2] = (float)sin(angle);
        }
        for (int b = 0; b < BATCH; b++) {
            p->positions[t][b] = t, p->lens[t][b] = t + 1;
            p->slots[t][b] = p->table[b * STRIDE + t / PAGE] * PAGE + t % PAGE;
        }
    }
}

/* What the launch does to a head at position t, in double. */
static void turn(float *x, const float *weight, int t) {
    double square = 0, y[D];
    for (int i = 0; i < D; i++) square += (double)x[i] * x[i];
    for (int i = 0; i < D; i++) y[i] = x[i] / sqrt(square / D + 1e-6) * weight[i];
    for (int i = 0; i < D; i++) x[i] = (float)y[i];
    for (int i = 0; i < ROTARY / 2; i++) {
        double angle = t * pow(1e4, -2.0 * i / ROTARY), a = y[i], b = y[i + ROTARY / 2];
        x[i] = (float)(a * cos(angle) - b * sin(angle)), x[i + ROTARY / 2] = (float)(b * cos(angle) + a * sin(angle));
    }
}

static kvf_cache cache_at(void *base, uint64_t bytes) {
    return (kvf_cache){.struct_size = sizeof(kvf_cache), .abi_version = KVF_ABI_VERSION, .base = base, .bytes = bytes,
                       .pages = PAGES, .page_tokens = PAGE, .kv_heads = KV_HEADS, .head_dim = D};
}

static kvf_rope rope_of(struct problem *p, struct result *r, int t) {
    return (kvf_rope){.struct_size = sizeof(kvf_rope), .abi_version = KVF_ABI_VERSION, .cos_sin = p->cos_sin, .positions = STEPS,
        .k_norm = p->k_norm, .q_norm = p->q_norm, .q = p->q[t], .q_out = r->q, .q_token_stride = HEADS * D, .q_head_stride = D,
        .rotary_dim = ROTARY, .flags = ROPE, .heads = HEADS, .epsilon = 1e-6f};
}

static kvf_store_args store_of(struct problem *p, struct result *r, int t, const kvf_rope *rope) {
    return (kvf_store_args){.struct_size = sizeof(kvf_store_args), .abi_version = KVF_ABI_VERSION, .k = p->k[t], .v = p->v[t],
        .slots = p->slots[t], .status = r->status, .tokens = BATCH, .k_token_stride = KV_HEADS * D, .k_head_stride = D,
        .v_token_stride = KV_HEADS * D, .v_head_stride = D, .positions = p->positions[t], .rope = rope};
}

static kvf_decode_args decode_of(struct problem *p, struct result *r, int t, const float *q) {
    return (kvf_decode_args){.struct_size = sizeof(kvf_decode_args), .abi_version = KVF_ABI_VERSION, .q = q, .table = p->table,
        .lens = p->lens[t], .out = r->out, .status = r->status, .batch = BATCH, .table_stride = STRIDE, .scale = 0.08838835f};
}

/* On the host: `turned` rows are stored as they are, others pass norm and RoPE on their way. */
static int on_host(kvf_codec *codec, void *bytes, uint64_t count, struct problem *p, struct result *r, int turned) {
    kvf_cache cache = cache_at(bytes, count);
    for (int t = 0; t < STEPS; t++) {
        kvf_rope rope = rope_of(p, r, t);
        kvf_store_args store = store_of(p, r, t, turned ? NULL : &rope);
        kvf_decode_args decode = decode_of(p, r, t, turned ? p->q[t] : r->q);
        OK(kvf_ref_store(codec, KVF_DTYPE_F32, &cache, &store));
        OK(kvf_ref_decode(codec, KVF_DTYPE_F32, HEADS, &cache, &decode));
    }
    return 0;
}

static int on_gpu(kvf_codec *codec, uint64_t count, struct result *r) {
    void *stream, *p, *result, *base, *workspace;
    uint64_t need;
    int rc = open_driver(&stream);
    if (rc) return rc;
    kvf_plan_desc desc = {.struct_size = sizeof desc, .abi_version = KVF_ABI_VERSION, .codec = codec, .head_dim = D,
                          .heads = HEADS, .kv_heads = KV_HEADS, .page_tokens = PAGE, .dtype = KVF_DTYPE_F32,
                          .flags = KVF_PLAN_ROPE | KVF_PLAN_DECODE | KVF_PLAN_CHECKED, .rotary_dim = ROTARY, .rope = ROPE};
    kvf_plan *plan;
    OK(kvf_plan_create(&desc, &plan));
    OK(kvf_workspace_bytes(plan, BATCH, STRIDE, &need));
    if (on_device(&p, &fused, sizeof fused) || on_device(&result, r, sizeof *r) || on_device(&base, NULL, count)) return 1;
    if (on_device(&workspace, NULL, need)) return 1;
    kvf_cache cache = cache_at(base, count);
    struct problem *there = p;
    struct result *found = result;
    for (int t = 0; t < STEPS; t++) {
        kvf_rope rope = rope_of(there, found, t);
        kvf_store_args store = store_of(there, found, t, &rope);
        kvf_decode_args decode = decode_of(there, found, t, found->q);
        decode.workspace = workspace, decode.workspace_bytes = need;
        OK(kvf_store(plan, &cache, &store, stream));
        OK(kvf_decode(plan, &cache, &decode, stream));
    }
    CU(cu.wait(stream)); CU(cu.to_host(r, result, sizeof *r));
    OK(kvf_plan_destroy(plan));
    return 0;
}

static float largest(const float *a, const float *b, int n) {
    float worst = 0;
    for (int i = 0; i < n; i++) worst = fmaxf(worst, fabsf(a[i] - b[i]));
    return worst;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "int8";
    kvf_codec *codec;
    uint64_t block;
    int32_t exact;
    fill(&fused);
    apart = fused;
    for (int t = 0; t < STEPS; t++) {
        for (int i = 0; i < BATCH * KV_HEADS; i++) turn(&apart.k[t][i * D], apart.k_norm, t);
        for (int i = 0; i < BATCH * HEADS; i++) turn(&apart.q[t][i * D], apart.q_norm, t);
    }
    OK(kvf_codec_open(name, &codec));
    OK(kvf_codec_exact(codec, &exact));
    OK(kvf_block_bytes(codec, D, PAGE, &block));
    uint64_t count = block * PAGES * KV_HEADS;
    void *bytes = calloc(1, count);
    if (!bytes || on_host(codec, bytes, count, &fused, &by_reference, 0) || on_host(codec, bytes, count, &apart, &by_hand, 1)) return 1;
    float q = largest(by_reference.q, apart.q[STEPS - 1], BATCH * HEADS * D);
    float out = largest(by_reference.out, by_hand.out, BATCH * HEADS * D);
    int rc = on_gpu(codec, count, &by_gpu);
    if (rc && rc != KVF_ERR_NO_GPU && rc != KVF_ERR_NO_NVRTC) return 1;
    int same = !memcmp(by_gpu.q, by_reference.q, sizeof by_gpu.q) && (exact ? !memcmp(&by_gpu, &by_reference, sizeof by_gpu) : largest(by_gpu.out, by_reference.out, BATCH * HEADS * D) < 1e-2f);
    int good = q < 1e-5f && out < 1e-2f && out == out && !by_reference.status[KVF_STATUS_BAD_LENGTH] && (rc || same);
    printf("%s: fused against rows turned by hand: queries %g, out %g apart; %s: %s\n", name, q, out,
           rc ? "no usable GPU" : same ? "GPU as the reference" : "GPU and reference differ", good ? "good" : "BAD");
    free(bytes);
    OK(kvf_codec_close(codec));
    return !good;
}
