// dp4a.u32.s32: the sum is none of the ALU's
INLINE u32 add_dot4(u32 sum, u32 a, u32 b) { u32 d; asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum)); return d; }
// shl.b32, which C++ does not define from 32 bits on
INLINE u32 shifted_out(u32 x, u32 n) { u32 d; asm("shl.b32 %0, %1, %2;" : "=r"(d) : "r"(x), "r"(n)); return d; }
