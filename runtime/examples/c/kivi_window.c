/* KIVI in an engine: tokens stay raw until a window of newer ones is there, then 32 of them are coded as one tile.
 *
 *   make && ../../../target/kivi_window [codec]
 *
 * The engine owns two paged caches of a layer. Every token goes raw into the one of codec `bf16`, whose pages are as long as a tile. Once
 * WINDOW tokens and a tile more are raw, the oldest 32 are loaded from there, stored as a tile of the `kivi` cache, and their raw page is free.
 * Attention is that over the tiles, that over what is raw, and kvf_merge of the two. All of that is lens, tables and slots, so no call keeps
 * a memory, and every call may be captured.
 *
 * Two sequences grow by a token a step, the second one begins later. The result is compared with exact attention in double over the rows as
 * they were. With a GPU, attention over the tiles is also compared with the scalar reference, bit for bit. */
#include "driver.h"

#include <math.h>
#include <stdlib.h>

enum { D = 128, HEADS = 8, KV_HEADS = 2, TILE = 32, WINDOW = 64, BATCH = 2, STEPS = 200, LATER = 45 };
enum { TILES = STEPS / TILE + 1, RAW_PAGES = WINDOW / TILE + 2, WIDTH = KV_HEADS * D, ROWS = BATCH * HEADS };
enum { CODED, RAW };

/* What the engine knows before a step, as it lies in device memory. */
struct step {
    float k[BATCH * WIDTH], v[BATCH * WIDTH], q[ROWS * D];
    int64_t slots[BATCH];              /* of new tokens, raw; -1: the sequence has not begun */
    int64_t from[BATCH][TILE];         /* raw slots of a tile that is to be coded */
    int64_t to[BATCH][TILE];           /* and where it goes: the first one's slot counts */
    int32_t lens[2][BATCH];            /* of tiles, of what is raw */
    int32_t raw_table[BATCH * RAW_PAGES];
};
static struct problem {
    struct step steps[STEPS];
    int32_t coded_table[BATCH * TILES];
} problem;
static int due[STEPS][BATCH]; /* whether a tile is to be coded: the engine's own arithmetic, never read from a device */

struct result {
    float k[TILE * WIDTH], v[TILE * WIDTH];           /* a tile on its way */
    float out[2][ROWS * D], lse[2][ROWS], merged[ROWS * D], total[ROWS];
    int32_t status[4];
};
static struct result reference, gpu;

/* Codecs and caches; plans and a stream where a GPU is to do it. */
struct engine {
    kvf_codec *codec[2];
    kvf_plan *plan[2];
    kvf_cache cache[2];
    void *stream, *workspace;
    uint64_t workspace_bytes;
};

static int store(struct engine *e, int i, const kvf_store_args *a) {
    return e->plan[i] ? kvf_store(e->plan[i], &e->cache[i], a, e->stream) : kvf_ref_store(e->codec[i], KVF_DTYPE_F32, &e->cache[i], a);
}
static int load(struct engine *e, const kvf_load_args *a) {
    return e->plan[RAW] ? kvf_load(e->plan[RAW], &e->cache[RAW], a, e->stream) : kvf_ref_load(e->codec[RAW], KVF_DTYPE_F32, &e->cache[RAW], a);
}
static int decode(struct engine *e, int i, const kvf_decode_args *a) {
    return e->plan[i] ? kvf_decode(e->plan[i], &e->cache[i], a, e->stream) : kvf_ref_decode(e->codec[i], KVF_DTYPE_F32, HEADS, &e->cache[i], a);
}
static int merge(struct engine *e, const kvf_merge_args *a) {
    return e->plan[CODED] ? kvf_merge(e->plan[CODED], a, e->stream) : kvf_ref_merge(KVF_DTYPE_F32, D, a);
}

static kvf_store_args store_of(const float *k, const float *v, const int64_t *slots, int64_t tokens, struct result *r) {
    return (kvf_store_args){.struct_size = sizeof(kvf_store_args), .abi_version = KVF_ABI_VERSION, .k = k, .v = v, .slots = slots, .status = r->status,
        .tokens = tokens, .k_token_stride = WIDTH, .k_head_stride = D, .v_token_stride = WIDTH, .v_head_stride = D};
}

/* One step of a layer. `p` and `r` lie where the calls want them, in device memory for a GPU. */
static int run_step(struct engine *e, struct problem *p, struct result *r, int t) {
    struct step *s = &p->steps[t];
    kvf_store_args latest = store_of(s->k, s->v, s->slots, BATCH, r);
    OK(store(e, RAW, &latest));
    for (int b = 0; b < BATCH; b++) {
        if (!due[t][b]) continue;
        kvf_load_args old = {.struct_size = sizeof old, .abi_version = KVF_ABI_VERSION, .k = r->k, .v = r->v, .slots = s->from[b], .status = r->status, .tokens = TILE};
        kvf_store_args tile = store_of(r->k, r->v, s->to[b], TILE, r);
        OK(load(e, &old));
        OK(store(e, CODED, &tile));
    }
    for (int i = 0; i < 2; i++) {
        kvf_decode_args a = {.struct_size = sizeof a, .abi_version = KVF_ABI_VERSION, .q = s->q, .table = i == RAW ? s->raw_table : p->coded_table,
            .lens = s->lens[i], .out = r->out[i], .lse = r->lse[i], .workspace = e->workspace, .workspace_bytes = e->workspace_bytes, .status = r->status,
            .batch = BATCH, .table_stride = i == RAW ? RAW_PAGES : TILES, .scale = 0.08838835f};
        OK(decode(e, i, &a));
    }
    kvf_merge_args both = {.struct_size = sizeof both, .abi_version = KVF_ABI_VERSION, .a = r->out[CODED], .a_lse = r->lse[CODED], .b = r->out[RAW],
        .b_lse = r->lse[RAW], .out = r->merged, .lse = r->total, .rows = ROWS};
    OK(merge(e, &both));
    return 0;
}

/* What the scheduler of the engine does: pages, slots and lengths of every step. Raw pages go round. */
static void schedule(void) {
    int done[BATCH] = {0};
    for (int i = 0; i < BATCH * TILES; i++) problem.coded_table[i] = i % TILES * BATCH + i / TILES;
    for (int t = 0; t < STEPS; t++) {
        struct step *s = &problem.steps[t];
        for (int i = 0; i < BATCH * WIDTH; i++) s->k[i] = random_float(), s->v[i] = random_float();
        for (int i = 0; i < ROWS * D; i++) s->q[i] = 6.0f * random_float();
        for (int b = 0; b < BATCH; b++) {
            int at = t - b * LATER, old = done[b] / TILE; /* tokens before this one, tiles */
            s->slots[b] = at < 0 ? -1 : (b * RAW_PAGES + at / TILE % RAW_PAGES) * TILE + at % TILE;
            due[t][b] = at + 1 - done[b] >= WINDOW + TILE;
            for (int i = 0; i < TILE && due[t][b]; i++) {
                s->from[b][i] = (b * RAW_PAGES + old % RAW_PAGES) * TILE + i;
                s->to[b][i] = (int64_t)problem.coded_table[b * TILES + old] * TILE + i;
            }
            if (due[t][b]) done[b] += TILE;
            s->lens[CODED][b] = done[b], s->lens[RAW][b] = at < 0 ? 0 : at + 1 - done[b];
            for (int i = 0; i < RAW_PAGES; i++) s->raw_table[b * RAW_PAGES + i] = b * RAW_PAGES + (done[b] / TILE + i) % RAW_PAGES;
        }
    }
}

/* Exact attention of a step over the rows as they were: the relative squared error of what was found. */
static double error_of(const float *found, int t) {
    double apart = 0, all = 0, *out = malloc(D * sizeof *out);
    for (int b = 0; b < BATCH; b++) for (int h = 0; h < HEADS; h++) {
        double sum = 0;
        memset(out, 0, D * sizeof *out);
        for (int u = b * LATER; u <= t; u++) {
            const float *k = &problem.steps[u].k[b * WIDTH + h / (HEADS / KV_HEADS) * D], *v = &problem.steps[u].v[b * WIDTH + h / (HEADS / KV_HEADS) * D];
            double dot = 0;
            for (int i = 0; i < D; i++) dot += (double)problem.steps[t].q[(b * HEADS + h) * D + i] * k[i];
            double weight = exp(dot * 0.08838835);
            sum += weight;
            for (int i = 0; i < D; i++) out[i] += weight * v[i];
        }
        for (int i = 0; i < D; i++) {
            double exact = out[i] / sum, off = found[(b * HEADS + h) * D + i] - exact;
            apart += off * off, all += exact * exact;
        }
    }
    free(out);
    return apart / all;
}

static kvf_cache cache_at(void *base, uint64_t bytes, int64_t pages) {
    return (kvf_cache){.struct_size = sizeof(kvf_cache), .abi_version = KVF_ABI_VERSION, .base = base, .bytes = bytes, .pages = pages,
                       .page_tokens = TILE, .kv_heads = KV_HEADS, .head_dim = D};
}

static int on_gpu(struct engine *e) {
    void *p, *r;
    int rc = open_driver(&e->stream);
    if (rc) return rc;
    if (on_device(&p, &problem, sizeof problem) || on_device(&r, &gpu, sizeof gpu)) return 1;
    for (int i = 0; i < 2; i++) {
        uint64_t need;
        kvf_plan_desc desc = {.struct_size = sizeof desc, .abi_version = KVF_ABI_VERSION, .codec = e->codec[i], .head_dim = D, .heads = HEADS,
            .kv_heads = KV_HEADS, .page_tokens = TILE, .dtype = KVF_DTYPE_F32, .flags = KVF_PLAN_STORE | KVF_PLAN_DECODE | (i == RAW ? KVF_PLAN_LOAD : KVF_PLAN_MERGE)};
        OK(kvf_plan_create(&desc, &e->plan[i]));
        OK(kvf_workspace_bytes(e->plan[i], BATCH, i == RAW ? RAW_PAGES : TILES, &need));
        if (need > e->workspace_bytes) e->workspace_bytes = need;
        if (on_device(&e->cache[i].base, NULL, e->cache[i].bytes)) return 1;
    }
    if (on_device(&e->workspace, NULL, e->workspace_bytes)) return 1;
    for (int t = 0; t < STEPS; t++) if (run_step(e, p, r, t)) return 1;
    CU(cu.wait(e->stream)); CU(cu.to_host(&gpu, r, sizeof gpu));
    for (int i = 0; i < 2; i++) OK(kvf_plan_destroy(e->plan[i]));
    return 0;
}

int main(int argc, char **argv) {
    const char *names[] = {argc > 1 ? argv[1] : "kivi_k4v4", "bf16"};
    struct engine e = {0};
    uint64_t tile[2];
    double bits;
    schedule();
    for (int i = 0; i < 2; i++) {
        uint64_t pages = BATCH * (i == RAW ? RAW_PAGES : TILES);
        OK(kvf_codec_open(names[i], &e.codec[i]));
        OK(kvf_block_bytes(e.codec[i], D, TILE, &tile[i]));
        e.cache[i] = cache_at(calloc(pages * KV_HEADS, tile[i]), pages * KV_HEADS * tile[i], pages);
    }
    for (int t = 0; t < STEPS; t++) if (run_step(&e, &problem, &reference, t)) return 1;
    for (int i = 0; i < 2; i++) free(e.cache[i].base);
    int rc = on_gpu(&e), same = 1, exact;
    if (rc && rc != KVF_ERR_NO_GPU && rc != KVF_ERR_NO_NVRTC) return 1;
    OK(kvf_codec_exact(e.codec[CODED], &exact));
    OK(kvf_stored_bits_per_element(e.codec[CODED], D, &bits)); /* steps and least values are one of them */
    float worst = 0;
    for (int i = 0; i < ROWS * D && !rc; i++) worst = fmaxf(worst, fabsf(gpu.merged[i] - reference.merged[i]));
    /* Sums over raw tokens have another order there; those over tiles are integers. */
    if (!rc) same = exact && !memcmp(gpu.out[CODED], reference.out[CODED], sizeof gpu.out[CODED]) && !memcmp(gpu.lse[CODED], reference.lse[CODED], sizeof gpu.lse[CODED]);
    double error = error_of(rc ? reference.merged : gpu.merged, STEPS - 1);
    struct result *r = rc ? &reference : &gpu;
    int good = same && worst < 1e-2f && error < 8 * pow(0.25, bits - 1) && r->total[0] > r->lse[CODED][0] && !(r->status[0] | r->status[1] | r->status[2]);
    printf("%s: %d and %d tokens, %d and %d of them coded in %d bytes a tile, %d as bf16: error %.1e of the output's square; %s: %s\n", names[CODED],
           STEPS, STEPS - LATER, problem.steps[STEPS - 1].lens[CODED][0], problem.steps[STEPS - 1].lens[CODED][1], (int)tile[CODED], (int)tile[RAW], error,
           rc ? "no usable GPU, reference" : same ? "GPU: tiles as the reference, every bit equal" : "GPU and reference differ", good ? "good" : "BAD");
    for (int i = 0; i < 2; i++) OK(kvf_codec_close(e.codec[i]));
    return !good;
}
