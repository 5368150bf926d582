"""kvfuse from Python: the C library by ctypes, nothing to build or install.

Rows are contiguous torch tensors on a GPU, or anything in host memory with a writable buffer (torch CPU tensors, numpy
arrays, array.array): then the scalar reference does the work, slowly, with the same bits where the codec promises them.

The library is found in $KVFUSE_LIB or ../../target/release (cargo build --release -p runtime).
"""

import ctypes
import math
import os
import weakref
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path

ABI_VERSION = 1
BF16, F32 = 1, 2
STORE, DECODE, ROPE = 1, 2, 16
INTERLEAVED, NORM, WEIGHTS, TABLE_BF16, QUERIES = 1, 2, 4, 8, 16


class Error(RuntimeError):
    """What the library says of a failed call; `status` is its KVF_ERR_* number."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


class _Struct(Structure):
    """A struct of kvfuse.h: sized and versioned, the rest zero."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(type(self)), abi_version=ABI_VERSION, **fields)


def _struct(name, *fields, reserved):
    head = [("struct_size", c_uint32), ("abi_version", c_uint32)]
    rows = [(field, kind) for kind, fields in fields for field in fields.split()]
    return type(name, (_Struct,), {"_fields_": head + rows + [("reserved", c_uint64 * reserved)]})


_PlanDesc = _struct("kvf_plan_desc", (c_void_p, "codec"), (c_int32, "device head_dim heads kv_heads page_tokens dtype splits flags queries slot_page_tokens rotary_dim rope"), reserved=2)
_Cache = _struct("kvf_cache", (c_void_p, "base"), (c_uint64, "bytes"), (c_int64, "pages"), (c_int32, "page_tokens kv_heads head_dim layer"), (c_void_p, "calibration"), reserved=3)
_CalibrationDesc = _struct("kvf_calibration_desc", (c_void_p, "codec"), (c_char_p, "path model"), (c_int64, "positions"), (c_int32, "device layers kv_heads head_dim"), reserved=4)
_StoreArgs = _struct("kvf_store_args", (c_void_p, "k v slots status"), (c_int64, "tokens k_token_stride k_head_stride v_token_stride v_head_stride"), (c_void_p, "positions workspace"), (c_uint64, "workspace_bytes"), (c_void_p, "rope"), reserved=0)
_RopeArgs = _struct("kvf_rope", (c_void_p, "cos_sin"), (c_int64, "positions"), (c_void_p, "k_norm q_norm q q_out k_out"), (c_int64, "q_token_stride q_head_stride"), (c_int32, "rotary_dim flags heads"), (c_float, "epsilon"), reserved=4)
_DecodeArgs = _struct("kvf_decode_args", (c_void_p, "q table lens out lse workspace"), (c_uint64, "workspace_bytes"), (c_void_p, "status"), (c_int32, "batch table_stride"), (c_float, "scale"), (c_int32, "queries"), reserved=4)


def _open():
    built = Path(__file__).resolve().parents[2] / "target" / "release" / "libruntime.so"
    library = ctypes.CDLL(os.environ.get("KVFUSE_LIB", str(built)))
    library.kvf_last_error.restype = library.kvf_codec_name.restype = c_char_p
    return library


_library = _open()


def _call(name, *arguments):
    status = getattr(_library, name)(*arguments)
    if status:
        raise Error(status, _library.kvf_last_error().decode())


def _asked(name, kind, *arguments):
    """What a call writes behind its last pointer."""
    value = kind()
    _call(name, *arguments, byref(value))
    return value.value


def _address(rows):
    """Where the numbers of a tensor or buffer begin; None stays None."""
    if rows is None or isinstance(rows, int):
        return rows
    if hasattr(rows, "data_ptr"):
        return rows.data_ptr()
    return ctypes.addressof(ctypes.c_char.from_buffer(rows))


def _stream(device, stream):
    """The stream given, else torch's current one."""
    if stream is None:
        import torch

        stream = torch.cuda.current_stream(device).cuda_stream
    return c_void_p(stream)


def codecs():
    """The names of the registry. More are understood: e8q1 .. e8q255, KEYS/VALUES, A+B+C+D."""
    return [_library.kvf_codec_name(i).decode() for i in range(_library.kvf_codec_count())]


class Codec:
    """A codec by its name; a `kvfuse-N` for a model comes from its Calibration."""

    def __init__(self, name, *, handle=None, calibration=None, layer=0):
        self.name, self.handle, self.calibration, self.layer = name, handle or c_void_p(), calibration, layer
        if not handle:
            _call("kvf_codec_open", name.encode(), byref(self.handle))
        weakref.finalize(self, _library.kvf_codec_close, self.handle)

    def block_bytes(self, head_dim, page_tokens):
        """Bytes of a page of one kv head, keys and values."""
        return _asked("kvf_block_bytes", c_uint64, self.handle, head_dim, page_tokens)

    def bits(self, head_dim):
        """Stored bits a number, scales included."""
        return _asked("kvf_stored_bits_per_element", c_double, self.handle, head_dim)

    def exact(self):
        """Whether the GPU gives the reference's bits."""
        return bool(_asked("kvf_codec_exact", c_int32, self.handle))


class Calibration:
    """What `harness calibrate` fitted to a model of so many layers, for sequences of up to `positions` tokens; `device` -1 is the host."""

    def __init__(self, name, path, *, layers, kv_heads, head_dim, positions, device=-1):
        self.name, self.handle, of = name, c_void_p(), Codec(name)
        desc = _CalibrationDesc(codec=of.handle, path=os.fsencode(path), positions=positions, device=device, layers=layers, kv_heads=kv_heads, head_dim=head_dim)
        _call("kvf_calibration_load", byref(desc), byref(self.handle))
        weakref.finalize(self, _library.kvf_calibration_close, self.handle)

    def codec(self, layer):
        """The codec of a layer, in coordinates of its own."""
        own = c_void_p()
        _call("kvf_calibration_codec", self.handle, layer, byref(own))
        return Codec(self.name, handle=own, calibration=self, layer=layer)


class Rope:
    """What keys and queries of a layer pass on their way: a norm of each head if weights [head_dim] f32 are given, then RoPE by
    cos_sin [positions, rotary_dim], f32 (or bf16: `bf16`): cosines, then sines. Neighbours turn together if `interleaved`, as in GPT-J;
    else coordinates half of rotary_dim apart. Tensors are held here, so that they live as long."""

    def __init__(self, cos_sin, positions, rotary_dim, *, k_norm=None, q_norm=None, epsilon=1e-6, interleaved=False, bf16=False):
        self.cos_sin, self.positions, self.rotary_dim, self.k_norm, self.q_norm, self.epsilon = cos_sin, positions, rotary_dim, k_norm, q_norm, epsilon
        self.flags = QUERIES | (INTERLEAVED if interleaved else 0) | (NORM | WEIGHTS if k_norm is not None else 0) | (TABLE_BF16 if bf16 else 0)

    def args(self, q, q_out, heads, head_dim):
        return _RopeArgs(cos_sin=_address(self.cos_sin), positions=self.positions, k_norm=_address(self.k_norm), q_norm=_address(self.q_norm), q=_address(q), q_out=_address(q_out),
                         q_token_stride=heads * head_dim, q_head_stride=head_dim, rotary_dim=self.rotary_dim, flags=self.flags, heads=heads, epsilon=self.epsilon)


class Cache:
    """Pages of one layer in `base`, `pages * kv_heads * codec.block_bytes(head_dim, page_tokens)` bytes that the caller owns.

    `heads` query heads attend to `kv_heads`; `dtype` is that of k, v, q and out. On a GPU (`device` >= 0) calls enqueue on
    `stream`, by default torch's current one, and nothing waits; `space(bytes)` must give device memory for the workspace. With a
    `rope` keys and queries are given as projections leave them, q and q_out [tokens, heads, head_dim] beside k and v.
    """

    def __init__(self, codec, base, pages, *, heads, kv_heads, head_dim, page_tokens=64, dtype=BF16, device=-1, space=None, rope=None):
        self.rope = rope
        self.codec, self.base, self.pages, self.dtype, self.device, self.space = codec, base, pages, dtype, device, space
        self.heads, self.kv_heads, self.head_dim, self.page_tokens = heads, kv_heads, head_dim, page_tokens
        count = pages * kv_heads * codec.block_bytes(head_dim, page_tokens)
        self.desc = _Cache(base=_address(base), bytes=count, pages=pages, page_tokens=page_tokens, kv_heads=kv_heads, head_dim=head_dim, layer=codec.layer, calibration=codec.calibration and codec.calibration.handle)
        self.plans, self.workspace, self.workspace_bytes = {}, None, 0
        if device >= 0:
            self._plan(1)

    def store(self, k, v, slots, status, *, tokens, positions=None, q=None, q_out=None, stream=None):
        """Codes and stores rows k, v [tokens, kv_heads, head_dim] at slots [tokens] i64: page * page_tokens + offset, below 0
        none. `status` [4] i32 is zeroed once by the caller; `positions` [tokens] i32 is for calibrated codecs and for a rope, which makes q ready for `decode` as q_out."""
        row = self.head_dim
        args = _StoreArgs(k=_address(k), v=_address(v), slots=_address(slots), status=_address(status), tokens=tokens, positions=_address(positions),
                          k_token_stride=self.kv_heads * row, k_head_stride=row, v_token_stride=self.kv_heads * row, v_head_stride=row)
        rope = self.rope and self.rope.args(q, q_out, self.heads, row)
        args.rope = ctypes.addressof(rope) if rope else None
        if self.device < 0:
            return _call("kvf_ref_store", self.codec.handle, self.dtype, byref(self.desc), byref(args))
        _call("kvf_store", self._plan(1), byref(self.desc), byref(args), _stream(self.device, stream))

    def decode(self, q, table, lens, out, status, *, batch, stride, queries=1, lse=None, scale=None, stream=None):
        """Attention of q [batch, queries, heads, head_dim] over the first lens [batch] i32 tokens of the pages in table
        [batch, stride] i32, into out like q and lse [batch, queries, heads] f32 (natural log). Of several queries the last
        sees all tokens, each one before it one less. `scale` is 1/sqrt(head_dim) unless given."""
        args = _DecodeArgs(q=_address(q), table=_address(table), lens=_address(lens), out=_address(out), lse=_address(lse), status=_address(status),
                           batch=batch, table_stride=stride, queries=queries, scale=scale or 1 / math.sqrt(self.head_dim))
        if self.device < 0:
            return _call("kvf_ref_decode", self.codec.handle, self.dtype, self.heads, byref(self.desc), byref(args))
        plan = self._plan(queries)
        need = _asked("kvf_queries_workspace_bytes", c_uint64, plan, batch, queries, stride) if queries > 1 else _asked("kvf_workspace_bytes", c_uint64, plan, batch, stride)
        if need > self.workspace_bytes:
            self.workspace, self.workspace_bytes = self.space(need), need
        args.workspace, args.workspace_bytes = _address(self.workspace), self.workspace_bytes
        _call("kvf_decode", plan, byref(self.desc), byref(args), _stream(self.device, stream))

    def _plan(self, queries):
        """Kernels for one query a sequence, for a few, or for a chunk of a prompt; compiled when first asked for."""
        size = 1 if queries == 1 else 4 if queries <= 4 else 64
        if size not in self.plans:
            plan = c_void_p()
            desc = _PlanDesc(codec=self.codec.handle, device=self.device, head_dim=self.head_dim, heads=self.heads, kv_heads=self.kv_heads, page_tokens=self.page_tokens,
                             dtype=self.dtype, flags=(ROPE if self.rope else STORE) | DECODE if size == 1 else DECODE, queries=size)
            if self.rope and size == 1:
                desc.rotary_dim, desc.rope = self.rope.rotary_dim, self.rope.flags
            _call("kvf_plan_create", byref(desc), byref(plan))
            weakref.finalize(self, _library.kvf_plan_destroy, plan)
            self.plans[size] = plan
        return self.plans[size]
