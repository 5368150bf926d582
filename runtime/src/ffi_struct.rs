//! The structs of the header, and the one way they are read.
//!
//! Each starts with its size and the ABI version and ends with reserved words that must be zero, so a
//! program built with an older or newer header is understood or refused, never misread.
#![allow(unsafe_code)]

use crate::argument::Misuse;
use crate::error::Result;
use crate::ffi::ABI_VERSION;
use kernels_gen::kernels::Elem;

/// What every struct begins with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    struct_size: u32,
    abi_version: u32,
}

/// A struct of the header. `reserved` gives its last words.
///
/// # Safety
/// `#[repr(C)]`, beginning with a [`Header`], of integers, floats and raw pointers only (so that any bits
/// are a value), without padding.
pub(crate) unsafe trait CStruct: Copy {
    const NAME: &'static str;
    fn reserved(&self) -> &[u64];
}

/// `kvf_plan_desc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PlanDesc {
    header: Header,
    pub codec: *mut std::ffi::c_void,
    pub device: i32,
    pub head_dim: i32,
    pub heads: i32,
    pub kv_heads: i32,
    pub page_tokens: i32,
    pub dtype: i32,
    pub splits: i32,
    pub flags: i32,
    pub queries: i32,
    pub slot_page_tokens: i32,
    pub rotary_dim: i32,
    pub rope: i32,
    reserved: [u64; 2],
}

/// `kvf_cache`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Cache {
    header: Header,
    pub base: *mut std::ffi::c_void,
    pub bytes: u64,
    pub pages: i64,
    pub page_tokens: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    pub layer: i32,
    pub calibration: *mut std::ffi::c_void,
    reserved: [u64; 3],
}

/// `kvf_calibration_desc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CalibrationDesc {
    header: Header,
    pub codec: *mut std::ffi::c_void,
    pub path: *const std::ffi::c_char,
    pub model: *const std::ffi::c_char,
    pub positions: i64,
    pub device: i32,
    pub layers: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    reserved: [u64; 4],
}

/// `kvf_store_args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StoreArgs {
    header: Header,
    pub k: *const std::ffi::c_void,
    pub v: *const std::ffi::c_void,
    pub slots: *const i64,
    pub status: *mut i32,
    pub tokens: i64,
    pub k_token_stride: i64,
    pub k_head_stride: i64,
    pub v_token_stride: i64,
    pub v_head_stride: i64,
    pub positions: *const i32,
    pub workspace: *mut std::ffi::c_void,
    pub workspace_bytes: u64,
    pub rope: *const RopeArgs,
    reserved: [u64; 0],
}

/// `kvf_rope`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RopeArgs {
    header: Header,
    pub cos_sin: *const std::ffi::c_void,
    pub positions: i64,
    pub k_norm: *const f32,
    pub q_norm: *const f32,
    pub q: *const std::ffi::c_void,
    pub q_out: *mut std::ffi::c_void,
    pub k_out: *mut std::ffi::c_void,
    pub q_token_stride: i64,
    pub q_head_stride: i64,
    pub rotary_dim: i32,
    pub flags: i32,
    pub heads: i32,
    pub epsilon: f32,
    reserved: [u64; 4],
}

/// `kvf_decode_args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DecodeArgs {
    header: Header,
    pub q: *const std::ffi::c_void,
    pub table: *const i32,
    pub lens: *const i32,
    pub out: *mut std::ffi::c_void,
    pub lse: *mut f32,
    pub workspace: *mut std::ffi::c_void,
    pub workspace_bytes: u64,
    pub status: *mut i32,
    pub batch: i32,
    pub table_stride: i32,
    pub scale: f32,
    pub queries: i32,
    reserved: [u64; 4],
}

/// `kvf_slots`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slots {
    header: Header,
    pub base: *mut std::ffi::c_void,
    pub bytes: u64,
    pub pages: i64,
    pub page_stride: i64,
    pub token_stride: i64,
    pub head_stride: i64,
    pub page_tokens: i32,
    pub kv_heads: i32,
    reserved: [u64; 3],
}

/// `kvf_move_args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MoveArgs {
    header: Header,
    pub slots: *const i64,
    pub places: *const i64,
    pub status: *mut i32,
    pub tokens: i64,
    reserved: [u64; 3],
}

/// `kvf_merge_args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MergeArgs {
    header: Header,
    pub a: *const std::ffi::c_void,
    pub a_lse: *const f32,
    pub b: *const std::ffi::c_void,
    pub b_lse: *const f32,
    pub out: *mut std::ffi::c_void,
    pub lse: *mut f32,
    pub rows: i64,
    reserved: [u64; 3],
}

/// `kvf_load_args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LoadArgs {
    header: Header,
    pub k: *mut std::ffi::c_void,
    pub v: *mut std::ffi::c_void,
    pub slots: *const i64,
    pub status: *mut i32,
    pub tokens: i64,
    reserved: [u64; 3],
}

/// `kvf_latent_desc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LatentDesc {
    header: Header,
    pub format: *const std::ffi::c_char,
    pub device: i32,
    pub flags: i32,
    reserved: [u64; 4],
}

/// `kvf_latent_cache`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LatentCache {
    header: Header,
    pub base: *mut std::ffi::c_void,
    pub bytes: u64,
    pub rows: i64,
    reserved: [u64; 2],
}

/// `kvf_latent_store_args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LatentStoreArgs {
    header: Header,
    pub x: *const f32,
    pub slots: *const i64,
    pub status: *mut i32,
    pub rows: i64,
    reserved: [u64; 3],
}

/// `kvf_latent_decode_args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LatentDecodeArgs {
    header: Header,
    pub q: *const std::ffi::c_void,
    pub window_at: *const i32,
    pub extra_at: *const i32,
    pub lens: *const i32,
    pub sinks: *const f32,
    pub out: *mut std::ffi::c_void,
    pub lse: *mut f32,
    pub workspace: *mut std::ffi::c_void,
    pub workspace_bytes: u64,
    pub window_capacity: i32,
    pub extra_capacity: i32,
    pub tokens: i32,
    pub heads: i32,
    pub share: i32,
    pub scale: f32,
    reserved: [u64; 4],
}

macro_rules! c_struct {
    ($($t:ty = $name:literal, $size:literal;)*) => { $(
        // SAFETY: repr(C), a header first, plain fields only; the size below leaves no room for padding.
        unsafe impl CStruct for $t {
            const NAME: &'static str = $name;
            fn reserved(&self) -> &[u64] {
                &self.reserved
            }
        }
        // The header's sizes are frozen for ABI version 1.
        const _: () = assert!(size_of::<$t>() == $size && align_of::<$t>() == 8);
    )* };
}
c_struct! {
    PlanDesc = "kvf_plan_desc", 80;
    Cache = "kvf_cache", 80;
    CalibrationDesc = "kvf_calibration_desc", 88;
    StoreArgs = "kvf_store_args", 112;
    RopeArgs = "kvf_rope", 128;
    DecodeArgs = "kvf_decode_args", 120;
    Slots = "kvf_slots", 88;
    MoveArgs = "kvf_move_args", 64;
    MergeArgs = "kvf_merge_args", 88;
    LoadArgs = "kvf_load_args", 72;
    LatentDesc = "kvf_latent_desc", 56;
    LatentCache = "kvf_latent_cache", 48;
    LatentStoreArgs = "kvf_latent_store_args", 64;
    LatentDecodeArgs = "kvf_latent_decode_args", 136;
}

/// Reads a struct of the caller's, checking size, version and reserved words.
///
/// # Safety
/// `from` is null, or points to as many readable bytes as its `struct_size` says.
pub(crate) unsafe fn read<T: CStruct>(from: *const T) -> Result<T> {
    if from.is_null() {
        return Err(Misuse::Null { what: T::NAME, want: "a filled struct" }.into());
    }
    if !from.is_aligned() {
        return Err(Misuse::Misaligned { what: T::NAME, address: from as u64, want: align_of::<T>() as u64 }.into());
    }
    // SAFETY: not null, aligned; a struct has at least its header.
    let header = unsafe { from.cast::<Header>().read() };
    let (given, own) = (header.struct_size as usize, size_of::<T>());
    if given < own {
        let need = own as u64;
        return Err(Misuse::Short { what: T::NAME, have: given as u64, need }.into());
    }
    if header.abi_version != ABI_VERSION {
        let value = i64::from(header.abi_version);
        let allowed = format!("{ABI_VERSION} (KVF_ABI_VERSION)");
        return Err(Misuse::Range { what: "abi_version", value, allowed }.into());
    }
    if given > 4096 {
        return Err(Misuse::Range { what: "struct_size", value: given as i64, allowed: format!("sizeof, {own}") }.into());
    }
    // SAFETY: the caller's struct has `given >= own` bytes.
    let (value, tail) = unsafe { (from.read(), std::slice::from_raw_parts(from.cast::<u8>().add(own), given - own)) };
    if tail.iter().any(|b| *b != 0) || value.reserved().iter().any(|w| *w != 0) {
        let text = format!("{} has fields set that this library does not know; zero the struct before filling it", T::NAME);
        return Err(Misuse::Other(text).into());
    }
    Ok(value)
}

/// `KVF_DTYPE_*`.
pub(crate) fn elem(dtype: i32) -> Result<Elem> {
    match dtype {
        1 => Ok(Elem::Bf16),
        2 => Ok(Elem::F32),
        _ => {
            let allowed = "KVF_DTYPE_BF16 (1) or KVF_DTYPE_F32 (2)".into();
            Err(Misuse::Range { what: "dtype", value: i64::from(dtype), allowed }.into())
        }
    }
}

/// A count that C gives as a signed number.
pub(crate) fn count(what: &'static str, value: impl Into<i64>) -> Result<usize> {
    let value = value.into();
    usize::try_from(value).map_err(|_| Misuse::Range { what, value, allowed: "0 or more".into() }.into())
}
