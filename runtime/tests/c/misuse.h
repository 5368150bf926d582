/* Arguments of calls that are right, and ways to spoil one field at a time. */
#include "expect.h"

_Static_assert(sizeof(kvf_plan_desc) == 80 && sizeof(kvf_cache) == 80, "frozen for ABI 1");
_Static_assert(sizeof(kvf_store_args) == 112 && sizeof(kvf_decode_args) == 120, "frozen for ABI 1");
_Static_assert(offsetof(kvf_plan_desc, queries) == 48 && offsetof(kvf_plan_desc, reserved) == 64, "frozen");
_Static_assert(sizeof(kvf_rope) == 128 && offsetof(kvf_rope, rotary_dim) == 80 && offsetof(kvf_store_args, rope) == 104, "frozen");
_Static_assert(offsetof(kvf_cache, head_dim) == 40 && offsetof(kvf_cache, calibration) == 48, "frozen");
_Static_assert(offsetof(kvf_store_args, tokens) == 40 && offsetof(kvf_store_args, positions) == 80, "frozen");
_Static_assert(sizeof(kvf_calibration_desc) == 88 && offsetof(kvf_calibration_desc, device) == 40, "frozen");
_Static_assert(sizeof(kvf_slots) == 88 && sizeof(kvf_move_args) == 64 && offsetof(kvf_slots, page_tokens) == 56, "frozen");
_Static_assert(offsetof(kvf_decode_args, scale) == 80 && offsetof(kvf_decode_args, queries) == 84 && offsetof(kvf_decode_args, reserved) == 88, "frozen");

enum { D = 64, HEADS = 4, KV_HEADS = 2, PAGE = 32, PAGES = 3, STRIDE = 2, BATCH = 2, TOKENS = 5 };
static kvf_codec *codec;
static kvf_plan *const garbage = (kvf_plan *)0xdeadbeef;
static _Alignas(16) float k[TOKENS * KV_HEADS * D], v[TOKENS * KV_HEADS * D], q[BATCH * HEADS * D], out[BATCH * HEADS * D];
static float lse[BATCH * HEADS];
static int64_t slots[TOKENS] = {0, 1, -1, 32, 33};
static int32_t table[BATCH * STRIDE] = {0, 1, 2, 0}, lens[BATCH] = {2, 0}, status[4];
static void *bytes;
static uint64_t count;

static kvf_cache cache(void) {
    return (kvf_cache){.struct_size = sizeof(kvf_cache), .abi_version = KVF_ABI_VERSION, .base = bytes, .bytes = count,
                       .pages = PAGES, .page_tokens = PAGE, .kv_heads = KV_HEADS, .head_dim = D};
}
static kvf_store_args store(void) {
    return (kvf_store_args){.struct_size = sizeof(kvf_store_args), .abi_version = KVF_ABI_VERSION, .k = k, .v = v,
        .slots = slots, .status = status, .tokens = TOKENS, .k_token_stride = KV_HEADS * D, .k_head_stride = D,
        .v_token_stride = KV_HEADS * D, .v_head_stride = D};
}
static kvf_decode_args decode(void) {
    return (kvf_decode_args){.struct_size = sizeof(kvf_decode_args), .abi_version = KVF_ABI_VERSION, .q = q, .table = table,
        .lens = lens, .out = out, .lse = lse, .status = status, .batch = BATCH, .table_stride = STRIDE, .scale = 0.125f};
}
static kvf_plan_desc desc(void) {
    return (kvf_plan_desc){.struct_size = sizeof(kvf_plan_desc), .abi_version = KVF_ABI_VERSION, .codec = codec,
        .head_dim = D, .heads = HEADS, .kv_heads = KV_HEADS, .page_tokens = PAGE, .dtype = KVF_DTYPE_F32,
        .flags = KVF_PLAN_STORE | KVF_PLAN_DECODE};
}
static kvf_slots slotted(void) {
    return (kvf_slots){.struct_size = sizeof(kvf_slots), .abi_version = KVF_ABI_VERSION, .base = bytes, .bytes = count, .pages = 1,
        .page_stride = 16 * KV_HEADS * 70, .token_stride = KV_HEADS * 70, .head_stride = 70, .page_tokens = 16, .kv_heads = KV_HEADS};
}
static kvf_move_args moves(void) {
    return (kvf_move_args){.struct_size = sizeof(kvf_move_args), .abi_version = KVF_ABI_VERSION, .slots = slots, .places = slots,
        .status = status, .tokens = TOKENS};
}
static int try_store(kvf_cache c, kvf_store_args a) { return kvf_ref_store(codec, KVF_DTYPE_F32, &c, &a); }
static int try_decode(kvf_cache c, kvf_decode_args a) { return kvf_ref_decode(codec, KVF_DTYPE_F32, HEADS, &c, &a); }
static int try_plan(kvf_plan_desc d) {
    kvf_plan *plan = garbage;
    int rc = kvf_plan_create(&d, &plan);
    if (rc && plan) failures++, printf("FAILED: a failed kvf_plan_create left a handle\n");
    if (!rc) GOOD(kvf_plan_destroy(plan));
    return rc;
}

/* One struct with one field changed to each of the values given. */
#define WITH(make, field, value) __extension__({ __typeof__(make()) s_ = make(); s_.field = value; s_; })
#define EACH(try_, make, field, ...) do { __typeof__(make().field) values_[] = {__VA_ARGS__}; \
    for (size_t i_ = 0; i_ < sizeof values_ / sizeof *values_; i_++) NOT(try_(WITH(make, field, values_[i_]))); } while (0)
#define STORE_CACHE(c) try_store(c, store())
#define STORE_ARGS(a) try_store(cache(), a)
#define DECODE_CACHE(c) try_decode(c, decode())
#define DECODE_ARGS(a) try_decode(cache(), a)
#define SIZES(try_, make) do { EACH(try_, make, struct_size, 0, 1, 8, sizeof(make()) - 1, sizeof(make()) - 8, 5000, UINT32_MAX); \
    EACH(try_, make, abi_version, 0, 2, UINT32_MAX); } while (0)
#define HEADERS(try_, make) do { SIZES(try_, make); \
    for (size_t r_ = 0; r_ < sizeof make().reserved / 8; r_++) EACH(try_, make, reserved[r_], 1, UINT64_MAX); } while (0)
#define CACHES(try_) do { EACH(try_, cache, base, NULL, (char *)bytes + 1, (char *)bytes + 8); \
    EACH(try_, cache, bytes, 0, 1, count - 1); EACH(try_, cache, pages, 0, -1, PAGES + 1, INT64_MIN, INT64_MAX, 1ll << 31); \
    EACH(try_, cache, page_tokens, 0, -1, 1, 31, 33, 64, INT_MIN, INT_MAX, 1 << 17); \
    EACH(try_, cache, kv_heads, 0, -1, 3, INT_MIN, INT_MAX); \
    EACH(try_, cache, head_dim, 0, -1, 1, 63, 65, 80, 96, 128, 1024, INT_MIN, INT_MAX); HEADERS(try_, cache); } while (0)
