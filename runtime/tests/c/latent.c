/* Rows of one head: what the reference stores and attends to, and every way to call it wrongly that we could list. With a driver plans are misused too. */
#include "expect.h"

#include "kvfuse_latent.h"

_Static_assert(sizeof(kvf_latent_desc) == 56 && offsetof(kvf_latent_desc, flags) == 20, "frozen for ABI 1");
_Static_assert(sizeof(kvf_latent_cache) == 48 && offsetof(kvf_latent_cache, rows) == 24, "frozen");
_Static_assert(sizeof(kvf_latent_store_args) == 64 && offsetof(kvf_latent_store_args, rows) == 32, "frozen");
_Static_assert(sizeof(kvf_latent_decode_args) == 136 && offsetof(kvf_latent_decode_args, window_capacity) == 80, "frozen");

enum { D = 512, HEADS = 64, ROWS = 6, NEAR = 3, FAR = 130 };
static const char *format = "v4_int4_int8";
static _Alignas(16) float x[ROWS * D];
static _Alignas(16) uint16_t q[HEADS * D], out[HEADS * D];
static _Alignas(16) unsigned char *bytes;
static int64_t slots[ROWS] = {3, 0, -1, 5, 1, 2};
static int32_t near_at[NEAR] = {1, -1, 3}, far_at[FAR], lens[2] = {3, FAR}, status[4];
static float sinks[HEADS], lse[HEADS];
static uint64_t row;
static _Alignas(16) char room[3 * HEADS * (D + 2) * 4];
static kvf_latent *const garbage = (kvf_latent *)0xdeadbeef;

static kvf_latent_desc desc(void) { return (kvf_latent_desc){.struct_size = sizeof(kvf_latent_desc), .abi_version = KVF_ABI_VERSION, .format = format}; }
static kvf_latent_cache cache(void) {
    return (kvf_latent_cache){.struct_size = sizeof(kvf_latent_cache), .abi_version = KVF_ABI_VERSION, .base = bytes, .bytes = ROWS * row, .rows = ROWS};
}
static kvf_latent_store_args store(void) {
    return (kvf_latent_store_args){.struct_size = sizeof(kvf_latent_store_args), .abi_version = KVF_ABI_VERSION, .x = x, .slots = slots, .status = status, .rows = ROWS};
}
static kvf_latent_decode_args decode(void) {
    return (kvf_latent_decode_args){.struct_size = sizeof(kvf_latent_decode_args), .abi_version = KVF_ABI_VERSION, .q = q, .window_at = near_at,
        .extra_at = far_at, .lens = lens, .sinks = sinks, .out = out, .lse = lse, .window_capacity = NEAR, .extra_capacity = FAR, .tokens = 1,
        .heads = HEADS, .share = 128, .scale = 0.04f, .workspace = room, .workspace_bytes = sizeof room};
}

/* Calls that a whole list of arguments is tried on: on the host, and where there is a driver by a plan too. */
static kvf_latent *plan;
static int try_desc(kvf_latent_desc d) {
    kvf_latent *made = garbage;
    int rc = kvf_latent_create(&d, &made);
    if (rc && made) failures++, printf("FAILED: a failed kvf_latent_create left a handle\n");
    if (!rc) GOOD(kvf_latent_destroy(made));
    return rc;
}
static int ref_store(kvf_latent_cache c, kvf_latent_store_args a) { return kvf_ref_latent_store(format, &c, &a); }
static int ref_decode(kvf_latent_cache c, kvf_latent_decode_args a) { return kvf_ref_latent_decode(format, &c, &c, &a); }
static int own_store(kvf_latent_cache c, kvf_latent_store_args a) { return kvf_latent_store(plan, &c, &a, NULL); }
static int own_decode(kvf_latent_cache c, kvf_latent_decode_args a) { return kvf_latent_decode(plan, &c, &c, &a, NULL); }
static int sizes(kvf_latent_decode_args a) { uint64_t need; return kvf_latent_workspace_bytes(plan, &a, &need); }

#define WITH(make, field, value) __extension__({ __typeof__(make()) s_ = make(); s_.field = value; s_; })
#define EACH(try_, make, field, ...) do { __typeof__(make().field) values_[] = {__VA_ARGS__}; \
    for (size_t i_ = 0; i_ < sizeof values_ / sizeof *values_; i_++) NOT(try_(WITH(make, field, values_[i_]))); } while (0)
#define HEADERS(try_, make) do { EACH(try_, make, struct_size, 0, 1, 8, sizeof(make()) - 1, sizeof(make()) - 8, 5000, UINT32_MAX); \
    EACH(try_, make, abi_version, 0, 2, UINT32_MAX); \
    for (size_t r_ = 0; r_ < sizeof make().reserved / 8; r_++) EACH(try_, make, reserved[r_], 1, UINT64_MAX); } while (0)
#define STORE_CACHE(c) (plan ? own_store : ref_store)(c, store())
#define STORE_ARGS(a) (plan ? own_store : ref_store)(cache(), a)
#define DECODE_CACHE(c) (plan ? own_decode : ref_decode)(c, decode())
#define DECODE_ARGS(a) (plan ? own_decode : ref_decode)(cache(), a)
#define CACHES(try_) do { EACH(try_, cache, base, NULL, (char *)bytes + 1, (char *)bytes + 8); EACH(try_, cache, bytes, 0, ROWS * row - 1); \
    EACH(try_, cache, rows, 0, -1, ROWS + 1, INT64_MIN, INT64_MAX, 1ll << 31); HEADERS(try_, cache); } while (0)

/* What both sides refuse, whoever is asked. */
static void both(void) {
    CACHES(STORE_CACHE);
    CACHES(DECODE_CACHE);
    HEADERS(STORE_ARGS, store);
    HEADERS(DECODE_ARGS, decode);
    EACH(STORE_ARGS, store, x, NULL, (float *)((char *)x + 2));
    EACH(STORE_ARGS, store, slots, NULL, (int64_t *)((char *)slots + 4));
    EACH(STORE_ARGS, store, status, NULL, (int32_t *)((char *)status + 1));
    EACH(STORE_ARGS, store, rows, -1, INT64_MIN, INT64_MAX, 1ll << 31);
    EACH(DECODE_ARGS, decode, q, NULL, (char *)q + 1);
    EACH(DECODE_ARGS, decode, window_at, NULL, (int32_t *)((char *)near_at + 2));
    EACH(DECODE_ARGS, decode, extra_at, NULL, (int32_t *)((char *)far_at + 2));
    EACH(DECODE_ARGS, decode, lens, NULL, (int32_t *)((char *)lens + 1));
    EACH(DECODE_ARGS, decode, sinks, NULL, (float *)((char *)sinks + 1));
    EACH(DECODE_ARGS, decode, out, NULL, (char *)out + 1);
    EACH(DECODE_ARGS, decode, lse, NULL, (float *)((char *)lse + 1));
    EACH(DECODE_ARGS, decode, window_capacity, -1, INT_MIN);
    EACH(DECODE_ARGS, decode, extra_capacity, -1, INT_MIN);
    EACH(DECODE_ARGS, decode, tokens, -1, 65536, INT_MIN, INT_MAX);
    EACH(DECODE_ARGS, decode, heads, 0, -64, 1, 63, 65, 96, INT_MIN, INT_MAX);
    EACH(DECODE_ARGS, decode, share, 0, -128, 1, 127, 200, INT_MIN, INT_MAX);
    EACH(DECODE_ARGS, decode, scale, 0.0f / 0.0f, 1.0f / 0.0f);
}

static void reference(void) {
    kvf_latent_cache c = cache();
    kvf_latent_store_args s = store();
    kvf_latent_decode_args a = decode();
    both();
    GOOD(ref_store(c, WITH(store, rows, 0)));
    GOOD(ref_decode(c, WITH(decode, tokens, 0)));
    BAD(kvf_ref_latent_store(NULL, &c, &s), "format is null");
    BAD(kvf_ref_latent_store("v4_int9_int8", &c, &s), "no format of rows is called `v4_int9_int8`");
    BAD(kvf_ref_latent_store("int4", &c, &s), "there are v4_bf16");
    expect("rows of floats", kvf_ref_latent_store("v4_fp8", &c, &s), KVF_ERR_UNSUPPORTED, "rows of integers");
    expect("numbers of bf16", kvf_ref_latent_decode("v4_int4_bf16", &c, &c, &a), KVF_ERR_UNSUPPORTED, "v4_NOPE_int8");
    BAD(kvf_ref_latent_store(format, NULL, &s), "kvf_latent_cache is null");
    BAD(kvf_ref_latent_store(format, &c, NULL), "kvf_latent_store_args is null");
    BAD(kvf_ref_latent_decode(format, NULL, &c, &a), "kvf_latent_cache is null");
    BAD(kvf_ref_latent_decode(format, &c, NULL, &a), "kvf_latent_cache is null");
    BAD(kvf_ref_latent_decode(format, &c, &c, NULL), "kvf_latent_decode_args is null");
    BAD(kvf_ref_latent_decode(format, (kvf_latent_cache *)((char *)&c + 4), &c, &a), "multiple of 8");
    /* Padding and slots beyond the cache write nothing; the latter are raised. */
    memset(bytes, 0x5a, ROWS * row);
    GOOD(ref_store(c, s));
    cases += 3;
    if (bytes[4 * row] != 0x5a || memcmp(bytes + 4 * row, bytes + 4 * row + 1, row - 1) || bytes[3 * row] == 0x5a || status[KVF_STATUS_BAD_SLOT]) failures++, printf("FAILED padding\n");
    slots[2] = ROWS;
    GOOD(ref_store(c, s));
    if (!status[KVF_STATUS_BAD_SLOT] || bytes[4 * row] != 0x5a) failures++, printf("FAILED a slot beyond the cache\n");
    /* Indices outside of a cache are nobody's; without rows there is nothing. */
    for (int i = 0; i < FAR; i++) far_at[i] = i % 3 ? INT_MAX - i : -i;
    far_at[0] = ROWS;
    near_at[0] = INT_MIN, near_at[2] = ROWS;
    GOOD(ref_decode(c, a));
    if (out[0] || lse[0] != -1.0f / 0.0f) failures++, printf("FAILED nobody's rows: %g\n", lse[0]);
    near_at[0] = 1, near_at[2] = 3, far_at[129] = 5;
    GOOD(ref_decode(c, a));
    cases += 2;
    if (!(out[0] & 0x7fff) || !(lse[0] > -1e30f)) failures++, printf("FAILED rows that are there: %g\n", lse[0]);
    a.extra_capacity = 0, a.extra_at = NULL;
    GOOD(kvf_ref_latent_decode(format, &c, NULL, &a));
}

static void plans(void) {
    kvf_latent_desc d = desc();
    kvf_latent_cache c = cache();
    kvf_latent_store_args s = store();
    kvf_latent_decode_args a = decode();
    uint64_t need;
    BAD(kvf_latent_create(NULL, &plan), "kvf_latent_desc is null");
    BAD(kvf_latent_create(&d, NULL), "latent is null");
    HEADERS(try_desc, desc);
    EACH(try_desc, desc, format, NULL, "", "int4", "v4_fp8", "v4_e8q38_int8", "v4_int4_int7", "\xff");
    EACH(try_desc, desc, device, -1, INT_MIN, INT_MAX, 4096);
    EACH(try_desc, desc, flags, 1, 2, 8, -1, INT_MIN, INT_MAX);
    d.format = "v4_mxfp4";
    expect("a format without kernels", kvf_latent_create(&d, &plan), KVF_ERR_UNSUPPORTED, "kernels read v4_int4_int8, v4_e8w4_int8 and v4_int8_int8");
    d = desc();
    kvf_latent *bad[] = {NULL, garbage, (kvf_latent *)1, (kvf_latent *)&d};
    for (size_t i = 0; i < 4; i++) {
        BAD(kvf_latent_store(bad[i], &c, &s, NULL), "latent plan");
        BAD(kvf_latent_decode(bad[i], &c, &c, &a, NULL), "latent plan");
        BAD(kvf_latent_workspace_bytes(bad[i], &a, &need), "latent plan");
        if (bad[i]) BAD(kvf_latent_destroy(bad[i]), "no open latent plan");
    }
    GOOD(kvf_latent_destroy(NULL));
    int rc = kvf_latent_create(&d, &plan);
    expect("a sound plan", rc, rc == KVF_OK ? KVF_OK : rc == KVF_ERR_NO_NVRTC ? KVF_ERR_NO_NVRTC : KVF_ERR_NO_GPU, "");
    if (rc) return (void)printf("plans on a device: SKIPPED, %s\n", kvf_last_error());
    BAD(kvf_plan_destroy((kvf_plan *)plan), "no open plan");
    GOOD(kvf_latent_workspace_bytes(plan, &a, &need));
    cases++;
    if (need != 3 * HEADS * (D + 2) * 4) failures++, printf("FAILED a workspace of %d bytes\n", (int)need);
    BAD(kvf_latent_workspace_bytes(plan, &a, NULL), "bytes is null");
    EACH(sizes, decode, heads, 0, 63, -1);
    EACH(sizes, decode, share, 0, 100, -1);
    EACH(sizes, decode, extra_capacity, -1);
    BAD(own_decode(c, WITH(decode, workspace, NULL)), "workspace is null");
    BAD(own_decode(c, WITH(decode, workspace_bytes, sizeof room - 1)), "and needs");
    both();
    GOOD(own_store(c, WITH(store, rows, 0)));
    GOOD(own_decode(c, WITH(decode, tokens, 0)));
    GOOD(kvf_latent_destroy(plan));
    BAD(kvf_latent_destroy(plan), "closed already");
    d.flags = KVF_PLAN_CHECKED;
    GOOD(kvf_latent_create(&d, &plan));
    BAD(own_store(c, s), "which CUDA does not know");
    BAD(own_decode(c, a), "which CUDA does not know");
    GOOD(kvf_latent_destroy(plan));
    printf("plans on a device: done\n");
}

int main(void) {
    uint64_t other;
    GOOD(kvf_latent_row_bytes(format, &row));
    GOOD(kvf_latent_row_bytes("v4_fp8", &other));
    if (row != 304 || other != 584) failures++, printf("FAILED sizes\n");
    BAD(kvf_latent_row_bytes(NULL, &other), "format is null");
    BAD(kvf_latent_row_bytes("v4", &other), "no format of rows");
    BAD(kvf_latent_row_bytes(format, NULL), "bytes is null");
    bytes = aligned_alloc(16, ROWS * row);
    for (int i = 0; i < ROWS * D; i++) x[i] = i % 11 - 5.0f;
    for (int i = 0; i < HEADS * D; i++) q[i] = 0x3f80;
    reference();
    plans();
    free(bytes);
    printf("%d cases, %d failures\n", cases, failures);
    return failures != 0;
}
