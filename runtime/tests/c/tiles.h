/* Misuse of whole tiles, of states that are merged, and of rows that come back. */
static void groups(void) {
    kvf_codec *c = NULL;
    kvf_plan_desc d = desc();
    kvf_store_args s = store();
    kvf_cache k_ = cache();
    kvf_plan *plan;
    uint64_t bytes = 0;
    double bits = 0;
    GOOD(kvf_codec_open("kivi_k2v2", &c));
    GOOD(kvf_block_bytes(c, 128, 32, &bytes));
    GOOD(kvf_stored_bits_per_element(c, 128, &bits));
    if (bytes != 3072 || bits != 3.0) failures++, printf("FAILED tiles of groups: %d bytes, %g bits\n", (int)bytes, bits);
    expect("tiles of 256 dims", kvf_block_bytes(c, 256, 32, &bytes), KVF_ERR_UNSUPPORTED, "head dim 256 (served: 64, 128)");
    d.codec = c, d.queries = 4;
    expect("several queries over groups", kvf_plan_create(&d, &plan), KVF_ERR_INVALID, "codes groups of 32 tokens");
    k_.bytes = (uint64_t)1 << 40, s.tokens = 33;
    BAD(kvf_ref_store(c, KVF_DTYPE_BF16, &k_, &s), "store a multiple of 32");
    float x[2][64] = {{1, 2}, {3}}, lse[2] = {0, -1.0f / 0.0f}, into = 0;
    kvf_merge_args m = {.struct_size = sizeof m, .abi_version = KVF_ABI_VERSION, .a = x[0], .a_lse = lse, .b = x[1], .b_lse = lse + 1, .out = x[1], .lse = &into, .rows = 1};
    GOOD(kvf_ref_merge(KVF_DTYPE_F32, 64, &m));
    if (memcmp(x[0], x[1], sizeof x[0]) || into != 0) failures++, printf("FAILED merge with nothing\n");
    NOT(kvf_ref_merge(KVF_DTYPE_F32, 80, &m));
    NOT(kvf_ref_merge(7, 64, &m));
    BAD(kvf_ref_merge(KVF_DTYPE_F32, 64, NULL), "kvf_merge_args is null");
    m.rows = -1;
    BAD(kvf_ref_merge(KVF_DTYPE_F32, 64, &m), "rows is -1");
    m.rows = 1, m.b_lse = NULL;
    BAD(kvf_ref_merge(KVF_DTYPE_F32, 64, &m), "b_lse is null");
    m.reserved[2] = 1;
    BAD(kvf_ref_merge(KVF_DTYPE_F32, 64, &m), "does not know");
    GOOD(kvf_codec_close(c));
}

/* Stored rows that come back. */
static int try_load(kvf_load_args a) { kvf_cache c = cache(); return kvf_ref_load(codec, KVF_DTYPE_F32, &c, &a); }
static kvf_load_args loaded(void) {
    static _Alignas(16) float rows[2][TOKENS * KV_HEADS * D];
    return (kvf_load_args){.struct_size = sizeof(kvf_load_args), .abi_version = KVF_ABI_VERSION, .k = rows[0], .v = rows[1], .slots = slots, .status = status, .tokens = TOKENS};
}
static void loads(void) {
    kvf_load_args a = loaded();
    kvf_cache c = cache();
    kvf_codec *tiles;
    float *rows = a.k;
    rows[2 * KV_HEADS * D] = 77.0f; /* of the token whose slot is -1 */
    GOOD(try_store(c, store()));
    GOOD(try_load(a));
    cases++;
    if (rows[2 * KV_HEADS * D] != 77.0f || rows[0] > -2.5f || rows[0] < -3.5f) failures++, printf("FAILED load: %g, %g\n", rows[0], rows[2 * KV_HEADS * D]);
    HEADERS(try_load, loaded);
    EACH(try_load, loaded, k, NULL, (char *)k + 1);
    EACH(try_load, loaded, v, NULL, (char *)k + 2);
    EACH(try_load, loaded, slots, NULL, (int64_t *)((char *)slots + 4));
    EACH(try_load, loaded, status, NULL, (int32_t *)((char *)status + 1));
    EACH(try_load, loaded, tokens, -1, INT64_MIN, INT64_MAX, 1ll << 31);
    BAD(kvf_ref_load(codec, KVF_DTYPE_F32, NULL, &a), "kvf_cache is null");
    BAD(kvf_ref_load(codec, 7, &c, &a), "KVF_DTYPE_BF16");
    GOOD(kvf_codec_open("kivi_k2v2", &tiles));
    c.bytes = (uint64_t)1 << 40;
    BAD(kvf_ref_load(tiles, KVF_DTYPE_F32, &c, &a), "load takes codecs that code tokens");
    GOOD(kvf_codec_close(tiles));
}
