"""Writes the golden files of test/golden/files/pack with pyarrow, NumPy and Python's own tarfile.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install pyarrow==26.0.1 numpy==2.4.6
    /tmp/golden/bin/python test/golden/make_pack.py test/golden/files/pack

Each NAME.EXT has a NAME.EXT.json beside it: the values of each column, row by row, or those of each tensor. Bytes are
hex, integers of 64 bits text, missing rows null. Files in `refused` have an error for their kind instead.
"""

import datetime as dt
import decimal
import gzip
import io
import json
import sys
import tarfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 37
EPOCH = dt.datetime(1970, 1, 1)


def micros(value):
    return str((value - EPOCH) // dt.timedelta(microseconds=1))


def save(path, columns):
    Path(f"{path}.json").write_text(json.dumps(columns, sort_keys=True) + "\n")


def parquet_table():
    """A table, and what each of its columns is packed as."""
    k = range(ROWS)
    stamps = [dt.datetime(1965, 3, 1) + dt.timedelta(days=97 * i, microseconds=i) for i in k]
    texts = [None if i % 7 == 3 else f"r\u00e4w \U0001f600 {i % 5}" for i in k]
    lists = [None if i % 9 == 4 else list(range(i % 6)) for i in k]
    vectors = [None if i % 11 == 5 else [i + 0.5, -i, 2.0**-i] for i in k]
    decimals = [decimal.Decimal(i * 37 - 500) / 100 for i in k]
    wide = [decimal.Decimal(10**17 - i) for i in k]
    times = [dt.time(i % 24, 59 - i, i, 1000 * i) for i in k]
    uuids = [uuid.UUID(int=i * 10**30 + 7) for i in k]
    columns = [
        ("i8", [i - 18 for i in k], pa.int8()),
        ("u8", [255 - i for i in k], pa.uint8()),
        ("i16", [None if i % 5 == 2 else i * 800 - 9000 for i in k], pa.int16()),
        ("u16", [65535 - i for i in k], pa.uint16()),
        ("i32", [i * 10**7 - 10**8 for i in k], pa.int32()),
        ("u32", [2**32 - 1 - i for i in k], pa.uint32()),
        ("f16", [np.float16(i / 8) for i in k], pa.float16()),
        ("f32", [i / 4 - 2 for i in k], pa.float32()),
        ("f64", [None if i % 6 == 1 else i / 3 for i in k], pa.float64()),
        ("bool", [None if i % 8 == 1 else i % 3 == 0 for i in k], pa.bool_()),
        ("text", texts, pa.string()),
        ("list", lists, pa.list_(pa.int32())),
        ("vector", vectors, pa.list_(pa.float32(), 3)),
    ]
    expected = {name: [float(v) if isinstance(v, np.float16) else v for v in values] for name, values, _ in columns}
    expected["bool"] = [None if v is None else int(v) for v in expected["bool"]]
    columns += [
        ("i64", [(-1) ** i * (2**62 + i) for i in k], pa.int64()),
        ("u64", [2**64 - 1 - i for i in k], pa.uint64()),
        ("binary", [bytes(range(i % 5)) for i in k], pa.binary()),
        ("fixed", [bytes([i] * 3) for i in k], pa.binary(3)),
        ("decimal", decimals, pa.decimal128(9, 2)),
        ("whole", wide, pa.decimal128(18, 0)),
        ("date", [s.date() for s in stamps], pa.date32()),
        ("millis", [s.replace(microsecond=0) for s in stamps], pa.timestamp("ms")),
        ("micros", stamps, pa.timestamp("us", tz="UTC")),
        ("nanos", [None if i % 4 == 1 else int(micros(s)) * 1000 + i for i, s in enumerate(stamps)], pa.timestamp("ns")),
        ("time", times, pa.time64("us")),
        ("uuid", [u.bytes for u in uuids], pa.uuid()),
    ]
    since = [micros(s) for s in stamps]
    expected |= {
        "i64": [str((-1) ** i * (2**62 + i)) for i in k],
        "u64": [str(2**64 - 1 - i) for i in k],
        "binary": [bytes(range(i % 5)).hex() for i in k],
        "fixed": [bytes([i] * 3).hex() for i in k],
        "decimal": [float(v) for v in decimals],
        "whole": [str(v) for v in wide],
        "date": [(s - EPOCH).days for s in stamps],
        "millis": [micros(s.replace(microsecond=0)) for s in stamps],
        "micros": since,
        "nanos": [None if i % 4 == 1 else v for i, v in enumerate(since)],
        "time": [str(((t.hour * 60 + t.minute) * 60 + t.second) * 10**6 + t.microsecond) for t in times],
        "uuid": [u.bytes.hex() for u in uuids],
        "choice": [None if i % 10 == 9 else "abc"[i % 3] for i in k],
    }
    arrays = {name: pa.array(values, type) for name, values, type in columns if name != "uuid"}
    arrays["uuid"] = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([u.bytes for u in uuids], pa.binary(16)))
    arrays["choice"] = pa.array(expected["choice"]).dictionary_encode()
    return pa.table(arrays), expected


def make_parquet(out):
    table, expected = parquet_table()
    for name, options in {
        "plain": {"compression": "none", "use_dictionary": False},
        "snappy": {"compression": "snappy"},
        "zstd": {"compression": "zstd", "data_page_version": "2.0"},
        "gzip": {"compression": "gzip", "data_page_version": "2.0", "use_dictionary": False},
        "lz4": {"compression": "lz4"},
        "brotli": {"compression": "brotli"},
        "spark": {"compression": "snappy", "use_deprecated_int96_timestamps": True, "store_schema": False},
    }.items():
        pq.write_table(table, out / f"{name}.parquet", row_group_size=15, **options)
        save(out / f"{name}.parquet", expected)
    required = pa.schema([pa.field("id", pa.int32(), False), pa.field("score", pa.float64(), False)])
    pq.write_table(pa.table([[3, 1, 2], [0.5, 0.25, 4.0]], required), out / "required.parquet")
    save(out / "required.parquet", {"id": [3, 1, 2], "score": [0.5, 0.25, 4.0]})
    pq.write_table(pa.table({"a": pa.array([], pa.int64()), "t": pa.array([], pa.string())}), out / "empty.parquet")
    save(out / "empty.parquet", {"a": [], "t": []})
    refused = out / "refused"
    pq.write_table(pa.table({"id": [1], "who": [{"name": "a"}]}), refused / "struct.parquet")
    pq.write_table(pa.table({"id": [1], "tags": [["a"]]}), refused / "texts.parquet")
    pq.write_table(pa.table({"id": [1], "deep": [[[1]]]}), refused / "deep.parquet")
    pq.write_table(pa.table({"id": [1], "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32()))}), refused / "map.parquet")
    pq.write_table(pa.table({"id": [1], "money": pa.array([decimal.Decimal("1.5")], pa.decimal128(38, 2))}), refused / "decimal.parquet")
    pq.write_table(pa.table({"list": [[1], [2, None]]}), refused / "hole.parquet")


def values(array):
    wide = array.dtype.kind in "iu" and array.dtype.itemsize == 8
    return [str(v) if wide else v for v in array.reshape(-1).tolist()] if array.dtype.kind != "b" else array.reshape(-1).astype(int).tolist()


def rows(array):
    nested = array.reshape(array.shape[0], -1)
    return [values(row) if array.ndim > 1 else values(row)[0] for row in nested]


def make_numpy(out):
    k = np.arange(12)
    single = {
        "floats": (k.reshape(4, 3) / 4).astype("<f4"),
        "halves": (k / 8).astype("<f2"),
        "big": (k.reshape(6, 2) * 1000 - 5000).astype(">i4"),
        "bigdouble": (k / 3).astype(">f8"),
        "longs": (k.astype("<i8") - 6) * 2**58,
        "unsigned": (k.astype("<u8") + 2**63),
        "flags": k % 3 == 0,
        "cube": k.reshape(3, 2, 2).astype("<u2"),
        "column": np.asfortranarray(k.reshape(12, 1).astype("<i2")),
    }
    for name, array in single.items():
        np.save(out / f"{name}.npy", array)
        save(out / f"{name}.npy", {name: rows(array)})
    with open(out / "version3.npy", "wb") as file:
        np.lib.format.write_array(file, k.astype("<i1"), version=(3, 0))
    save(out / "version3.npy", {"version3": rows(k.astype("<i1"))})
    table = {"x": single["floats"], "label": np.array([3, 1, 2, 0]), "ok": np.array([True, False, True, True])}
    for name, write in {"stored": np.savez, "deflated": np.savez_compressed}.items():
        write(out / f"{name}.npz", **table)
        save(out / f"{name}.npz", {key: rows(array) for key, array in table.items()})
    tensors = {"weight": single["floats"], "bias": np.array([1.5, -2.0]), "step": np.array(7)}
    np.savez_compressed(out / "tensors.npz", **tensors)
    save(out / "tensors.npz", {key: values(array) for key, array in tensors.items()})
    # Sizes of 64 bits everywhere, as writers to streams leave them.
    with zipfile.ZipFile(out / "zip64.npz", "w") as archive:
        limit, zipfile.ZIP64_LIMIT = zipfile.ZIP64_LIMIT, 10
        with archive.open("x.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, single["floats"])
        archive.close()
        zipfile.ZIP64_LIMIT = limit
    save(out / "zip64.npz", {"x": rows(single["floats"])})
    refused = out / "refused"
    np.save(refused / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(refused / "fields.npy", np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f4")]))
    np.save(refused / "texts.npy", np.array(["a", "bc"]))
    np.save(refused / "fortran.npy", np.asfortranarray(single["floats"]))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def make_tar(out):
    samples = []
    expected = {key: [] for key in ["__key__", "txt", "cls", "jpg", "npy", "seg.npy", "json.id", "json.score", "json.name"]}
    for i in range(9):
        key = f"train/{'long-' * 25 if i == 4 else ''}{i:04d}"
        shapes = {"npy": np.full((2, 2), i, "<f4"), "seg.npy": np.arange(i % 4, dtype=">i2")}
        meta = {"id": i, "score": i if i % 2 else i / 4, "name": None if i == 3 else f"n\u00f6 {i}"}
        files = {"txt": f"caption {i}".encode(), "cls": f"{i * 3}\n".encode(), "json": json.dumps(meta).encode()}
        files |= {"JPG": bytes([0xFF, 0xD8, i]), **{name: npy(a) for name, a in shapes.items()}}
        if i == 5:
            del files["txt"]
        samples += [(f"{key}.{ending}", data) for ending, data in files.items()]
        for name, value in {
            "__key__": key,
            "txt": None if i == 5 else f"caption {i}",
            "cls": str(i * 3),
            "jpg": bytes([0xFF, 0xD8, i]).hex(),
            "npy": [float(i)] * 4,
            "seg.npy": list(range(i % 4)),
            "json.id": str(i),
            "json.score": float(meta["score"]),
            "json.name": meta["name"],
        }.items():
            expected[name].append(value)
    for name, form in {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}.items():
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            folder = tarfile.TarInfo("train")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            archive.addfile(tarfile.TarInfo("train/README"))
            for path, data in samples:
                info = tarfile.TarInfo(path)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        packed = gzip.compress(file.getvalue(), mtime=0)
        (out / f"{name}.tar.gz").write_bytes(packed)
        save(out / f"{name}.tar.gz", expected)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "refused").mkdir(parents=True, exist_ok=True)
    make_parquet(folder)
    make_numpy(folder)
    make_tar(folder)
