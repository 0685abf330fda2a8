"""Writes the golden files of test/golden/files/safetensors with Python's safetensors.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install safetensors==0.8.0
    /tmp/golden/bin/python test/golden/make_safetensors.py test/golden/files/safetensors

Each NAME.safetensors has a NAME.json beside it: the metadata, and what that library reads back from it of each
tensor, as dtype, shape and sha256. The library writes 20 of the 22 dtypes; the header of `float6` is put
together here, and the library reads it. Only `metadata` differs from run to run: the library writes its keys in
any order.
"""

import ctypes
import hashlib
import json
import platform
import struct
import sys
from pathlib import Path

import safetensors

# The writer takes framework names; the file holds the format's names.
WRITABLE = {
    "BOOL": ("bool", 8),
    "F4": ("float4_e2m1fn_x2", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "I16": ("int16", 16),
    "U16": ("uint16", 16),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "I32": ("int32", 32),
    "U32": ("uint32", 32),
    "F32": ("float32", 32),
    "C64": ("complex64", 64),
    "F64": ("float64", 64),
    "I64": ("int64", 64),
    "U64": ("uint64", 64),
}

METADATA = {
    "format": "pt",
    "": "empty key",
    "quote\"s\\": "new\nline\t\u0001",
    "__proto__": "plain",
    "λ": "😀",
}


def noise(label, length):
    """The same bytes on every run, none of them all zeros."""
    out = b""
    while len(out) < length:
        out += hashlib.sha256(f"{label}:{len(out)}".encode()).digest()
    return out[:length]


def elements(shape):
    count = 1
    for dim in shape:
        count *= dim
    return count


def tensor(label, dtype, shape, data=None):
    length = elements(shape) * WRITABLE[dtype][1] // 8
    data = noise(label, length) if data is None else data
    if dtype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    assert len(data) == length, (label, len(data), length)
    return dtype, list(shape), data


def written(tensors, metadata=None):
    kept = []  # the library borrows the memory until it has written
    specs = {}
    for name, (dtype, shape, data) in tensors.items():
        memory = ctypes.create_string_buffer(data, max(len(data), 1))
        kept.append(memory)
        specs[name] = safetensors.TensorSpec(
            dtype=WRITABLE[dtype][0], shape=shape, data_ptr=ctypes.addressof(memory), data_len=len(data)
        )
    return safetensors.serialize(specs, metadata)


def by_hand(header, data):
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return struct.pack("<Q", len(text)) + text + data


def integers(values, width):
    return b"".join(value.to_bytes(width, "little") for value in values)


def ragged(name, lengths, dtype, inner, width):
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return {
        name: tensor(name, dtype, [offsets[-1], *inner]),
        f"{name}.offsets": tensor(
            name, "I32" if width == 4 else "I64", [len(offsets)], integers(offsets, width)
        ),
    }


def files():
    yield "dtypes", written({f"t.{d}": tensor(d, d, [2, 3]) for d in WRITABLE})
    yield "float6", by_hand(
        {
            "e2m3": {"dtype": "F6_E2M3", "shape": [2, 4], "data_offsets": [0, 6]},
            "e3m2": {"dtype": "F6_E3M2", "shape": [4], "data_offsets": [6, 9]},
        },
        noise("float6", 9),
    )
    yield "scalars", written(
        {"step": tensor("step", "I64", []), "flag": tensor("flag", "BOOL", []), "x": tensor("x", "F32", [1])}
    )
    yield "zero-size", written(
        {
            "empty": tensor("empty", "F32", [0]),
            "empty.inner": tensor("inner", "F64", [3, 0, 5]),
            "also.empty": tensor("also", "F32", [0, 7]),
            "full": tensor("full", "U8", [5]),
            "last": tensor("last", "BOOL", [0]),
        }
    )
    yield "no-tensors", written({})
    yield "metadata", written({"w": tensor("w", "F32", [2, 2])}, METADATA)
    yield "names", written(
        {
            "": tensor("none", "U8", [1]),
            "ñandú.重み": tensor("bmp", "U8", [2]),
            "😀": tensor("astral", "U8", [3]),
            "\uffee": tensor("late", "U8", [4]),
            "with \"quotes\" \\ and /": tensor("quotes", "U8", [5]),
            "tab\tnew\nline\u0000": tensor("control", "U8", [6]),
            "__proto__": tensor("proto", "U8", [7]),
            "constructor": tensor("constructor", "U8", [8]),
        }
    )
    yield "rows", written(
        {
            "image": tensor("image", "U8", [6, 4, 4]),
            "label": tensor("label", "I32", [6]),
            "embedding": tensor("embedding", "BF16", [6, 8]),
        }
    )
    yield "ragged", written(
        {
            **ragged("tokens", [3, 0, 5, 1], "I32", [], 4),
            **ragged("boxes", [1, 2, 0, 4], "F32", [4], 8),
            "id": tensor("id", "U64", [4]),
        }
    )
    yield "white-space", padded_by_white_space()


def padded_by_white_space():
    plain = by_hand({"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}, b"abc")
    text = plain[8:-3]
    around = b"\n\t " + text + b" \r\n" + b" " * 40
    return struct.pack("<Q", len(around)) + around + b"abc"


def expected(content):
    read = safetensors.deserialize(content)
    return {
        name: {
            "dtype": entry["dtype"],
            "shape": entry["shape"],
            "sha256": hashlib.sha256(bytes(entry["data"])).hexdigest(),
        }
        for name, entry in sorted(read)
    }


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files():
        (folder / f"{name}.safetensors").write_bytes(content)
        with open(folder / f"{name}.json", "w") as out:
            metadata = METADATA if name == "metadata" else {}
            json.dump({"metadata": metadata, "tensors": expected(content)}, out, indent=1)
            out.write("\n")
    versions = {"python": platform.python_version(), "safetensors": safetensors.__version__}
    (folder / "versions.json").write_text(json.dumps(versions) + "\n")


main()
