/* kvfuse: rows of one head that is key and value at once, as DeepSeek-V4 has them: 512 numbers, RoPE on the last 64, seen by all
 * query heads. They are stored as integers under one scale, at a place that the caller chooses, and attended to by lists of places.
 *
 * Everything said in kvfuse.h of structs, handles, threads, streams and errors holds here. */
#ifndef KVFUSE_LATENT_H
#define KVFUSE_LATENT_H

#include "kvfuse.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kvf_latent kvf_latent;

/* What its kernels are compiled for. */
typedef struct {
    uint32_t struct_size, abi_version;
    const char *format;  /* v4_int4_int8, v4_e8w4_int8 or v4_int8_int8: codes of 448 numbers, bytes for RoPE's 64 */
    int32_t device;      /* CUDA ordinal; its primary context is used */
    int32_t flags;       /* 0, or KVF_PLAN_CHECKED */
    uint64_t reserved[4];
} kvf_latent_desc;

/* A cache of rows: the i-th at base + i * kvf_latent_row_bytes(), so row page * page_rows + offset of pages of any size that lie one
 * after another. The window has one, the compressed rows of a layer have another. */
typedef struct {
    uint32_t struct_size, abi_version;
    void *base; /* 16-byte aligned */
    uint64_t bytes;
    int64_t rows;
    uint64_t reserved[2];
} kvf_latent_cache;

typedef struct {
    uint32_t struct_size, abi_version;
    const float *x;       /* [rows, 512], contiguous, 16-byte aligned: as the norm leaves them, RoPE on the last 64 */
    const int64_t *slots; /* [rows]: where each goes, a row of the cache; below 0: padding, skipped */
    int32_t *status;      /* [4], zeroed once by the caller: KVF_STATUS_BAD_SLOT */
    int64_t rows;
    uint64_t reserved[3];
} kvf_latent_store_args;

/* Query tokens, each with two lists of rows under one softmax: the window's, and those that an indexer chose (CSA) or all (HCA).
 * Several query tokens of a sequence have a list each. */
typedef struct {
    uint32_t struct_size, abi_version;
    const void *q;            /* bf16 [tokens, heads, 512], 16-byte aligned */
    const int32_t *window_at; /* [tokens, window_capacity]: rows of the window's cache; one outside of it is nobody's, never read */
    const int32_t *extra_at;  /* [tokens, extra_capacity]: likewise of the other cache */
    const int32_t *lens;      /* [tokens, 2]: how many indices of each list count */
    const float *sinks;       /* [heads]: a logit a head that only the denominator has; -inf: none */
    void *out;                /* bf16 [tokens, heads, 512], 16-byte aligned; 0 for a token without rows */
    float *lse;               /* [tokens, heads] natural log of the sum of exponentials, without the sink; -inf without rows */
    void *workspace;          /* 16-byte aligned, in use until the work has run; unused by kvf_ref_latent_decode */
    uint64_t workspace_bytes;
    int32_t window_capacity, extra_capacity; /* 0: no such list, its cache and indices may be null */
    int32_t tokens;
    int32_t heads;            /* a multiple of 64 */
    int32_t share;            /* rows that a block attends to, a multiple of 128; above it a second launch joins. Bits depend on it,
                               * so keep it for a sequence. 640 has window and 512 chosen rows in one launch */
    float scale;              /* on q.x, usually 1/sqrt(512) */
    uint64_t reserved[4];
} kvf_latent_decode_args;

/* Bytes of a row of a format; also of those that only the reference has. Any thread. No GPU needed. */
int32_t kvf_latent_row_bytes(const char *format, uint64_t *bytes);

/* Compiles (or finds in the cubin cache) and loads the kernels of a format: milliseconds to seconds.
 * Any thread. Allocates; never call it while a stream is being captured. */
int32_t kvf_latent_create(const kvf_latent_desc *desc, kvf_latent **latent);

/* Forgets them; null is allowed. Kernels stay loaded for the next.
 * Any thread. Work already enqueued is unaffected. */
int32_t kvf_latent_destroy(kvf_latent *latent);

/* Bytes of device memory that kvf_latent_decode needs as workspace for these sizes: of args only tokens, heads, capacities and share
 * are looked at. 0 where a share holds both lists. Any thread. Concurrent kvf_latent_decode calls need a workspace each. */
int32_t kvf_latent_workspace_bytes(kvf_latent *latent, const kvf_latent_decode_args *args, uint64_t *bytes);

/* Enqueues coding and storing of rows. All pointers are device addresses.
 * Any thread; stream as for kvf_store. No allocation, no wait, no read-back: may be captured. */
int32_t kvf_latent_store(kvf_latent *latent, const kvf_latent_cache *cache, const kvf_latent_store_args *args, void *stream);

/* Enqueues attention of the query tokens to their lists; lens and indices are read on the device only.
 * Any thread; stream as for kvf_store. No allocation, no wait, no read-back: may be captured; a replay sees new lens, indices, q.
 * The same bits as kvf_ref_latent_decode. */
int32_t kvf_latent_decode(kvf_latent *latent, const kvf_latent_cache *window, const kvf_latent_cache *extra,
                          const kvf_latent_decode_args *args, void *stream);

/* The same computations in plain scalar code on the CPU, all pointers to host memory; slow. They also serve the other formats
 * v4_NOPE_int8, which have no kernels. Any thread; synchronous. No GPU needed. */
int32_t kvf_ref_latent_store(const char *format, const kvf_latent_cache *cache, const kvf_latent_store_args *args);
int32_t kvf_ref_latent_decode(const char *format, const kvf_latent_cache *window, const kvf_latent_cache *extra,
                              const kvf_latent_decode_args *args);

#ifdef __cplusplus
}
#endif
#endif
