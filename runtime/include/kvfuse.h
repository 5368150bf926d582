/* kvfuse: store keys and values compressed, attend to them without unpacking to memory.
 *
 * An engine keeps its own memory, streams and page allocator. It creates a plan (slow, compiles
 * kernels), asks for the workspace's size, and then calls kvf_store and kvf_decode on its stream.
 *
 * Every function that can fail returns a KVF_* status; kvf_last_error() then has a sentence that says
 * what is wrong and what to do. No call aborts, exits or throws across this border.
 *
 * Structs: zero them (= {0} or memset), set struct_size = sizeof and abi_version = KVF_ABI_VERSION,
 * then fill the rest. A program built with another version of this header is understood or refused.
 *
 * Threads: any call from any thread, on any handle; what may not happen at once is said at a call. Linking, forks, devices, and where
 * an engine's own arguments go: docs/engines.md. DeepSeek-V4's rows: kvfuse_latent.h.
 */
#ifndef KVFUSE_H
#define KVFUSE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVF_ABI_VERSION 1u

/* Status codes. */
enum {
    KVF_OK = 0,
    KVF_ERR_INVALID = 1,     /* an argument is wrong; nothing was enqueued */
    KVF_ERR_UNSUPPORTED = 2, /* sound, but no kernel serves it; all reasons are listed */
    KVF_ERR_NO_GPU = 3,      /* no driver, or no such device; kvf_ref_* still work */
    KVF_ERR_NO_NVRTC = 4,    /* nothing to compile with; see KVF_NVRTC below */
    KVF_ERR_COMPILE = 5,     /* the kernel did not compile */
    KVF_ERR_CUDA = 6,        /* the driver failed; possibly a sticky error of earlier work */
    KVF_ERR_PANIC = 7        /* a fault of kvfuse; the library stays usable */
};

/* Types of the numbers in k, v, q and out. */
enum { KVF_DTYPE_BF16 = 1, KVF_DTYPE_F32 = 2 };

/* Plan flags. CHECKED asks the driver about every address before each launch: for bring-up. SLOTS: kvf_store_slots,
 * kvf_import_slots, kvf_export_slots. ROPE: kvf_store of keys as projections leave them, see kvf_rope.
 * MERGE: kvf_merge. LOAD: kvf_load. */
enum {
    KVF_PLAN_STORE = 1, KVF_PLAN_DECODE = 2, KVF_PLAN_CHECKED = 4, KVF_PLAN_SLOTS = 8, KVF_PLAN_ROPE = 16, KVF_PLAN_MERGE = 32,
    KVF_PLAN_LOAD = 64
};

/* What keys pass before they are stored, a sum. INTERLEAVED: neighbours turn together (GPT-J), not coordinates half of
 * rotary_dim apart (NeoX, Hugging Face). NORM: each head is divided by its root mean square first, and with WEIGHTS
 * multiplied by a weight a coordinate. BF16: cos_sin is bf16, not f32. QUERIES: queries pass too. KEYS_OUT: keys are also
 * given back. */
enum {
    KVF_ROPE_INTERLEAVED = 1, KVF_ROPE_NORM = 2, KVF_ROPE_WEIGHTS = 4, KVF_ROPE_BF16 = 8, KVF_ROPE_QUERIES = 16,
    KVF_ROPE_KEYS_OUT = 32
};

/* Words of a status, 4 x int32 that the caller zeroes once: kernels set them and never clear one. */
enum {
    KVF_STATUS_BAD_SLOT = 0,   /* 1: a slot beyond the cache; that token was not stored */
    KVF_STATUS_BAD_PAGE = 1,   /* 1: a page outside the cache; that sequence's out is 0, its lse -inf */
    KVF_STATUS_BAD_LENGTH = 2, /* 1: a length below 0 or beyond the table; likewise. Or a token's position that the
                                * calibration was not loaded for, or that cos_sin has no row of; that token was not stored */
    KVF_STATUS_WHERE = 3       /* index of one offender, a token or a sequence (not set by kvf_ref_*) */
};

/* Handles are looked up, not followed: one that is closed or garbage gives KVF_ERR_INVALID. */
typedef struct kvf_codec kvf_codec;
typedef struct kvf_plan kvf_plan;
typedef struct kvf_step kvf_step;
typedef struct kvf_calibration kvf_calibration;

/* What a plan is compiled for. */
typedef struct {
    uint32_t struct_size, abi_version;
    kvf_codec *codec;
    int32_t device;      /* CUDA ordinal; its primary context is used */
    int32_t head_dim;    /* store: 64, 128, 256, 512; decode: 64, 128, 256 */
    int32_t heads;       /* query heads, a multiple of kv_heads: 1 to 8 or 16 times */
    int32_t kv_heads;
    int32_t page_tokens; /* a multiple of 32 */
    int32_t dtype;       /* KVF_DTYPE_* */
    int32_t splits;      /* most blocks a sequence and kv head; 0: fill the device. Never changes a bit. */
    int32_t flags;       /* KVF_PLAN_* */
    int32_t queries;     /* query tokens a sequence that kvf_decode shall take, about: 2 to 4 speculative ones, or a
                          * chunk of a prompt; any number is then served. 0 or 1: one */
    int32_t slot_page_tokens; /* with KVF_PLAN_SLOTS: tokens of a page of slots, any number; else 0 */
    int32_t rotary_dim;       /* with KVF_PLAN_ROPE: coordinates that turn, a multiple of 16; else 0 */
    int32_t rope;             /* likewise: KVF_ROPE_* */
    uint64_t reserved[2];
} kvf_plan_desc;

/* A paged cache. Page p of kv head h is at base + (p * kv_heads + h) * kvf_block_bytes(). */
typedef struct {
    uint32_t struct_size, abi_version;
    void *base; /* 16-byte aligned */
    uint64_t bytes;
    int64_t pages;
    int32_t page_tokens, kv_heads, head_dim;
    int32_t layer;                /* of the calibration, from 0; else 0 */
    kvf_calibration *calibration; /* of a kvfuse codec; else null */
    uint64_t reserved[3];
} kvf_cache;

/* A calibration: what `harness calibrate` fitted to a model. The kvfuse codecs code in its coordinates. */
typedef struct {
    uint32_t struct_size, abi_version;
    kvf_codec *codec;   /* kvfuse-2, -3, -4 or -6 */
    const char *path;   /* the file */
    const char *model;  /* the sha256 of the model's files that the file must name, or null: any */
    int64_t positions;  /* tokens of the longest sequence */
    int32_t device;     /* CUDA ordinal; -1: none, for kvf_ref_* alone */
    int32_t layers, kv_heads, head_dim; /* of the model; a file of another shape is refused */
    uint64_t reserved[4];
} kvf_calibration_desc;

/* Keys as projections leave them, with a plan of KVF_PLAN_ROPE: kvf_store normalises and turns them, all in f32, and codes
 * them, in one launch. What it does not look at may be null or 0. Outputs may not lie over their inputs. */
typedef struct {
    uint32_t struct_size, abi_version;
    const void *cos_sin;  /* [positions, rotary_dim]: rotary_dim / 2 cosines, then as many sines; 16-byte aligned */
    int64_t positions;    /* rows of it; a token at another position is not stored, and raised in status */
    const float *k_norm;  /* WEIGHTS: [head_dim], f32 whatever the plan's dtype, 16-byte aligned */
    const float *q_norm;  /* likewise, with QUERIES */
    const void *q;        /* QUERIES: [tokens, heads, head_dim], strided like k */
    void *q_out;          /* [tokens, heads, head_dim], contiguous as kvf_decode takes them, 16-byte aligned */
    void *k_out;          /* KEYS_OUT: [tokens, kv_heads, head_dim], likewise */
    int64_t q_token_stride, q_head_stride;
    int32_t rotary_dim, flags, heads; /* as in the plan; heads: with QUERIES */
    float epsilon;                    /* NORM: added to the mean square */
    uint64_t reserved[4];
} kvf_rope;

/* Rows [tokens, kv_heads, head_dim]; a row is contiguous, strides are in elements, multiples of 8. */
typedef struct {
    uint32_t struct_size, abi_version;
    const void *k, *v;    /* 16-byte aligned */
    const int64_t *slots; /* [tokens]: page * page_tokens + offset; below 0: padding, skipped */
    int32_t *status;      /* [4], zeroed once by the caller */
    int64_t tokens;
    int64_t k_token_stride, k_head_stride, v_token_stride, v_head_stride;
    /* With a calibration or rope; else null. */
    const int32_t *positions; /* [tokens]: each token's place in its sequence, from 0 */
    /* With a calibration; else null and 0. */
    void *workspace;          /* 16-byte aligned, in use until the work has run; unused by kvf_ref_store */
    uint64_t workspace_bytes;
    const kvf_rope *rope;     /* of a plan with KVF_PLAN_ROPE, read by the call; else null */
} kvf_store_args;

/* One query token a sequence, or `queries`: then q and out are [batch, queries, heads, head_dim], lse [batch, queries,
 * heads], and token i sees the first lens - queries + i + 1 tokens (where that is below 1 its out is 0, its lse -inf). Each
 * has the bits that it would have by itself. */
typedef struct {
    uint32_t struct_size, abi_version;
    const void *q;        /* [batch, heads, head_dim], 16-byte aligned */
    const int32_t *table; /* [batch, table_stride]: each sequence's pages in order */
    const int32_t *lens;  /* [batch]: tokens of each sequence, the new one included */
    void *out;            /* [batch, heads, head_dim], 16-byte aligned */
    float *lse;           /* [batch, heads] natural log of the sum of exponentials, or null */
    void *workspace;      /* 16-byte aligned, in use until the work has run; unused by kvf_ref_decode */
    uint64_t workspace_bytes;
    int32_t *status; /* [4], zeroed once by the caller */
    int32_t batch, table_stride;
    float scale;     /* on q.k, usually 1/sqrt(head_dim) */
    int32_t queries; /* query tokens a sequence; 0 means 1 */
    uint64_t reserved[4];
} kvf_decode_args;

/* A cache of slots as vLLM's TurboQuant has it: a token's bytes side by side, [page, token of the page, kv head] with strides
 * in bytes, all even. An engine that keeps this layout brings tokens into a kvf_cache before it decodes them there. */
typedef struct {
    uint32_t struct_size, abi_version;
    void *base; /* 2-byte aligned */
    uint64_t bytes;
    int64_t pages;
    int64_t page_stride, token_stride, head_stride;
    int32_t page_tokens, kv_heads;
    uint64_t reserved[3];
} kvf_slots;

/* Tokens that move between slots and a kvf_cache. */
typedef struct {
    uint32_t struct_size, abi_version;
    const int64_t *slots;  /* [tokens]: page * page_tokens + offset in the kvf_slots; below 0: padding, skipped */
    const int64_t *places; /* [tokens]: likewise in the kvf_cache */
    int32_t *status;       /* [4], zeroed once by the caller */
    int64_t tokens;
    uint64_t reserved[3];
} kvf_move_args;

/* Two attention states of the same query rows over different tokens, and where the state over both goes: it may be one of
 * them. A state is what kvf_decode gives: out [rows, head_dim], 16-byte aligned, and lse [rows]; rows are batch * heads. */
typedef struct {
    uint32_t struct_size, abi_version;
    const void *a;
    const float *a_lse;
    const void *b;
    const float *b_lse;
    void *out;
    float *lse;
    int64_t rows;
    uint64_t reserved[3];
} kvf_merge_args;

/* Tokens that a cache gives back as rows [tokens, kv_heads, head_dim], contiguous, of the plan's dtype. */
typedef struct {
    uint32_t struct_size, abi_version;
    void *k, *v;          /* 16-byte aligned */
    const int64_t *slots; /* [tokens]; below 0: that token's rows are left as they are */
    int32_t *status;      /* [4], zeroed once by the caller */
    int64_t tokens;
    uint64_t reserved[3];
} kvf_load_args;

/* The ABI's and the library's version. Any thread; never fail. */
uint32_t kvf_abi_version(void);
const char *kvf_version_string(void);

/* A status in words. Any thread; static text. */
const char *kvf_status_str(int32_t status);

/* The sentence of this thread's last failed call.
 * Each thread has its own; valid until that thread's next failing call. */
const char *kvf_last_error(void);

/* What this machine has and what will run where, as text; *needed gets its bytes with the zero.
 * Any thread. Opens the devices; not while a stream is being captured. */
int32_t kvf_doctor(char *buffer, uint64_t capacity, uint64_t *needed);

/* The codecs known, by index. Any thread; static text, null past the last. */
int32_t kvf_codec_count(void);
const char *kvf_codec_name(int32_t index);

/* Opens a codec; close it when no plan is to be created from it any more (plans keep what they need).
 * Any thread. No GPU needed. */
int32_t kvf_codec_open(const char *name, kvf_codec **codec);

/* Opens a codec of the pca_* family whose name says _fitted, with levels fitted to a model: 2 to 16 rising f32 of keys, and of values; null
 * for a half whose table is another. Copied. Any thread. No GPU needed. */
int32_t kvf_codec_open_fitted(const char *name, const float *keys, int32_t n_keys, const float *values, int32_t n_values, kvf_codec **codec);
int32_t kvf_codec_close(kvf_codec *codec);

/* Bytes of one page of one kv head, keys and values; a cache takes pages * kv_heads times that.
 * Any thread. No GPU needed. */
int32_t kvf_block_bytes(kvf_codec *codec, int32_t head_dim, int32_t page_tokens, uint64_t *bytes);

/* Bits a cached number takes, scales included (bf16: 16).
 * Any thread. No GPU needed. */
int32_t kvf_stored_bits_per_element(kvf_codec *codec, int32_t head_dim, double *bits);

/* 1 if kvf_decode gives the same bits as kvf_ref_decode (its sums are integers), else 0.
 * Any thread. No GPU needed. */
int32_t kvf_codec_exact(kvf_codec *codec, int32_t *exact);

/* Reads a calibration and puts its maps on a device: 4 * layers * kv_heads * (4 head_dim^2 + 2 head_dim) bytes there.
 * Any thread. Allocates, takes seconds for large models; never call it while a stream is being captured. */
int32_t kvf_calibration_load(const kvf_calibration_desc *desc, kvf_calibration **calibration);

/* Opens the codec of a layer: its cache has the bytes that kvf_block_bytes says of it, and its plans are created for it.
 * Layers with the same bands share them: their kvf_block_bytes and kernels are equal. Close it like any codec.
 * Any thread. */
int32_t kvf_calibration_codec(kvf_calibration *calibration, int32_t layer, kvf_codec **codec);

/* Frees it, once the device has done what was enqueued; null is allowed.
 * Any thread. No call may be in progress with it, no captured graph may name it. */
int32_t kvf_calibration_close(kvf_calibration *calibration);

/* Compiles (or finds in the cubin cache) and loads a plan's kernels: milliseconds to seconds.
 * Any thread. Allocates; never call it while a stream is being captured. */
int32_t kvf_plan_create(const kvf_plan_desc *desc, kvf_plan **plan);

/* Forgets a plan; null is allowed. Kernels stay loaded for the next plan.
 * Any thread. Work already enqueued is unaffected. */
int32_t kvf_plan_destroy(kvf_plan *plan);

/* Plans created from now on read this tuning, what `harness tune` measured on a device; null: back to KVF_TUNING or the
 * shipped one. A file of another version is refused here. One for another device, or for kernels that have changed since,
 * is left aside by the plans. Never changes a bit. Any thread; for the whole process. */
int32_t kvf_tuning_load(const char *path);

/* Which tuning a plan goes by, or why it goes by its own rules, as text; *needed gets its bytes with the zero. Any thread. */
int32_t kvf_plan_tuning(kvf_plan *plan, char *buffer, uint64_t capacity, uint64_t *needed);

/* Bytes of device memory that kvf_decode needs as workspace; ask once for the largest batch and stride.
 * Any thread. Concurrent kvf_decode calls need a workspace each. */
int32_t kvf_workspace_bytes(kvf_plan *plan, int32_t batch, int32_t table_stride, uint64_t *bytes);

/* The same for kvf_decode with `queries` query tokens a sequence, of a plan that was created for several.
 * Any thread. Concurrent kvf_decode calls need a workspace each. */
int32_t kvf_queries_workspace_bytes(kvf_plan *plan, int32_t batch, int32_t queries, int32_t table_stride, uint64_t *bytes);

/* Bytes of device memory that kvf_store needs as workspace for so many tokens: 0 for the codecs there are.
 * Any thread. Concurrent kvf_store calls need a workspace each. */
int32_t kvf_store_workspace_bytes(kvf_plan *plan, int64_t tokens, uint64_t *bytes);

/* Enqueues coding and storing of new tokens. All pointers are device addresses.
 * Any thread; a CUstream/cudaStream_t of the plan's device (null: legacy default). No allocation, no wait,
 * no read-back: may be captured. The thread's current context is the same afterwards.
 * The kivi_* codecs code whole tiles: tokens is a multiple of 32, and of each 32 the first one's slot, a multiple of 32, says
 * where all go. */
int32_t kvf_store(kvf_plan *plan, const kvf_cache *cache, const kvf_store_args *args, void *stream);

/* Codes a block of the pca_* codecs: 512 keys and values [512, head_dim] of one kv head, host f32, become the page of that kv head, host
 * memory of kvf_block_bytes(codec, head_dim, 512) bytes, to be copied to (page * kv_heads + head) * kvf_block_bytes. A basis is fitted to
 * the block, so it takes the host milliseconds. Such a cache has pages of 512 tokens; the newest tokens, up to 511, lie in one of bf16,
 * and kvf_merge joins the two. There is no kvf_store for these codecs.
 * Any thread. */
int32_t kvf_encode_block(kvf_codec *codec, int32_t head_dim, const float *k, const float *v, void *page);

/* Bases that all blocks share (names with _share) lie in a page of their own. kvf_fit_bases makes it of one kv head, from keys and values
 * [tokens, head_dim], host f32, at least two tokens: of a text fitted ahead, or of a sequence's prompt. It is copied as blocks are, and the
 * first entry of a sequence's row of the page table names it; tokens begin with the second entry, so a row has one entry more, and
 * many sequences may name one page. Blocks are then coded by kvf_encode_block_under, bases: the page of their kv head.
 * Any thread. */
int32_t kvf_fit_bases(kvf_codec *codec, int32_t head_dim, int64_t tokens, const float *k, const float *v, void *page);
int32_t kvf_encode_block_under(kvf_codec *codec, int32_t head_dim, const void *bases, const float *k, const float *v, void *page);

/* Enqueues attention of the query tokens of each sequence; lens and tables are read on the device only.
 * Any thread; stream as for kvf_store. No allocation, no wait, no read-back: may be captured; a replay
 * sees new lens, tables, q. */
int32_t kvf_decode(kvf_plan *plan, const kvf_cache *cache, const kvf_decode_args *args, void *stream);

/* Enqueues giving stored tokens back: raw ones of a bf16 cache that are to be coded otherwise, or what a codec made of rows. Of a plan
 * with KVF_PLAN_LOAD; not for the kivi and kvfuse codecs. The same bits as kvf_ref_load.
 * Any thread; stream as for kvf_store. No allocation, no wait, no read-back: may be captured. */
int32_t kvf_load(kvf_plan *plan, const kvf_cache *cache, const kvf_load_args *args, void *stream);

/* Enqueues joining two attention states: a prefix that sequences share and what each has of its own, or coded tokens and raw
 * ones. With m the larger lse, a = 2^((a_lse - m) log2 e), b likewise: out = fma(b_out, b, a_out a) / (a + b),
 * lse = m + ln 2 log2(a + b); a state of lse -inf has no tokens, and the other passes unchanged. Of a plan with
 * KVF_PLAN_MERGE, for its head_dim and dtype. The same bits as kvf_ref_merge.
 * Any thread; stream as for kvf_store. No allocation, no wait, no read-back: may be captured. */
int32_t kvf_merge(kvf_plan *plan, const kvf_merge_args *args, void *stream);

/* Records a layer's step: kvf_store, then kvf_decode, either of which may be left out as null. Addresses, strides, scale and the
 * numbers of tokens and of sequences are as recorded; rows, slots, lens and tables are read on the device at each launch.
 * Any thread. Allocates and captures a stream of its own; never call it while a stream is being captured. */
int32_t kvf_step_create(kvf_plan *plan, const kvf_cache *cache, const kvf_store_args *store, const kvf_decode_args *decode, kvf_step **step);

/* Enqueues a recorded step: one call of the driver, a fraction of what its launches take one by one. The same bits.
 * Any thread; stream as for kvf_store, but not one that is being captured: call kvf_store and kvf_decode there. Launches of one
 * step run one after another, whatever their streams. */
int32_t kvf_step_launch(kvf_step *step, void *stream);

/* Forgets a step; null is allowed. Its plan and calibration may be destroyed before it, but not before its work has run.
 * Any thread. Not before its last launch has run. */
int32_t kvf_step_destroy(kvf_step *step);

/* Bytes of a token of one kv head in slots: `turboquant_*` codecs, the very bytes of vLLM's.
 * Any thread. No GPU needed. */
int32_t kvf_slot_bytes(kvf_codec *codec, int32_t head_dim, uint64_t *bytes);

/* Enqueues coding of new tokens into slots; args->slots are places in the kvf_slots. Of a plan with KVF_PLAN_SLOTS.
 * Any thread; stream as for kvf_store. No allocation, no wait, no read-back: may be captured. */
int32_t kvf_store_slots(kvf_plan *plan, const kvf_slots *slots, const kvf_store_args *args, void *stream);

/* Enqueues moving tokens from slots into a cache that kvf_decode reads, and back. Codes stay as they are; on the way back a
 * corrected norm may be one f16 step off.
 * Any thread; stream as for kvf_store. No allocation, no wait, no read-back: may be captured. */
int32_t kvf_import_slots(kvf_plan *plan, const kvf_slots *slots, const kvf_cache *cache, const kvf_move_args *args, void *stream);
int32_t kvf_export_slots(kvf_plan *plan, const kvf_slots *slots, const kvf_cache *cache, const kvf_move_args *args, void *stream);

/* The same computations in plain scalar code on the CPU, all pointers to host memory; slow. Where
 * kvf_codec_exact says so the GPU gives the same bits. Any thread; synchronous. No GPU needed. */
int32_t kvf_ref_store(kvf_codec *codec, int32_t dtype, const kvf_cache *cache, const kvf_store_args *args);
int32_t kvf_ref_decode(kvf_codec *codec, int32_t dtype, int32_t heads, const kvf_cache *cache, const kvf_decode_args *args);
int32_t kvf_ref_load(kvf_codec *codec, int32_t dtype, const kvf_cache *cache, const kvf_load_args *args);
int32_t kvf_ref_merge(int32_t dtype, int32_t head_dim, const kvf_merge_args *args);

/* Environment, read by the first call that needs it:
 *   KVF_NVRTC       the libnvrtc file to use, exactly
 *   KVF_NVRTC_DIR   a folder to look in first (a toolkit, or where the nvidia-cuda-nvrtc wheel was unpacked)
 *   KVF_CACHE_DIR   where cubins are kept (default $XDG_CACHE_HOME/kvfuse or ~/.cache/kvfuse); off: nowhere
 *   KVF_TUNING      the tuning that plans read; off: none, plans go by their own rules
 *   KVF_DUMP_DIR    keep each kernel's text, log and cubin here */

#ifdef __cplusplus
}
#endif
#endif
