/* Every way to load or name a calibration wrongly: each must come back as an error, with a text. No GPU needed.
 * Its argument is the calibration of a model of 6 layers, 2 kv heads and head dim 128. */
#include "expect.h"

enum { D = 128, HEADS = 8, KV_HEADS = 2, PAGE = 32, PAGES = 3, STRIDE = 2, BATCH = 2, TOKENS = 5 };
static const char *file;
static kvf_codec *kvfuse, *own, *plain; /* `own`: with the bands of layer 5 */
static kvf_calibration *calibration;
static _Alignas(16) float k[TOKENS * KV_HEADS * D], q[BATCH * HEADS * D], out[BATCH * HEADS * D];
static int64_t slots[TOKENS] = {0, 1, -1, 32, 33};
static int32_t positions[TOKENS] = {0, 1, -7, 512, 1023}, table[BATCH * STRIDE] = {0, 1, 2, 0}, lens[BATCH] = {2, 0}, status[4];
static void *bytes;
static uint64_t count;

static kvf_calibration_desc desc(void) {
    return (kvf_calibration_desc){.struct_size = sizeof(kvf_calibration_desc), .abi_version = KVF_ABI_VERSION, .codec = kvfuse,
        .path = file, .positions = 1024, .device = -1, .layers = 6, .kv_heads = KV_HEADS, .head_dim = D};
}
static kvf_cache cache(void) {
    return (kvf_cache){.struct_size = sizeof(kvf_cache), .abi_version = KVF_ABI_VERSION, .base = bytes, .bytes = count, .pages = PAGES,
        .page_tokens = PAGE, .kv_heads = KV_HEADS, .head_dim = D, .layer = 5, .calibration = calibration};
}
static kvf_store_args store(void) {
    return (kvf_store_args){.struct_size = sizeof(kvf_store_args), .abi_version = KVF_ABI_VERSION, .k = k, .v = k, .slots = slots,
        .status = status, .tokens = TOKENS, .k_token_stride = KV_HEADS * D, .k_head_stride = D, .v_token_stride = KV_HEADS * D,
        .v_head_stride = D, .positions = positions};
}
static kvf_decode_args decode(void) {
    return (kvf_decode_args){.struct_size = sizeof(kvf_decode_args), .abi_version = KVF_ABI_VERSION, .q = q, .table = table, .lens = lens,
        .out = out, .status = status, .batch = BATCH, .table_stride = STRIDE, .scale = 0.1f};
}
static int try_load(kvf_calibration_desc d) {
    kvf_calibration *made = (kvf_calibration *)&d;
    int rc = kvf_calibration_load(&d, &made);
    if (rc && made) failures++, printf("FAILED: a failed load left a handle\n");
    if (!rc) GOOD(kvf_calibration_close(made));
    return rc;
}
static int try_store(kvf_codec *c, kvf_cache at, kvf_store_args a) { return kvf_ref_store(c, KVF_DTYPE_F32, &at, &a); }
static int try_decode(kvf_codec *c, kvf_cache at, kvf_decode_args a) { return kvf_ref_decode(c, KVF_DTYPE_F32, HEADS, &at, &a); }

/* Several query tokens a sequence: the last one sees what one that comes alone does, the one before it a token less. */
static void several(void) {
    enum { QUERIES = 3 };
    static _Alignas(16) float many[BATCH * QUERIES * HEADS * D], got[BATCH * QUERIES * HEADS * D];
    for (int i = 0; i < BATCH * QUERIES * HEADS * D; i++) many[i] = (float)(i % 11) - 5.0f, got[i] = 9.0f;
    kvf_decode_args a = decode();
    a.q = many, a.out = got, a.queries = QUERIES;
    GOOD(try_decode(own, cache(), a));
    for (int t = 0; t < QUERIES; t++) {
        int32_t len[BATCH] = {t, 0}; /* the first sequence has two tokens: token t of three sees t of them */
        kvf_decode_args one = decode();
        one.q = many + t * HEADS * D, one.lens = len, one.batch = 1;
        GOOD(try_decode(own, cache(), one));
        cases++;
        if (memcmp(out, got + t * HEADS * D, sizeof(float) * HEADS * D)) failures++, printf("FAILED token %d differs from itself alone\n", t);
    }
    cases++;
    for (int i = QUERIES * HEADS * D; i < 2 * QUERIES * HEADS * D; i++)
        if (got[i] != 0.0f) { failures++, printf("FAILED a row without tokens is not 0\n"); break; }
}

#define WITH(make, field, value) __extension__({ __typeof__(make()) s_ = make(); s_.field = value; s_; })

static void loads(const char *other) {
    BAD(kvf_calibration_load(NULL, &calibration), "kvf_calibration_desc is null");
    kvf_calibration_desc d = desc();
    BAD(kvf_calibration_load(&d, NULL), "calibration is null");
    BAD(try_load(WITH(desc, codec, NULL)), "codec is null");
    BAD(try_load(WITH(desc, codec, plain)), "int4 takes no calibration");
    BAD(try_load(WITH(desc, path, NULL)), "path is null");
    BAD(try_load(WITH(desc, path, "/no/such/file")), "/no/such/file cannot be read");
    BAD(try_load(WITH(desc, path, other)), "malformed");
    BAD(try_load(WITH(desc, model, "0123456789abcdef")), "hash d3474abb5848, this one has 0123456789ab");
    BAD(try_load(WITH(desc, positions, 0)), "positions is 0");
    BAD(try_load(WITH(desc, positions, -1)), "positions is -1");
    BAD(try_load(WITH(desc, positions, INT64_MAX)), "positions");
    BAD(try_load(WITH(desc, layers, 7)), "6 layers, 2 kv heads and head dim 128; this one has 7, 2 and 128");
    BAD(try_load(WITH(desc, layers, 0)), "layers is 0");
    BAD(try_load(WITH(desc, kv_heads, 4)), "this one has 6, 4 and 128");
    BAD(try_load(WITH(desc, head_dim, 64)), "this one has 6, 2 and 64");
    BAD(try_load(WITH(desc, device, -2)), "or -1 for none");
    BAD(try_load(WITH(desc, reserved[3], 1)), "zero the struct");
    BAD(try_load(WITH(desc, struct_size, 80)), "has 80 bytes");
    GOOD(try_load(WITH(desc, model, "d3474abb5848e94c61c4e72bba2edcbffe8acfa9f76c012d48a0121b2845cd1e")));
}

static void uses(void) {
    uint64_t need;
    GOOD(try_store(own, cache(), store()));
    GOOD(try_decode(own, cache(), decode()));
    several();
    BAD(try_store(kvfuse, WITH(cache, calibration, NULL), store()), "name a layer of its calibration");
    BAD(try_decode(kvfuse, WITH(cache, calibration, NULL), decode()), "name a layer of its calibration");
    BAD(try_store(kvfuse, WITH(cache, calibration, (kvf_calibration *)kvfuse), store()), "no open calibration");
    BAD(try_store(plain, cache(), store()), "int4 takes no calibration");
    BAD(try_decode(plain, cache(), decode()), "int4 takes no calibration");
    BAD(try_store(own, WITH(cache, layer, 6), store()), "layer is 6");
    BAD(try_decode(own, WITH(cache, layer, -1), decode()), "layer is -1");
    BAD(try_store(own, WITH(cache, kv_heads, 1), store()), "kv_heads is 1 here and 2 in the calibration");
    BAD(try_store(own, cache(), WITH(store, positions, NULL)), "positions is null");
    BAD(try_decode(own, cache(), WITH(decode, table_stride, 33)), "1056 tokens a sequence and the calibration was loaded for 1024");
    BAD(kvf_store_workspace_bytes(NULL, 1, &need), "plan is null");
    kvf_codec *six;
    GOOD(kvf_codec_open("kvfuse-6", &six));
    bytes = realloc(bytes, count *= 4);
    BAD(try_store(six, cache(), store()), "loaded for kvfuse-4");
    GOOD(kvf_codec_close(six));
    /* A position without a turn is no error of the call: the token is not stored, and status says so. */
    positions[3] = 1024;
    GOOD(try_store(own, cache(), store()));
    cases++;
    if (status[KVF_STATUS_BAD_SLOT] || !status[KVF_STATUS_BAD_LENGTH]) failures++, printf("FAILED status\n");
}

int main(int argc, char **argv) {
    file = argc > 1 ? argv[1] : "";
    GOOD(kvf_codec_open("kvfuse-4", &kvfuse));
    GOOD(kvf_codec_open("int4", &plain));
    BAD(kvf_codec_open("kvfuse-5", &kvfuse), "kvfuse-W");
    GOOD(kvf_codec_open("kvfuse-4", &kvfuse));
    for (int i = 0; i < TOKENS * KV_HEADS * D; i++) k[i] = (float)(i % 7) - 3.0f;
    loads(argv[0]);
    kvf_calibration_desc d = desc();
    GOOD(kvf_calibration_load(&d, &calibration));
    BAD(kvf_calibration_codec(NULL, 5, &own), "calibration is null");
    BAD(kvf_calibration_codec(calibration, 6, &own), "layer is 6");
    BAD(kvf_calibration_codec(calibration, 5, NULL), "codec is null");
    GOOD(kvf_calibration_codec(calibration, 5, &own));
    GOOD(kvf_block_bytes(own, D, PAGE, &count));
    count *= PAGES * KV_HEADS;
    bytes = aligned_alloc(16, count);
    uses();
    GOOD(kvf_calibration_close(calibration));
    BAD(kvf_calibration_close(calibration), "closed already");
    BAD(try_store(own, cache(), store()), "closed already");
    GOOD(kvf_calibration_close(NULL));
    free(bytes);
    printf("%d cases, %d failures\n", cases, failures);
    return failures != 0;
}
