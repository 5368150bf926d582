// One warp: shuffles, votes, byte permutes, matrix transpose.
INLINE float shfl_xor(float v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE i32 shfl_xor(i32 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE u32 shfl_xor(u32 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE i64 shfl_xor(i64 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
// Of lane i % 32.
INLINE i64 of_lane(i64 v, i32 i) { return __shfl_sync(0xffffffffu, v, i); }
INLINE i32 of_lane(i32 v, i32 i) { return __shfl_sync(0xffffffffu, v, i); }
INLINE u32 of_lane(u32 v, i32 i) { return __shfl_sync(0xffffffffu, v, i); }
INLINE float of_lane(float v, i32 i) { return __shfl_sync(0xffffffffu, v, i); }
INLINE bool any_lane(bool p) { return __any_sync(0xffffffffu, p); }
INLINE u32 ballot(bool p) { return __ballot_sync(0xffffffffu, p); }
INLINE u32 prmt(u32 a, u32 b, u32 s) { return __byte_perm(a, b, s); }
// prmt.b32 with the sign bits that __byte_perm masks away
INLINE u32 pick(u32 a, u32 b, u32 s) { u32 d; asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(s)); return d; }
INLINE u32 min_u16x2(u32 a, u32 b) {
#if __CUDA_ARCH__ >= 900
  u32 d; asm("min.u16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b)); return d;
#else
  return __vminu2(a, b);
#endif
}
// fma.rn.bf16x2 with -0: the product, on every architecture from sm_80
INLINE u32 mul_bf16x2(u32 a, u32 b) { u32 d; asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u)); return d; }
// The larger and the smaller of each two bf16
INLINE u32 greater_bf16x2(u32 a, u32 b) { u32 d; asm("max.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b)); return d; }
INLINE u32 lesser_bf16x2(u32 a, u32 b) { u32 d; asm("min.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b)); return d; }
// The squares of the bf16 of w on top of those of sum, each rounded once
INLINE u32 add_squares_bf16x2(u32 sum, u32 w) { u32 d; asm("fma.rn.bf16x2 %0, %1, %1, %2;" : "=r"(d) : "r"(w), "r"(sum)); return d; }
// movmatrix.sync.aligned.m8n8.trans.b16
INLINE u32 movmatrix(u32 a) { u32 d; asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(a)); return d; }
// ldmatrix.sync.aligned.m8n8.x4.shared.b16
INLINE void ldmatrix_x4(u32& a, u32& b, u32& c, u32& d, const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"((u32)__cvta_generic_to_shared(p))); }
// likewise transposed: .trans
INLINE void ldmatrix_x4_trans(u32& a, u32& b, u32& c, u32& d, const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"((u32)__cvta_generic_to_shared(p))); }
// %tid and %ctaid, read where it stands: neither moved nor merged with another reading of it
INLINE i32 thread_anew() { i32 d; asm volatile("mov.u32 %0, %%tid.x;" : "=r"(d)); return d; }
INLINE i32 block_anew_x() { i32 d; asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(d)); return d; }
INLINE i32 block_anew_y() { i32 d; asm volatile("mov.u32 %0, %%ctaid.y;" : "=r"(d)); return d; }
INLINE i32 block_anew_z() { i32 d; asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(d)); return d; }
// cp.async.bulk.prefetch.L2
INLINE void prefetch_some(const void* p, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(p), "r"(bytes));
#endif
}
// What another launch may still be writing: from the L2, and no line of it stays in the L1.
INLINE u32 peek(const void* p) { u32 d; asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(d) : "l"(p)); return d; }
// prefetch.global.L2
INLINE void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" :: "l"(p)); }
// Programmatic dependent launch: without the launch attribute both do nothing.
INLINE void after_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
INLINE void release_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
