// Numbers: types, conversions. Every rounding is named; compile with --fmad=false.
typedef unsigned char u8; typedef signed char i8; typedef unsigned short u16; typedef int i32;
typedef unsigned int u32; typedef long long i64; typedef unsigned long long u64;
#define INLINE static __device__ __forceinline__
// The compiler does not look through it: what is masked before a shift stays so.
INLINE u32 opaque(u32 x) { asm("" : "+r"(x)); return x; }
INLINE float bits_f32(u32 x) { return __uint_as_float(x); }
INLINE float f16_to_f32(u16 x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y; }
INLINE u16 f32_to_f16(float x) { u16 y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }
INLINE float bf16_to_f32(u16 x) { return __uint_as_float((u32)x << 16); }
INLINE u16 f32_to_bf16(float x) { u16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }
INLINE i32 f32_to_i32(float x) { i32 y; asm("cvt.rzi.s32.f32 %0, %1;" : "=r"(y) : "f"(x)); return y; }
INLINE u32 f32_to_u32(float x) { u32 y; asm("cvt.rzi.u32.f32 %0, %1;" : "=r"(y) : "f"(x)); return y; }
// Unlike the 32-bit forms, this one does not turn a NaN into 0 by itself.
INLINE i64 f32_to_i64(float x) { i64 y; asm("cvt.rzi.s64.f32 %0, %1;" : "=l"(y) : "f"(x)); return x == x ? y : 0; }
INLINE float dmax(float a, float b) { return a < b ? b : a; }
INLINE float dmin(float a, float b) { return b < a ? b : a; }
INLINE i32 dmax(i32 a, i32 b) { return a < b ? b : a; }
INLINE i32 dmin(i32 a, i32 b) { return b < a ? b : a; }
INLINE u32 dmax(u32 a, u32 b) { return a < b ? b : a; }
INLINE u32 dmin(u32 a, u32 b) { return b < a ? b : a; }
INLINE i64 dmax(i64 a, i64 b) { return a < b ? b : a; }
INLINE i64 dmin(i64 a, i64 b) { return b < a ? b : a; }
