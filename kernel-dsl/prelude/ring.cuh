// A warp's queue of asynchronous copies, STAGES slots of at most BYTES bytes.
// sm_90 on: one bulk copy a slot, completion counted by an mbarrier. Before: cp.async groups.
extern __shared__ __align__(1024) u8 smem[];
INLINE u32 shared_addr(const void* p) { return (u32)__cvta_generic_to_shared(p); }
// What barriers order, copies into shared memory that this thread starts later come after as well.
INLINE void copy_over() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
// 16 bytes on their way to shared memory; and all that this thread sent for is there.
INLINE void bring16(void* to, const void* from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(shared_addr(to)), "l"(from) : "memory"); }
INLINE void brought() { asm volatile("cp.async.wait_all;" ::: "memory"); }
template <int STAGES, int BYTES> struct Ring {
  u8* base; u64* full; u32 fetched, waited;
  INLINE_MEMBER void init(int slots, int barriers) {
    int warp = threadIdx.x >> 5;
    base = smem + slots + warp * STAGES * BYTES; fetched = 0; waited = 0;
#if __CUDA_ARCH__ >= 900
    full = (u64*)(smem + barriers) + warp * STAGES;
    if ((threadIdx.x & 31) == 0) {
      for (int i = 0; i < STAGES; i++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(shared_addr(full + i)) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
#endif
  }
  // The `ahead`-th copy after the one that is waited for next. All lanes have left the slot that is written.
  INLINE_MEMBER void fetch(const u8* src, int bytes, int ahead) {
    u32 head = (waited + ahead) % STAGES;
    fetched++;
    u8* dst = base + head * BYTES;
    __syncwarp();
#if __CUDA_ARCH__ >= 900
    // What is read once leaves the L2 first (the policy of createpolicy.fractional.L2::evict_first), before what waits there.
    // An elected lane, so that the compiler knows of one: else it loops over the lanes.
    asm volatile("{\n.reg .pred one;\nelect.sync _|one, 0xffffffff;\n@one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%3], %2;\n@one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;\n}" :: "r"(shared_addr(dst)), "l"(src), "r"(bytes), "r"(shared_addr(full + head)), "l"(0x12f0000000000000ull) : "memory");
#else
    for (int i = (threadIdx.x & 31) * 16; i < bytes; i += 512)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(shared_addr(dst + i)), "l"(src + i) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }
  INLINE_MEMBER u8* wait() {
    u32 tail = waited % STAGES, phase = waited / STAGES & 1;
    u8* slot = base + tail * BYTES;
    waited++;
#if __CUDA_ARCH__ >= 900
    u32 bar = shared_addr(full + tail);
    asm volatile("{\n.reg .pred p;\nW: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra D;\nbra W;\nD:\n}" :: "r"(bar), "r"(phase) : "memory");
#else
    // Groups complete in order: all but the younger ones must be done.
    u32 younger = fetched - waited;
    if (younger == 0) asm volatile("cp.async.wait_group 0;" ::: "memory");
    else if (younger == 1) asm volatile("cp.async.wait_group 1;" ::: "memory");
    else if (younger == 2) asm volatile("cp.async.wait_group 2;" ::: "memory");
    else asm volatile("cp.async.wait_group 3;" ::: "memory");
    __syncwarp();
#endif
    return slot;
  }
};
