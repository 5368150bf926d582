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
#if __CUDA_ARCH__ >= 900
  // The barrier that is waited for next, and by how much slots lie further than BYTES / 8 times their barriers: barriers of 8 bytes and slots of BYTES
  // both lie side by side over all warps, so a barrier's address tells its slot.
  u32 bar, apart, waited;
  INLINE_MEMBER u32 slot_of(u32 at) { return at * (BYTES / 8) + apart; }
  // The barrier of the `ahead`-th copy from the next one on. Two barriers lie in 16 bytes.
  INLINE_MEMBER u32 after(u32 ahead) {
    if (STAGES == 2) return ahead % 2 ? bar ^ 8 : bar;
    return bar + ((waited + ahead) % STAGES - waited % STAGES) * 8;
  }
#else
  u8* base; u32 fetched, waited;
#endif
  INLINE_MEMBER void init(int slots, int barriers) {
    int warp = threadIdx.x >> 5;
    waited = 0;
#if __CUDA_ARCH__ >= 900
    bar = shared_addr(smem + barriers) + warp * STAGES * 8;
    apart = shared_addr(smem + slots) + warp * STAGES * BYTES - bar * (BYTES / 8);
    if ((threadIdx.x & 31) == 0) {
      for (int i = 0; i < STAGES; i++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(bar + 8 * i) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
    // Two numbers from here on: the compiler would find them anew for every copy.
    asm volatile("" : "+r"(bar), "+r"(apart));
#else
    base = smem + slots + warp * STAGES * BYTES; fetched = 0;
#endif
  }
  // The `ahead`-th copy after the one that is waited for next. All lanes have left the slot that is written.
  INLINE_MEMBER void fetch(const u8* src, int bytes, int ahead) {
    __syncwarp();
#if __CUDA_ARCH__ >= 900
    u32 at = after(ahead);
    // What is read once leaves the L2 first (the policy of createpolicy.fractional.L2::evict_first), before what waits there.
    // An elected lane, so that the compiler knows of one: else it loops over the lanes.
    asm volatile("{\n.reg .pred one;\nelect.sync _|one, 0xffffffff;\n@one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%3], %2;\n@one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;\n}" :: "r"(slot_of(at)), "l"(src), "r"(bytes), "r"(at), "l"(0x12f0000000000000ull) : "memory");
#else
    u8* dst = base + (waited + ahead) % STAGES * BYTES;
    fetched++;
    for (int i = (threadIdx.x & 31) * 16; i < bytes; i += 512)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(shared_addr(dst + i)), "l"(src + i) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }
  INLINE_MEMBER u8* wait() {
#if __CUDA_ARCH__ >= 900
    u8* slot = (u8*)__cvta_shared_to_generic(slot_of(bar));
    asm volatile("{\n.reg .pred p;\nW: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra D;\nbra W;\nD:\n}" :: "r"(bar), "r"(waited / STAGES & 1) : "memory");
    bar = after(1);
    waited++;
#else
    u8* slot = base + waited % STAGES * BYTES;
    waited++;
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
