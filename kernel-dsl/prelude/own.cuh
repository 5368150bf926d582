// A thread's own memory. By address alone, lest the compiler take it back into registers.
INLINE u64 own_at(const void* p) { u64 a; asm volatile("cvta.to.local.u64 %0, %1;" : "=l"(a) : "l"(p)); return a; }
INLINE u32 own_get1(u64 a) { u32 x; asm volatile("ld.local.b32 %0, [%1];" : "=r"(x) : "l"(a) : "memory"); return x; }
INLINE uint2 own_get2(u64 a) { uint2 x; asm volatile("ld.local.v2.b32 {%0,%1}, [%2];" : "=r"(x.x), "=r"(x.y) : "l"(a) : "memory"); return x; }
INLINE uint4 own_get4(u64 a) { uint4 x; asm volatile("ld.local.v4.b32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(a) : "memory"); return x; }
INLINE void own_put1(u64 a, u32 x) { asm volatile("st.local.b32 [%0], %1;" :: "l"(a), "r"(x) : "memory"); }
INLINE void own_put2(u64 a, u32 x, u32 y) { asm volatile("st.local.v2.b32 [%0], {%1,%2};" :: "l"(a), "r"(x), "r"(y) : "memory"); }
INLINE void own_put4(u64 a, u32 x, u32 y, u32 z, u32 w) { asm volatile("st.local.v4.b32 [%0], {%1,%2,%3,%4};" :: "l"(a), "r"(x), "r"(y), "r"(z), "r"(w) : "memory"); }
