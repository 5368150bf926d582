"""Rows of one head that is key and value at once, DeepSeek-V4's, from Python: kvfuse_latent.h by ctypes. See kvfuse.py."""

import ctypes
import math
import weakref
from ctypes import byref, c_char_p, c_float, c_int32, c_int64, c_uint64, c_void_p

from kvfuse import _address, _asked, _call, _library, _stream, _struct

DIM = 512
_Desc = _struct("kvf_latent_desc", (c_char_p, "format"), (c_int32, "device flags"), reserved=4)
_Cache = _struct("kvf_latent_cache", (c_void_p, "base"), (c_uint64, "bytes"), (c_int64, "rows"), reserved=2)
_StoreArgs = _struct("kvf_latent_store_args", (c_void_p, "x slots status"), (c_int64, "rows"), reserved=3)
_DecodeArgs = _struct("kvf_latent_decode_args", (c_void_p, "q window_at extra_at lens sinks out lse workspace"), (c_uint64, "workspace_bytes"), (c_int32, "window_capacity extra_capacity tokens heads share"), (c_float, "scale"), reserved=4)


def row_bytes(format):
    """Bytes of a row: 304 of v4_e8w4_int8."""
    return _asked("kvf_latent_row_bytes", c_uint64, format.encode())


class Rows:
    """A cache of `rows` rows in `base`, `rows * row_bytes(format)` bytes that the caller owns, 16-byte aligned."""

    def __init__(self, format, base, rows):
        self.base, self.desc = base, _Cache(base=_address(base), bytes=rows * row_bytes(format), rows=rows)


class Latent:
    """The kernels of a format; on the host (`device` -1) the scalar reference does the work, with the same bits. On a GPU calls enqueue on
    `stream`, by default torch's current one, and nothing waits; `space(bytes)` must give device memory for the workspace."""

    def __init__(self, format, *, device=-1, space=None):
        self.format, self.device, self.space, self.handle = format.encode(), device, space, c_void_p()
        self.workspace, self.workspace_bytes = None, 0
        if device >= 0:
            _call("kvf_latent_create", byref(_Desc(format=self.format, device=device)), byref(self.handle))
            weakref.finalize(self, _library.kvf_latent_destroy, self.handle)

    def store(self, cache, x, slots, status, *, rows, stream=None):
        """Codes and stores x [rows, 512] f32, normed and with RoPE on the last 64, at rows slots [rows] i64 of the cache, below 0 none."""
        args = _StoreArgs(x=_address(x), slots=_address(slots), status=_address(status), rows=rows)
        if self.device < 0:
            return _call("kvf_ref_latent_store", self.format, byref(cache.desc), byref(args))
        _call("kvf_latent_store", self.handle, byref(cache.desc), byref(args), _stream(self.device, stream))

    def decode(self, window, extra, q, window_at, extra_at, lens, sinks, out, lse, *, tokens, heads, capacities, share=640, scale=None, stream=None):
        """Attention of q [tokens, heads, 512] bf16 to the first lens [tokens, 2] i32 indices of window_at and extra_at, i32 [tokens, capacity]
        of both `capacities`, into out like q and lse [tokens, heads] f32. `sinks` [heads] f32 are logits of the denominator, -inf for none.
        Bits depend on `share`; keep it for a sequence. `scale` is 1/sqrt(512) unless given."""
        args = _DecodeArgs(q=_address(q), window_at=_address(window_at), extra_at=_address(extra_at), lens=_address(lens), sinks=_address(sinks), out=_address(out), lse=_address(lse),
                           window_capacity=capacities[0], extra_capacity=capacities[1], tokens=tokens, heads=heads, share=share, scale=scale or 1 / math.sqrt(DIM))
        caches = [byref(cache.desc) if cache else None for cache in (window, extra)]
        if self.device < 0:
            return _call("kvf_ref_latent_decode", self.format, *caches, byref(args))
        need = _asked("kvf_latent_workspace_bytes", c_uint64, self.handle, byref(args))
        if need > self.workspace_bytes:
            self.workspace, self.workspace_bytes = self.space(need), need
        args.workspace, args.workspace_bytes = _address(self.workspace), self.workspace_bytes
        _call("kvf_latent_decode", self.handle, *caches, byref(args), _stream(self.device, stream))
