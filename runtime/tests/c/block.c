/* A block of the PCA codec from C: the host codes it, the reference attends to it, and misuse is an error with words. */
#include <math.h>

#include "expect.h"

enum { D = 64, TOKENS = 512, HEADS = 2 };
static float k[TOKENS * D], v[TOKENS * D];
static _Alignas(16) float q[HEADS * D], out[HEADS * D];
static int32_t table[1] = {0}, lens[1] = {500}, status[4];

/* A few waves and a little noise, so that there is something to find. */
static void fill(float *x, int n, unsigned seed) {
    for (int i = 0; i < n * D; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = sinf(0.1f * (float)(i % D) * (float)(1 + i / D % 5)) + 0.05f * ((float)(seed >> 8) / 8388608.0f - 1.0f);
    }
}

/* The largest distance from attention over the rows as they were. */
static double off(void) {
    double most = 0;
    for (int h = 0; h < HEADS; h++) {
        double total = 0, sums[D] = {0};
        for (int t = 0; t < lens[0]; t++) {
            double dot = 0;
            for (int i = 0; i < D; i++) dot += (double)q[h * D + i] * k[t * D + i];
            double w = exp(0.125 * dot);
            total += w;
            for (int i = 0; i < D; i++) sums[i] += w * v[t * D + i];
        }
        for (int i = 0; i < D; i++) most = fmax(most, fabs(out[h * D + i] - sums[i] / total));
    }
    return most;
}

int main(void) {
    kvf_codec *codec, *plain;
    uint64_t bytes;
    fill(k, TOKENS, 1), fill(v, TOKENS, 2), fill(q, HEADS, 3);
    GOOD(kvf_codec_open("pca_b4_post", &codec));
    GOOD(kvf_codec_open("int4", &plain));
    kvf_codec *none = codec;
    BAD(kvf_codec_open("pca_b4_post_pooled", &none), "_head");
    /* Outliers of values too have places in a page. */
    GOOD(kvf_codec_open("pca_b4_post_t2", &none));
    GOOD(kvf_codec_close(none));
    NOT(kvf_block_bytes(codec, D, 64, &bytes));
    GOOD(kvf_block_bytes(codec, D, TOKENS, &bytes));
    void *page = aligned_alloc(16, bytes);
    BAD(kvf_encode_block(NULL, D, k, v, page), "codec is null");
    BAD(kvf_encode_block(plain, D, k, v, page), "codes no blocks");
    BAD(kvf_encode_block(codec, D, NULL, v, page), "k is null");
    BAD(kvf_encode_block(codec, D, k, v, NULL), "page is null");
    NOT(kvf_encode_block(codec, 96, k, v, page));
    NOT(kvf_encode_block(codec, INT_MAX, k, v, page));
    GOOD(kvf_encode_block(codec, D, k, v, page));
    kvf_cache c = {.struct_size = sizeof c, .abi_version = KVF_ABI_VERSION, .base = page, .bytes = bytes, .pages = 1, .page_tokens = TOKENS, .kv_heads = 1, .head_dim = D};
    kvf_decode_args a = {.struct_size = sizeof a, .abi_version = KVF_ABI_VERSION, .q = q, .table = table, .lens = lens, .out = out, .status = status, .batch = 1, .table_stride = 1, .scale = 0.125f};
    GOOD(kvf_ref_decode(codec, KVF_DTYPE_F32, HEADS, &c, &a));
    double most = off();
    cases++;
    if (!(most > 0 && most < 0.1)) failures++, printf("FAILED: off by %g\n", most);
    kvf_store_args s = {.struct_size = sizeof s, .abi_version = KVF_ABI_VERSION, .k = k, .v = v, .slots = (int64_t[]){0}, .status = status, .tokens = 1, .k_token_stride = D, .k_head_stride = D, .v_token_stride = D, .v_head_stride = D};
    BAD(kvf_ref_store(codec, KVF_DTYPE_F32, &c, &s), "encode_block");
    kvf_plan_desc d = {.struct_size = sizeof d, .abi_version = KVF_ABI_VERSION, .codec = codec, .head_dim = D, .heads = HEADS, .kv_heads = 1, .page_tokens = TOKENS, .dtype = KVF_DTYPE_F32, .flags = KVF_PLAN_STORE | KVF_PLAN_DECODE};
    kvf_plan *plan = NULL;
    BAD(kvf_plan_create(&d, &plan), "encode_block");
    d.flags = KVF_PLAN_DECODE, d.queries = 4;
    BAD(kvf_plan_create(&d, &plan), "blocks of 512 tokens");
    GOOD(kvf_codec_close(codec));
    free(page);
    // Bases that blocks share, and outliers: two pages, the first entry of the table names that of the bases.
    GOOD(kvf_codec_open("pca_b4_post_share_t3/pca_b4_share", &codec));
    GOOD(kvf_block_bytes(codec, D, TOKENS, &bytes));
    char *pages = aligned_alloc(16, 2 * bytes);
    BAD(kvf_encode_block(codec, D, k, v, pages), "shared bases");
    BAD(kvf_fit_bases(plain, D, TOKENS, k, v, pages), "codes no blocks");
    BAD(kvf_fit_bases(codec, D, 1, k, v, pages), "at least two");
    BAD(kvf_fit_bases(codec, D, -1, k, v, pages), "at least two");
    BAD(kvf_fit_bases(codec, D, TOKENS, NULL, v, pages), "k is null");
    GOOD(kvf_fit_bases(codec, D, TOKENS, k, v, pages + bytes));
    BAD(kvf_encode_block_under(codec, D, NULL, k, v, pages), "bases is null");
    GOOD(kvf_encode_block_under(codec, D, pages + bytes, k, v, pages));
    c.base = pages, c.bytes = 2 * bytes, c.pages = 2;
    int32_t two[2] = {1, 0};
    a.table = two, a.table_stride = 2;
    GOOD(kvf_ref_decode(codec, KVF_DTYPE_F32, HEADS, &c, &a));
    double shared = off();
    cases++;
    if (!(shared > 0 && shared < 0.1 && status[1] == 0)) failures++, printf("FAILED: off by %g\n", shared);
    free(pages);
    GOOD(kvf_codec_close(codec));
    // Levels that were fitted to a model.
    float levels[4] = {-1.5f, -0.5f, 0.5f, 1.5f};
    BAD(kvf_codec_open("pca_b2_post_fitted", &none), "levels of its own");
    BAD(kvf_codec_open_fitted("int4", levels, 4, levels, 4, &none), "no fitted levels");
    BAD(kvf_codec_open_fitted("pca_b2_post_fitted", levels, 3, levels, 4, &none), "4 rising levels");
    BAD(kvf_codec_open_fitted("pca_b2_post_fitted", levels, 17, levels, 4, &none), "levels of keys");
    BAD(kvf_codec_open_fitted("pca_b2_post_fitted", levels, 4, NULL, 0, &none), "levels of its own");
    BAD(kvf_codec_open_fitted(NULL, levels, 4, levels, 4, &none), "name is null");
    GOOD(kvf_codec_open_fitted("pca_b2_post_fitted", levels, 4, levels, 4, &codec));
    GOOD(kvf_codec_close(codec));
    GOOD(kvf_codec_close(plain));
    printf("off by %.1e; %d cases, %d failures\n", most, cases, failures);
    return failures > 0;
}
