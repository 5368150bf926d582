/* DeepSeek-V4's attention in miniature: rows of 512 numbers, key and value of 64 heads, in two caches: a window of the latest tokens and
 * compressed rows, of which an indexer chose some. Both are stored, then seen under one softmax with sinks.
 *
 *   make && ../../../target/latent_rows [format]
 *
 * With a GPU everything is compared with the scalar reference, bit for bit, called and replayed from a captured graph. Without one the
 * reference runs on rows in other places, which must not change a bit. It says which ran. */
#include "kvfuse_latent.h"
#include "driver.h"

#include <stdlib.h>

enum { D = 512, HEADS = 64, TOKENS = 3, WINDOW = 128, CHOSEN = 512, NEAR = 200, FAR = 700, SHARE = 256 };

static struct problem {
    _Alignas(16) float near[NEAR * D], far[FAR * D];
    uint16_t q[TOKENS * HEADS * D];
    float sinks[HEADS];
    int64_t near_slots[NEAR], far_slots[FAR];
    int32_t window_at[TOKENS * WINDOW], extra_at[TOKENS * CHOSEN], lens[2 * TOKENS];
} problem;

static struct result {
    _Alignas(16) uint16_t out[TOKENS * HEADS * D];
    float lse[TOKENS * HEADS];
    int32_t status[4];
} first, second;

static int below(int n) { return (int)((random_float() + 1.0f) * 0.5f * n) % n; }

/* Every row its place in the cache, in a random order; the lists follow their rows. Token t sees the last rows of the window up to its own,
 * and so many of the compressed ones as an indexer chose for it. */
static void give_places(struct problem *p, const int32_t *chosen) {
    int64_t *slots[] = {p->near_slots, p->far_slots};
    for (int side = 0, n = NEAR; side < 2; side++, n = FAR) {
        for (int i = 0; i < n; i++) slots[side][i] = i;
        for (int i = n - 1; i > 0; i--) {
            int j = below(i + 1);
            int64_t slot = slots[side][i];
            slots[side][i] = slots[side][j], slots[side][j] = slot;
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < WINDOW; i++) p->window_at[t * WINDOW + i] = (int32_t)p->near_slots[NEAR - TOKENS + 1 + t - WINDOW + i];
        /* -1 is nobody's row: an indexer that found fewer. */
        for (int i = 0; i < CHOSEN; i++) p->extra_at[t * CHOSEN + i] = i % 50 == 49 ? -1 : (int32_t)p->far_slots[chosen[t * CHOSEN + i]];
        p->lens[2 * t] = WINDOW, p->lens[2 * t + 1] = t ? CHOSEN - 37 * t : 0;
    }
}

static kvf_latent_cache cache_at(void *base, uint64_t row, int64_t rows) {
    return (kvf_latent_cache){.struct_size = sizeof(kvf_latent_cache), .abi_version = KVF_ABI_VERSION, .base = base, .bytes = row * rows, .rows = rows};
}

static kvf_latent_store_args store_of(const float *x, const int64_t *slots, int64_t rows, struct result *r) {
    return (kvf_latent_store_args){.struct_size = sizeof(kvf_latent_store_args), .abi_version = KVF_ABI_VERSION, .x = x, .slots = slots, .status = r->status, .rows = rows};
}

static kvf_latent_decode_args decode_of(struct problem *p, struct result *r) {
    return (kvf_latent_decode_args){.struct_size = sizeof(kvf_latent_decode_args), .abi_version = KVF_ABI_VERSION, .q = p->q,
        .window_at = p->window_at, .extra_at = p->extra_at, .lens = p->lens, .sinks = p->sinks, .out = r->out, .lse = r->lse,
        .window_capacity = WINDOW, .extra_capacity = CHOSEN, .tokens = TOKENS, .heads = HEADS, .share = SHARE, .scale = 0.04419417f};
}

static int on_host(const char *format, void *bytes, uint64_t row, struct result *r) {
    kvf_latent_cache near = cache_at(bytes, row, NEAR), far = cache_at((char *)bytes + row * NEAR, row, FAR);
    kvf_latent_store_args latest = store_of(problem.near, problem.near_slots, NEAR, r), groups = store_of(problem.far, problem.far_slots, FAR, r);
    kvf_latent_decode_args decode = decode_of(&problem, r);
    OK(kvf_ref_latent_store(format, &near, &latest));
    OK(kvf_ref_latent_store(format, &far, &groups));
    OK(kvf_ref_latent_decode(format, &near, &far, &decode));
    return 0;
}

static int on_gpu(const char *format, const void *stored, uint64_t row, struct result *r) {
    void *stream, *p_, *r_, *base, *workspace, *graph, *replay, *found = malloc(row * (NEAR + FAR));
    struct result called;
    uint64_t need;
    if (!found || open_driver(&stream)) return KVF_ERR_NO_GPU;
    kvf_latent_desc desc = {.struct_size = sizeof desc, .abi_version = KVF_ABI_VERSION, .format = format, .flags = KVF_PLAN_CHECKED};
    kvf_latent *latent;
    OK(kvf_latent_create(&desc, &latent));
    if (on_device(&p_, &problem, sizeof problem) || on_device(&r_, r, sizeof *r) || on_device(&base, NULL, row * (NEAR + FAR))) return 1;
    struct problem *p = p_;
    struct result *there = r_;
    kvf_latent_cache near = cache_at(base, row, NEAR), far = cache_at((char *)base + row * NEAR, row, FAR);
    kvf_latent_store_args latest = store_of(p->near, p->near_slots, NEAR, there), groups = store_of(p->far, p->far_slots, FAR, there);
    kvf_latent_decode_args decode = decode_of(p, there);
    OK(kvf_latent_workspace_bytes(latent, &decode, &need));
    if (on_device(&workspace, NULL, need)) return 1;
    decode.workspace = workspace, decode.workspace_bytes = need;
    OK(kvf_latent_store(latent, &near, &latest, stream));
    OK(kvf_latent_store(latent, &far, &groups, stream));
    OK(kvf_latent_decode(latent, &near, &far, &decode, stream));
    CU(cu.wait(stream)); CU(cu.to_host(&called, there, sizeof called)); CU(cu.to_host(found, base, row * (NEAR + FAR)));
    if (memcmp(found, stored, row * (NEAR + FAR))) return printf("the GPU stored other bytes than the reference\n"), 1;
    free(found);
    /* Once more as a graph: lens, lists and queries are read anew at each replay. */
    CU(cu.to_device(there, r, sizeof *r));
    CU(cu.capture(stream, 1));
    OK(kvf_latent_store(latent, &near, &latest, stream));
    OK(kvf_latent_decode(latent, &near, &far, &decode, stream));
    CU(cu.captured(stream, &graph)); CU(cu.instantiate(&replay, graph, 0)); CU(cu.launch(replay, stream));
    CU(cu.wait(stream)); CU(cu.to_host(r, there, sizeof *r));
    if (memcmp(&called, r, sizeof called)) return printf("the replayed graph has other bits than the calls\n"), 1;
    OK(kvf_latent_destroy(latent));
    return 0;
}

int main(int argc, char **argv) {
    const char *format = argc > 1 ? argv[1] : "v4_e8w4_int8";
    uint64_t row;
    int32_t chosen[TOKENS * CHOSEN];
    for (int i = 0; i < NEAR * D; i++) problem.near[i] = random_float() * (i % D < 64 ? 8.0f : 1.0f);
    for (int i = 0; i < FAR * D; i++) problem.far[i] = random_float();
    for (int i = 0; i < TOKENS * HEADS * D; i++) {
        union { float x; uint32_t bits; } q = {.x = 4.0f * random_float()};
        problem.q[i] = (uint16_t)(q.bits >> 16);
    }
    for (int i = 0; i < HEADS; i++) problem.sinks[i] = i % 4 ? random_float() : -1.0f / 0.0f;
    for (int i = 0; i < TOKENS * CHOSEN; i++) chosen[i] = below(FAR);
    OK(kvf_latent_row_bytes(format, &row));
    void *bytes = aligned_alloc(16, row * (NEAR + FAR));
    give_places(&problem, chosen);
    if (!bytes || on_host(format, bytes, row, &first)) return 1;
    int rc = on_gpu(format, bytes, row, &second);
    if (rc && rc != KVF_ERR_NO_GPU && rc != KVF_ERR_NO_NVRTC) return 1;
    if (rc) {
        memset(bytes, 0xff, row * (NEAR + FAR));
        give_places(&problem, chosen);
        if (on_host(format, bytes, row, &second)) return 1;
    }
    int nonzero = 0, same = !memcmp(&first, &second, sizeof first);
    for (int i = 0; i < TOKENS * HEADS * D; i++) nonzero += (first.out[i] & 0x7fff) != 0;
    int good = same && !second.status[KVF_STATUS_BAD_SLOT] && nonzero > TOKENS * HEADS * D / 2 && first.lse[0] > 0.0f;
    printf("%s: %d bytes a row: %s, %s: %s\n", format, (int)row, rc ? "no usable GPU, reference twice with rows in other places" : "GPU against reference",
           same ? "every bit equal" : "bits differ", good ? "good" : "BAD");
    free(bytes);
    return !good;
}
