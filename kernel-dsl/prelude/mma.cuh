// mma.sync: D = A B + C. Integer sums are exact; float sums are bounded, not ordered.
#define MMA_I(NAME, TYPES) INLINE void NAME(i32& d0, i32& d1, i32& d2, i32& d3, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, i32 c0, i32 c1, i32 c2, i32 c3) { \
  asm("mma.sync.aligned.m16n8k32.row.col.s32." TYPES ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};" \
    : "=r"(d0), "=r"(d1), "=r"(d2), "=r"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c0), "r"(c1), "r"(c2), "r"(c3)); }
#define MMA_F(NAME, TYPES) INLINE void NAME(float& d0, float& d1, float& d2, float& d3, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, float c0, float c1, float c2, float c3) { \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPES ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};" \
    : "=f"(d0), "=f"(d1), "=f"(d2), "=f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(c0), "f"(c1), "f"(c2), "f"(c3)); }
MMA_I(mma_u8s8, "u8.s8")
MMA_I(mma_u8u8, "u8.u8")
MMA_I(mma_s8s8, "s8.s8")
MMA_I(mma_s8u8, "s8.u8")
MMA_F(mma_bf16, "bf16.bf16")
MMA_F(mma_f16, "f16.f16")
