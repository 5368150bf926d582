/* Every way to call the library wrongly that we could list: each must come back as an error, with a text. */
#include "misuse.h"
#include "tiles.h"

static void codecs(void) {
    kvf_codec *c = (kvf_codec *)garbage;
    double bits;
    uint64_t block;
    int32_t exact;
    BAD(kvf_codec_open(NULL, &c), "name is null");
    if (c) failures++, printf("FAILED: a failed kvf_codec_open left a handle\n");
    BAD(kvf_codec_open("int4", NULL), "codec is null");
    BAD(kvf_codec_open("", &c), "intW (W 2 to 8)");
    BAD(kvf_codec_open("int 4", &c), "unknown codec");
    BAD(kvf_codec_open("\xff\xfe", &c), "unknown codec");
    GOOD(kvf_codec_open("int4", &c));
    GOOD(kvf_codec_exact(c, &exact));
    BAD(kvf_codec_exact(c, NULL), "exact is null");
    GOOD(kvf_codec_close(c));
    BAD(kvf_codec_close(c), "closed already");
    GOOD(kvf_codec_close(NULL));
    BAD(kvf_block_bytes(c, D, PAGE, &block), "closed already");
    BAD(kvf_block_bytes(NULL, D, PAGE, &block), "codec is null");
    BAD(kvf_block_bytes((kvf_codec *)garbage, D, PAGE, &block), "no open codec");
    BAD(kvf_block_bytes(codec, D, PAGE, NULL), "bytes is null");
    BAD(kvf_block_bytes(codec, D, PAGE, (uint64_t *)((char *)&block + 1)), "multiple of 8");
    BAD(kvf_stored_bits_per_element(codec, D, NULL), "bits is null");
    int32_t dims[] = {0, -1, 1, 63, 80, 1024, INT_MIN, INT_MAX}, pages[] = {0, -1, 1, 33, INT_MIN, INT_MAX};
    for (size_t i = 0; i < 8; i++) NOT(kvf_block_bytes(codec, dims[i], PAGE, &block)), NOT(kvf_stored_bits_per_element(codec, dims[i], &bits));
    for (size_t i = 0; i < 6; i++) NOT(kvf_block_bytes(codec, D, pages[i], &block));
    if (kvf_codec_name(-1) || kvf_codec_name(kvf_codec_count()) || kvf_codec_name(INT_MIN)) failures++, printf("FAILED names\n");
    cases += 3;
}

static void reference(void) {
    kvf_cache c = cache();
    kvf_store_args s = store();
    kvf_decode_args a = decode();
    GOOD(try_store(c, s));
    GOOD(try_decode(c, a));
    BAD(kvf_ref_store(NULL, KVF_DTYPE_F32, &c, &s), "codec is null");
    BAD(kvf_ref_store(codec, KVF_DTYPE_F32, NULL, &s), "kvf_cache is null");
    BAD(kvf_ref_store(codec, KVF_DTYPE_F32, &c, NULL), "kvf_store_args is null");
    BAD(kvf_ref_store(codec, KVF_DTYPE_F32, (kvf_cache *)((char *)&c + 4), &s), "multiple of 8");
    BAD(kvf_ref_decode(NULL, KVF_DTYPE_F32, HEADS, &c, &a), "codec is null");
    BAD(kvf_ref_decode(codec, KVF_DTYPE_F32, HEADS, NULL, &a), "kvf_cache is null");
    BAD(kvf_ref_decode(codec, KVF_DTYPE_F32, HEADS, &c, NULL), "kvf_decode_args is null");
    int32_t dtypes[] = {0, 3, -1, INT_MIN, INT_MAX}, heads[] = {0, 1, 3, -1, 5, INT_MIN, INT_MAX, 18, 22};
    for (size_t i = 0; i < 5; i++) BAD(kvf_ref_store(codec, dtypes[i], &c, &s), "KVF_DTYPE_BF16"), BAD(kvf_ref_decode(codec, dtypes[i], HEADS, &c, &a), "KVF_DTYPE_BF16");
    for (size_t i = 0; i < 9; i++) NOT(kvf_ref_decode(codec, KVF_DTYPE_F32, heads[i], &c, &a));
    CACHES(STORE_CACHE);
    CACHES(DECODE_CACHE);
    SIZES(STORE_ARGS, store);
    HEADERS(DECODE_ARGS, decode);
    EACH(STORE_ARGS, store, k, NULL, (char *)k + 1, (char *)k + 4, (char *)k + 8);
    EACH(STORE_ARGS, store, v, NULL, (char *)v + 1, (char *)v + 4, (char *)v + 8);
    EACH(STORE_ARGS, store, slots, NULL, (int64_t *)((char *)slots + 4));
    EACH(STORE_ARGS, store, status, NULL, (int32_t *)((char *)status + 1));
    EACH(STORE_ARGS, store, tokens, -1, INT64_MIN, INT64_MAX, 1ll << 31);
    EACH(STORE_ARGS, store, k_token_stride, -1, -8, 1, 129, INT64_MIN, INT64_MAX, INT64_MAX - 7);
    EACH(STORE_ARGS, store, k_head_stride, -1, -8, 1, 65, INT64_MIN, INT64_MAX, INT64_MAX - 7);
    EACH(STORE_ARGS, store, v_token_stride, -1, -8, 1, 129, INT64_MIN, INT64_MAX, INT64_MAX - 7);
    EACH(STORE_ARGS, store, v_head_stride, -1, -8, 1, 65, INT64_MIN, INT64_MAX, INT64_MAX - 7);
    EACH(DECODE_ARGS, decode, q, NULL, (char *)q + 1, (char *)q + 2);
    EACH(DECODE_ARGS, decode, table, NULL, (int32_t *)((char *)table + 1), (int32_t *)((char *)table + 2));
    EACH(DECODE_ARGS, decode, lens, NULL, (int32_t *)((char *)lens + 1));
    EACH(DECODE_ARGS, decode, out, NULL, (char *)out + 1, (char *)out + 2);
    EACH(DECODE_ARGS, decode, lse, (float *)((char *)lse + 1));
    EACH(DECODE_ARGS, decode, status, NULL, (int32_t *)((char *)status + 2));
    EACH(DECODE_ARGS, decode, batch, -1, INT_MIN, INT_MAX, 65536);
    EACH(DECODE_ARGS, decode, table_stride, 0, -1, INT_MIN, INT_MAX, INT_MAX / PAGE + 1);
    EACH(DECODE_ARGS, decode, queries, -1, INT_MIN, INT_MAX);
    EACH(DECODE_ARGS, decode, scale, 0.0f / 0.0f, 1.0f / 0.0f, -1.0f / 0.0f);
    GOOD(try_store(c, WITH(store, tokens, 0)));
    GOOD(try_decode(c, WITH(decode, batch, 0)));
    GOOD(try_decode(c, WITH(decode, lse, NULL)));
}

static int32_t places[TOKENS] = {0, 1, 2, 3, 4};
static _Alignas(16) float turns[8 * D], norm[D], given[TOKENS * HEADS * D];
static kvf_rope rope(void) {
    return (kvf_rope){.struct_size = sizeof(kvf_rope), .abi_version = KVF_ABI_VERSION, .cos_sin = turns, .positions = 8, .k_norm = norm,
        .q_norm = norm, .q = k, .q_out = given, .k_out = given, .q_token_stride = 0, .q_head_stride = D, .rotary_dim = D, .heads = HEADS,
        .flags = KVF_ROPE_NORM | KVF_ROPE_WEIGHTS | KVF_ROPE_QUERIES | KVF_ROPE_KEYS_OUT, .epsilon = 1e-6f};
}
static int try_rope(kvf_rope r) {
    kvf_store_args a = store();
    a.rope = &r, a.positions = places;
    return try_store(cache(), a);
}

/* Keys as projections leave them. */
static void roped(void) {
    kvf_rope r = rope();
    kvf_store_args a = store();
    kvf_cache c = cache();
    GOOD(try_rope(r));
    HEADERS(try_rope, rope);
    EACH(try_rope, rope, cos_sin, NULL, (char *)turns + 2);
    EACH(try_rope, rope, positions, 0, -1, INT64_MIN, INT64_MAX, 1ll << 31);
    EACH(try_rope, rope, k_norm, NULL, (float *)((char *)norm + 2));
    EACH(try_rope, rope, q_norm, NULL, (float *)((char *)norm + 2));
    EACH(try_rope, rope, q, NULL, (char *)k + 4);
    EACH(try_rope, rope, q_out, NULL, (char *)given + 2);
    EACH(try_rope, rope, k_out, NULL, (char *)given + 2);
    EACH(try_rope, rope, q_token_stride, -8, 4, INT64_MIN, INT64_MAX);
    EACH(try_rope, rope, q_head_stride, -8, 4, INT64_MIN, INT64_MAX);
    EACH(try_rope, rope, rotary_dim, 0, -1, 8, 24, D + 16, INT_MIN, INT_MAX);
    EACH(try_rope, rope, flags, 64, -1, KVF_ROPE_WEIGHTS, INT_MIN, INT_MAX);
    EACH(try_rope, rope, heads, 0, 1, 3, -1, INT_MIN, INT_MAX);
    EACH(try_rope, rope, epsilon, -1.0f, 0.0f / 0.0f, 1.0f / 0.0f);
    a.rope = &r;
    BAD(try_store(c, a), "positions is null");
    r.k_norm = r.q_norm = NULL, r.q = NULL, r.q_out = r.k_out = NULL, r.heads = 0, r.flags = KVF_ROPE_NORM;
    GOOD(try_rope(r));
    r.cos_sin = NULL;
    a.positions = places;
    BAD(try_store(c, a), "cos_sin is null");
    /* A position beyond the table stores nothing and is raised. */
    void *before = malloc(count);
    memcpy(before, bytes, count);
    int32_t far[TOKENS] = {8, -1, 9, INT_MAX, INT_MIN};
    memset(status, 0, sizeof status);
    r = rope(), a = store(), a.rope = &r, a.positions = far;
    GOOD(try_store(c, a));
    cases++;
    if (!status[KVF_STATUS_BAD_LENGTH] || memcmp(before, bytes, count) || given[0] != 0.0f) failures++, printf("FAILED positions\n");
    free(before);
    /* Of plans. */
    kvf_plan_desc d = desc();
    kvf_plan *plan;
    d.rotary_dim = D;
    BAD(kvf_plan_create(&d, &plan), "without KVF_PLAN_ROPE");
    d.flags = KVF_PLAN_ROPE, d.rope = 64;
    BAD(kvf_plan_create(&d, &plan), "the flags of rope");
    d.rope = KVF_ROPE_WEIGHTS, d.rotary_dim = 24;
    expect("a plan of no rope", kvf_plan_create(&d, &plan), KVF_ERR_UNSUPPORTED, "rotary dim of 24 (served: multiples of 16");
    d.rope = rope().flags, d.rotary_dim = D;
    int rc = kvf_plan_create(&d, &plan);
    expect("a plan with rope", rc, rc == KVF_OK ? KVF_OK : rc == KVF_ERR_NO_NVRTC ? KVF_ERR_NO_NVRTC : KVF_ERR_NO_GPU, "");
    if (rc) return;
    r = rope(), a = store(), a.positions = places;
    BAD(kvf_store(plan, &c, &a, NULL), "cannot store");
    a.rope = &r, r.rotary_dim = 32;
    BAD(kvf_store(plan, &c, &a, NULL), "rotary_dim is 32 here and 64 in the plan");
    r = rope(), r.flags |= KVF_ROPE_INTERLEAVED;
    BAD(kvf_store(plan, &c, &a, NULL), "flags of rope");
    r = rope(), r.cos_sin = NULL;
    BAD(kvf_store(plan, &c, &a, NULL), "cos_sin is null");
    r = rope(), r.q_out = k;
    BAD(kvf_store(plan, &c, &a, NULL), "q_out lies over q");
    r = rope(), r.q_norm = NULL;
    BAD(kvf_store(plan, &c, &a, NULL), "q_norm is null");
    GOOD(kvf_plan_destroy(plan));
}

/* Two query tokens of a sequence are two sequences of one, the first a token shorter. */
static void several(void) {
    int32_t twice[BATCH * STRIDE] = {0, 1, 0, 1}, each[BATCH] = {1, 2}, both = 2;
    float alone[BATCH * HEADS * D];
    kvf_decode_args a = decode();
    a.table = twice, a.lens = each;
    GOOD(try_decode(cache(), a));
    memcpy(alone, out, sizeof out);
    memset(out, 0xff, sizeof out);
    a.lens = &both, a.batch = 1, a.queries = 2;
    GOOD(try_decode(cache(), a));
    cases++;
    if (memcmp(alone, out, sizeof out)) failures++, printf("FAILED several query tokens\n");
}

/* Bad device-side data is no error of the call: it is skipped and raised in status. */
static void statuses(void) {
    int64_t far[TOKENS] = {PAGES * PAGE, 0, -5, 1, INT64_MAX};
    int32_t pages[BATCH * STRIDE] = {PAGES, 0, 0, 0}, lengths[BATCH] = {1, STRIDE * PAGE + 1};
    memset(status, 0, sizeof status);
    GOOD(try_store(cache(), WITH(store, slots, far)));
    GOOD(try_decode(cache(), WITH(decode, table, pages)));
    GOOD(try_decode(cache(), WITH(decode, lens, lengths)));
    cases++;
    if (!status[KVF_STATUS_BAD_SLOT] || !status[KVF_STATUS_BAD_PAGE] || !status[KVF_STATUS_BAD_LENGTH]) failures++, printf("FAILED status\n");
}

/* Sizes, and plans of slots, which `int4` has none of. */
static void slots_of_codecs(void) {
    kvf_codec *c;
    kvf_plan_desc d = desc();
    kvf_plan *plan;
    uint64_t slot = 0;
    GOOD(kvf_codec_open("turboquant_4bit_nc", &c));
    GOOD(kvf_slot_bytes(c, D, &slot));
    if (slot != 70) failures++, printf("FAILED slot bytes: %d\n", (int)slot);
    BAD(kvf_slot_bytes(c, D, NULL), "bytes is null");
    BAD(kvf_slot_bytes(NULL, D, &slot), "codec is null");
    NOT(kvf_slot_bytes(c, 80, &slot));
    NOT(kvf_slot_bytes(c, -1, &slot));
    expect("slots of int4", kvf_slot_bytes(codec, D, &slot), KVF_ERR_UNSUPPORTED, "slots of int4 (served: the turboquant");
    d.flags = KVF_PLAN_SLOTS, d.slot_page_tokens = 16;
    expect("a plan for slots of int4", kvf_plan_create(&d, &plan), KVF_ERR_UNSUPPORTED, "slots of int4");
    d.codec = c, d.slot_page_tokens = 0;
    expect("pages of no slots", kvf_plan_create(&d, &plan), KVF_ERR_UNSUPPORTED, "pages of 0 slots");
    d.slot_page_tokens = 16;
    int rc = kvf_plan_create(&d, &plan);
    expect("a plan for slots", rc, rc == KVF_OK ? KVF_OK : rc == KVF_ERR_NO_NVRTC ? KVF_ERR_NO_NVRTC : KVF_ERR_NO_GPU, "");
    if (rc == KVF_OK) {
        kvf_slots sl = slotted();
        kvf_move_args mv = moves();
        kvf_store_args s = store();
        kvf_cache k_ = cache();
        BAD(kvf_store(plan, &k_, &s, NULL), "cannot store");
        sl.token_stride = 139;
        BAD(kvf_store_slots(plan, &sl, &s, NULL), "even number of bytes");
        sl = slotted(), sl.bytes = 100;
        BAD(kvf_store_slots(plan, &sl, &s, NULL), "has 100 bytes");
        sl = slotted(), sl.page_tokens = 8;
        BAD(kvf_import_slots(plan, &sl, &k_, &mv, NULL), "page_tokens is 8 here and 16 in the plan");
        sl = slotted(), mv.places = NULL;
        k_.bytes *= 2;
        BAD(kvf_export_slots(plan, &sl, &k_, &mv, NULL), "places is null");
        GOOD(kvf_plan_destroy(plan));
    }
    GOOD(kvf_codec_close(c));
}

static void plans(void) {
    kvf_plan_desc d = desc();
    kvf_cache c = cache();
    kvf_store_args s = store();
    kvf_decode_args a = decode();
    kvf_slots sl = slotted();
    kvf_move_args mv = moves();
    kvf_merge_args mg = {.struct_size = sizeof mg, .abi_version = KVF_ABI_VERSION};
    kvf_plan *plan;
    kvf_step *step = NULL;
    uint64_t need;
    BAD(kvf_plan_create(&d, NULL), "plan is null");
    BAD(kvf_plan_create(NULL, &plan), "kvf_plan_desc is null");
    BAD(kvf_plan_create((kvf_plan_desc *)((char *)&d + 4), &plan), "multiple of 8");
    HEADERS(try_plan, desc);
    EACH(try_plan, desc, codec, NULL, (kvf_codec *)garbage);
    EACH(try_plan, desc, device, -1, INT_MIN, INT_MAX, 4096);
    EACH(try_plan, desc, queries, -1, INT_MIN);
    EACH(try_plan, desc, head_dim, 0, -1, 63, 80, 512, INT_MIN, INT_MAX);
    EACH(try_plan, desc, heads, 0, -1, 1, 3, 18, 2 * 17, INT_MIN, INT_MAX);
    EACH(try_plan, desc, kv_heads, 0, -1, 3, 5, INT_MIN, INT_MAX);
    EACH(try_plan, desc, page_tokens, 0, -1, 1, 33, INT_MIN, INT_MAX);
    EACH(try_plan, desc, dtype, 0, 3, -1, INT_MIN, INT_MAX);
    EACH(try_plan, desc, splits, -1, INT_MIN);
    EACH(try_plan, desc, flags, 0, 4, 8, 15, 16, 48, 128, -1, INT_MIN, INT_MAX);
    EACH(try_plan, desc, rotary_dim, -1, 64, INT_MIN, INT_MAX);
    EACH(try_plan, desc, rope, -1, 1, INT_MIN, INT_MAX);
    EACH(try_plan, desc, slot_page_tokens, -1, 16, INT_MIN, INT_MAX);
    kvf_plan *bad[] = {NULL, garbage, (kvf_plan *)codec, (kvf_plan *)1, (kvf_plan *)&d};
    for (size_t i = 0; i < 5; i++) {
        BAD(kvf_store(bad[i], &c, &s, NULL), "plan");
        BAD(kvf_decode(bad[i], &c, &a, NULL), "plan");
        BAD(kvf_step_create(bad[i], &c, &s, &a, &step), "plan");
        BAD(kvf_step_launch((kvf_step *)bad[i], NULL), "step");
        if (bad[i]) BAD(kvf_step_destroy((kvf_step *)bad[i]), "no open step");
        BAD(kvf_workspace_bytes(bad[i], 1, 1, &need), "plan");
        BAD(kvf_store_slots(bad[i], &sl, &s, NULL), "plan");
        BAD(kvf_import_slots(bad[i], &sl, &c, &mv, NULL), "plan");
        BAD(kvf_export_slots(bad[i], &sl, &c, &mv, NULL), "plan");
        BAD(kvf_merge(bad[i], &mg, NULL), "plan");
        if (bad[i]) BAD(kvf_plan_destroy(bad[i]), "no open plan");
    }
    GOOD(kvf_plan_destroy(NULL));
    GOOD(kvf_step_destroy(NULL));
    int rc = kvf_plan_create(&d, &plan);
    expect("a sound plan", rc, rc == KVF_OK ? KVF_OK : rc == KVF_ERR_NO_NVRTC ? KVF_ERR_NO_NVRTC : KVF_ERR_NO_GPU, "");
    if (rc) return (void)printf("plans on a device: SKIPPED, %s\n", kvf_last_error());
    BAD(kvf_workspace_bytes(plan, -1, 1, &need), "batch");
    BAD(kvf_workspace_bytes(plan, 1, 0, &need), "table_stride");
    BAD(kvf_workspace_bytes(plan, 1, 1, NULL), "bytes is null");
    BAD(kvf_decode(plan, &c, &a, NULL), "workspace is null");
    BAD(kvf_step_create(plan, &c, &s, &a, NULL), "step is null");
    BAD(kvf_step_create(plan, NULL, &s, &a, &step), "kvf_cache is null");
    BAD(kvf_step_create(plan, &c, NULL, NULL, &step), "needs one of them");
    BAD(kvf_step_create(plan, &c, &s, &a, &step), "workspace is null");
    s.tokens = 0;
    BAD(kvf_step_create(plan, &c, &s, NULL, &step), "needs work to record");
    s = store();
    c.kv_heads = 1;
    BAD(kvf_store(plan, &c, &s, NULL), "kv_heads is 1 here and 2 in the plan");
    kvf_load_args ld = loaded();
    c.kv_heads = KV_HEADS;
    BAD(kvf_load(plan, &c, &ld, NULL), "create it with KVF_PLAN_LOAD");
    BAD(kvf_load(garbage, &c, &ld, NULL), "plan");
    GOOD(kvf_plan_destroy(plan));
    BAD(kvf_plan_destroy(plan), "closed already");
    d.flags |= KVF_PLAN_CHECKED;
    GOOD(kvf_plan_create(&d, &plan));
    c.kv_heads = KV_HEADS;
    BAD(kvf_store(plan, &c, &s, NULL), "which CUDA does not know");
    GOOD(kvf_plan_destroy(plan));
}

static void tunings(void) {
    const char *path = "misuse.tuning";
    char text[256];
    uint64_t needed;
    BAD(kvf_tuning_load("/nowhere/at/all"), "/nowhere/at/all");
    FILE *file = fopen(path, "w");
    if (!file) { failures++; return; }
    fputs("kvfuse tuning 2\ndevice X\n", file);
    fclose(file);
    BAD(kvf_tuning_load(path), "tune again");
    if (!(file = fopen(path, "w"))) { failures++; return; }
    fputs("kvfuse tuning 1\ndevice X\n", file);
    fclose(file);
    GOOD(kvf_tuning_load(path));
    remove(path);
    GOOD(kvf_tuning_load(NULL));
    BAD(kvf_plan_tuning(NULL, text, sizeof text, &needed), "plan");
    BAD(kvf_plan_tuning(garbage, text, sizeof text, &needed), "plan");
}

int main(void) {
    char text[4096], small[8];
    uint64_t needed = 0;
    GOOD(kvf_codec_open("int4", &codec));
    GOOD(kvf_block_bytes(codec, D, PAGE, &count));
    count *= PAGES * KV_HEADS;
    bytes = aligned_alloc(16, count);
    for (int i = 0; i < TOKENS * KV_HEADS * D; i++) k[i] = i % 7 - 3.0f, v[i] = i % 5 - 2.0f;
    codecs();
    reference();
    several();
    statuses();
    roped();
    groups();
    loads();
    plans();
    tunings();
    slots_of_codecs();
    GOOD(kvf_doctor(NULL, 0, &needed));
    GOOD(kvf_doctor(small, sizeof small, NULL));
    GOOD(kvf_doctor(text, sizeof text, &needed));
    if (strlen(small) != 7 || strlen(text) + 1 != needed || kvf_abi_version() != KVF_ABI_VERSION || !*kvf_version_string()) failures++;
    if (strcmp(kvf_status_str(INT_MIN), "unknown status") || strcmp(kvf_status_str(0), "ok")) failures++;
    GOOD(kvf_codec_close(codec));
    free(bytes);
    printf("%d cases, %d failures\n", cases, failures);
    return failures != 0;
}
