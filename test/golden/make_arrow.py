"""Writes files/arrow: small Arrow IPC files and streams, and beside each a .json of what is in it.

Made with pyarrow 26.0.1 on Python 3:

    python -m venv VENV && VENV/bin/pip install pyarrow==26.0.1 && VENV/bin/python make_arrow.py

The expectations come from pyarrow's reader of the written bytes, row by row: each row is the hex text of its
little-endian bytes (one byte a bool), or null. Dictionary rows are the bytes of the entries they stand for.
"""

import datetime
import json
import pathlib
import struct

import pyarrow as pa

HERE = pathlib.Path(__file__).parent / "files" / "arrow"
EPOCH = datetime.date(1970, 1, 1)
DTYPES = {
    pa.int8(): "I8", pa.int16(): "I16", pa.int32(): "I32", pa.int64(): "I64",
    pa.uint8(): "U8", pa.uint16(): "U16", pa.uint32(): "U32", pa.uint64(): "U64",
    pa.float16(): "F16", pa.float32(): "F32", pa.float64(): "F64", pa.bool_(): "BOOL",
}
NAMES = {pa.string(): "utf8", pa.large_string(): "large_utf8", pa.float16(): "float16",
         pa.float32(): "float32", pa.float64(): "float64"}
is_ = pa.types


def is_fixed_list(t):
    return is_.is_fixed_size_list(t)


def is_list(t):
    return is_.is_list(t) or is_.is_large_list(t)


def is_bytes(t):
    return is_.is_string(t) or is_.is_large_string(t) or is_.is_binary(t) or is_.is_large_binary(t)


def storage(t):
    return t.storage_type if isinstance(t, pa.BaseExtensionType) else t


def element(t):
    """dtype, shape and logical name of a type that is neither a list nor a string."""
    t = storage(t)
    if is_fixed_list(t):
        dtype, shape, logical = element(t.value_type)
        return dtype, [t.list_size, *shape], logical
    if is_.is_fixed_size_binary(t):
        return "U8", [t.byte_width], "fixed_size_binary"
    if is_.is_temporal(t):
        name = str(t).replace(", tz=", ", ")
        return ("I32" if t.bit_width == 32 else "I64"), [], name
    return DTYPES[t], [], "number"


def name_of(t):
    if is_list(t):
        return f"{'large_list' if is_.is_large_list(t) else 'list'}<{name_of(t.value_type)}>"
    if is_fixed_list(t):
        return f"fixed_size_list<{name_of(t.value_type)}>[{t.list_size}]"
    return NAMES.get(t, str(t))


def column(field, t=None):
    t = storage(t if t is not None else field.type)
    base = {"name": field.name, "nullable": field.nullable}
    if is_.is_dictionary(t):
        entries = column(field, t.value_type)
        nested = is_list(t.value_type) or is_fixed_list(t.value_type)
        logical = name_of(t.value_type) if entries["logical"] == "number" or nested else entries["logical"]
        return base | {"dtype": "I32", "shape": [], "ragged": False,
                       "logical": f"dictionary<{logical}>", "dictionary": entries}
    if is_bytes(t):
        text = is_.is_string(t) or is_.is_large_string(t)
        return base | {"dtype": "U8", "shape": [], "ragged": True, "logical": "utf8" if text else "binary"}
    dtype, shape, logical = element(t.value_type if is_list(t) else t)
    return base | {"dtype": dtype, "shape": shape, "ragged": is_list(t), "logical": logical}


def pack(t, value):
    if is_list(t) or is_fixed_list(t):
        return b"".join(pack(t.value_type, v) for v in value)
    if is_.is_date32(t):
        return struct.pack("<i", (value - EPOCH).days)
    if is_.is_boolean(t):
        return bytes([value])
    if is_.is_integer(t):
        return value.to_bytes(t.bit_width // 8, "little", signed=is_.is_signed_integer(t))
    if is_.is_floating(t):
        return struct.pack({16: "<e", 32: "<f", 64: "<d"}[t.bit_width], value)
    return value.encode() if isinstance(value, str) else value


def rows(array):
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if is_.is_dictionary(array.type):
        entries = rows(array.dictionary)
        return [None if i is None else entries[i] for i in array.indices.to_pylist()]
    if is_.is_temporal(array.type):
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return [None if v is None else pack(array.type, v).hex() for v in array.to_pylist()]


def read(path):
    data = path.read_bytes()
    if not data.startswith(b"ARROW1"):
        reader = pa.ipc.open_stream(data)
        return reader.schema, list(reader)
    reader = pa.ipc.open_file(data)
    return reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)]


def describe(path, only=None):
    schema, batches = read(path)
    wanted = [i for i, f in enumerate(schema) if only is None or f.name in only]
    return {
        "format": "arrow-file" if path.read_bytes().startswith(b"ARROW1") else "arrow-stream",
        "metadata": {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()},
        "columns": [column(schema.field(i)) for i in wanted],
        "groups": [[rows(b.column(i)) for i in wanted] for b in batches if b.num_rows > 0],
        "groupRows": [b.num_rows for b in batches if b.num_rows > 0],
    }


def write(path, schema, batches, options=None, close=True):
    open_writer = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
    sink = pa.BufferOutputStream()
    writer = open_writer(sink, schema, options=options)
    for batch in batches:
        writer.write_batch(batch)
    if close:
        writer.close()
    path.write_bytes(sink.getvalue().to_pybytes() if close else bytes(sink.getvalue()))


def expect(path, expected):
    path.with_name(path.name + ".json").write_text(json.dumps(expected, indent=1, ensure_ascii=True) + "\n")


def case(name, schema, batches, options=None, kinds=("arrow", "arrows"), close=True):
    for kind in kinds:
        path = HERE / f"{name}.{kind}"
        write(path, schema, batches, options, close)
        expect(path, describe(path))


def failing(name, schema, batches, code, text, options=None, usable=None, unsupported=None):
    for kind in ("arrow", "arrows"):
        path = HERE / f"{name}.{kind}"
        write(path, schema, batches, options)
        expected = {"error": {"code": code, "text": text}}
        if usable is not None:
            expected |= {"usable": usable, **describe(path, usable)}
        if unsupported is not None:
            expected["unsupported"] = unsupported
        expect(path, expected)


def batches_of(schema, columns, cuts):
    """Record batches of `columns` (name -> python values), cut after the given rows."""
    whole = pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
    edges = [0, *cuts, whole.num_rows]
    parts = [whole.slice(a, b - a) for a, b in zip(edges, edges[1:])]
    return parts


def with_nulls(values, every=3):
    return [None if i % every == 1 else v for i, v in enumerate(values)]


def numbers():
    n = 21
    types = list(DTYPES)
    schema = pa.schema([pa.field(str(t), t, nullable=i % 2 == 0) for i, t in enumerate(types)],
                       metadata={"made by": "make_arrow.py", "empty": "", "größe": "✓"})
    columns = {}
    for i, t in enumerate(types):
        if is_.is_boolean(t):
            values = [j % 3 == 0 for j in range(n)]
        elif is_.is_floating(t):
            values = [j * 0.5 - 3 for j in range(n)]
        elif is_.is_signed_integer(t):
            values = [(-1) ** j * (2 ** (t.bit_width - 1) - 1 - j) for j in range(n)]
        else:
            values = [2 ** t.bit_width - 1 - j for j in range(n)]
        columns[str(t)] = with_nulls(values) if i % 2 == 0 else values
    case("numbers", schema, batches_of(schema, columns, [8, 11]))
    legacy = pa.ipc.IpcWriteOptions(use_legacy_format=True, metadata_version=pa.ipc.MetadataVersion.V4)
    case("numbers-legacy", schema, batches_of(schema, columns, [8, 11]), legacy)
    case("numbers-unclosed", schema, batches_of(schema, columns, [5]), kinds=("arrows",), close=False)
    plain = pa.schema([("a", pa.int32()), ("b", pa.bool_())])
    case("no-nulls", plain, batches_of(plain, {"a": range(9), "b": [True] * 9}, [0, 4, 4]))
    case("no-rows", plain, [])
    case("empty-batches", plain, batches_of(plain, {"a": [], "b": []}, [0]))
    case("no-columns", pa.schema([]), [pa.RecordBatch.from_struct_array(pa.array([{}] * 3, pa.struct([])))])


def temporal():
    fields = [pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]
    for unit in ("s", "ms", "us", "ns"):
        fields += [pa.timestamp(unit), pa.timestamp(unit, "UTC"), pa.timestamp(unit, "Europe/Berlin"),
                   pa.duration(unit)]
    schema = pa.schema([pa.field(str(t), t) for t in fields])
    arrays = []
    for t in fields:
        ints = pa.array(with_nulls([86_400_000 * j for j in range(7)]), pa.int64())
        arrays.append(ints.cast(pa.int32(), safe=False).view(t) if t.bit_width == 32 else ints.view(t))
    case("temporal", schema, [pa.record_batch(arrays, schema=schema)])


def binary():
    texts = ["", "a", "zwölf", "日本語", "x" * 100, "end"]
    values = [t.encode() for t in texts]
    schema = pa.schema([("utf8", pa.string()), ("large_utf8", pa.large_string()), ("binary", pa.binary()),
                        ("large_binary", pa.large_binary()), ("fixed", pa.binary(3)), ("none", pa.binary(0)),
                        ("uuid", pa.uuid())])
    columns = {"utf8": with_nulls(texts), "large_utf8": texts, "binary": values,
               "large_binary": with_nulls(values), "fixed": with_nulls([b"abc", b"def"] * 3),
               "none": [b""] * 6, "uuid": [bytes(range(i, i + 16)) for i in range(6)]}
    case("binary", schema, batches_of(schema, columns, [4]))


def lists():
    pair = pa.list_(pa.float32(), 2)
    schema = pa.schema([
        ("vector", pa.list_(pa.float32(), 3)), ("matrix", pa.list_(pa.list_(pa.int16(), 2), 3)),
        ("bits", pa.list_(pa.bool_(), 5)), ("words", pa.list_(pa.binary(2), 2)),
        ("days", pa.list_(pa.date32(), 2)), ("nothing", pa.list_(pa.int8(), 0)),
    ])
    day = datetime.date(2020, 1, 1)
    columns = {
        "vector": with_nulls([[i, i + 0.5, -i] for i in range(20)]),
        "matrix": with_nulls([[[i, 1], [2, -i], [3, 4]] for i in range(20)]),
        "bits": with_nulls([[i % 2 == 0, True, False, i % 3 == 0, i % 5 == 0] for i in range(20)]),
        "words": [[b"ab", b"c%d" % (i % 10)] for i in range(20)],
        "days": [[day, day + datetime.timedelta(i)] for i in range(20)],
        "nothing": [[]] * 20,
    }
    case("fixed-lists", schema, batches_of(schema, columns, [9, 10]))
    schema = pa.schema([
        ("tokens", pa.list_(pa.int32())), ("large", pa.large_list(pa.float64())), ("pairs", pa.list_(pair)),
        ("days", pa.list_(pa.date32())), ("renamed", pa.list_(pa.field("element", pa.uint8(), False))),
    ])
    columns = {
        "tokens": with_nulls([list(range(i)) for i in range(12)]),
        "large": [[i / 4] * (i % 3) for i in range(12)],
        "pairs": with_nulls([[[i, -i]] * (i % 4) for i in range(12)]),
        "days": [[day] * (i % 2) for i in range(12)],
        "renamed": [[]] * 12,
    }
    case("lists", schema, batches_of(schema, columns, [3, 4]))


def dictionary(indices, entries, index_type):
    return pa.DictionaryArray.from_arrays(pa.array(indices, index_type), entries)


def dictionaries():
    words = pa.array(["red", "", "größer", "blue"])
    entries = {
        "utf8": (pa.int8(), words), "holes": (pa.int32(), pa.array(["a", None, "b", "c"])),
        "binary": (pa.uint16(), words.cast(pa.large_binary())),
        "number": (pa.int64(), pa.array([10, 20, 2**62, -1], pa.int64())),
        "time": (pa.uint8(), pa.array([1, 2, 3, 4], pa.timestamp("us", "UTC"))),
        "list": (pa.int16(), pa.array([[1], [], [2, 3], [4]], pa.list_(pa.int32()))),
        "vector": (pa.uint32(), pa.array([[1, 2], [3, 4], [5, 6], [7, 8]], pa.list_(pa.float32(), 2))),
        "flags": (pa.uint64(), pa.array([True, False, None, True])),
    }
    arrays = [dictionary(with_nulls([0, 1, 2, 3, 2, 1, 0, 0, 3]), e, t) for t, e in entries.values()]
    batch = pa.record_batch(arrays, names=list(entries))
    case("dictionaries", batch.schema, [batch.slice(0, 4), batch.slice(4)])
    short, long = words.slice(0, 2), words
    other = pa.array(["one", "two", "three"])
    batches = [pa.record_batch([dictionary(i, e, pa.int8())], names=["word"])
               for i, e in (([0, 1, 1], short), ([3, 2], long), ([1, 0, None], long))]
    deltas = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    case("dictionary-deltas", batches[0].schema, batches, deltas)
    replaced = [*batches[:1], pa.record_batch([dictionary([2, 0], other, pa.int8())], names=["word"]), *batches]
    case("dictionary-replaced", batches[0].schema, replaced, kinds=("arrows",))
    missing = pa.record_batch([dictionary([None, None], pa.array([], pa.string()), pa.int8())], names=["word"])
    case("dictionary-empty", missing.schema, [missing])


def sliced():
    n = 40
    whole = pa.record_batch({
        "bool": pa.array(with_nulls([i % 3 == 0 for i in range(n)])),
        "int": pa.array(with_nulls(list(range(n)), 5), pa.int16()),
        "utf8": pa.array(with_nulls([str(i) * (i % 3) for i in range(n)])),
        "list": pa.array([list(range(i % 4)) for i in range(n)], pa.list_(pa.int64())),
        "vector": pa.array(with_nulls([[i, -i] for i in range(n)]), pa.list_(pa.int32(), 2)),
        "bits": pa.array([[i % 2 == 0] * 3 for i in range(n)], pa.list_(pa.bool_(), 3)),
        "word": pa.array(["a", "b", None, "c"] * (n // 4)).dictionary_encode(),
    })
    case("sliced", whole.schema, [whole.slice(5, 11), whole.slice(13, 1), whole.slice(17)])


def unsupported():
    """Between columns of every type that cannot be read, columns that can."""
    union_types = pa.array([0, 1, 0], pa.int8())
    children = [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
    long = ["a string that is too long to be inside its view", "short", "another one of these long strings"]
    columns = {
        "struct": (pa.array([{"a": 1, "b": [1]}, None, {"a": 2, "b": []}]), "struct<a: int64, b: list<int64>>"),
        "map": (pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())), "map<"),
        "dense": (pa.UnionArray.from_dense(union_types, pa.array([0, 1, 2], pa.int32()), children),
                  "dense_union<"),
        "sparse": (pa.UnionArray.from_sparse(union_types, children), "sparse_union<"),
        "decimal32": (pa.array([1, 2, None], pa.decimal32(5, 2)), "decimal32(5, 2)"),
        "decimal128": (pa.array([1, 2, None], pa.decimal128(10, 2)), "decimal128(10, 2)"),
        "decimal256": (pa.array([1, 2, None], pa.decimal256(50, 2)), "decimal256(50, 2)"),
        "null": (pa.nulls(3), "null"),
        "interval": (pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()), "interval[month_day_nano]"),
        "runs": (pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["x", None])),
                 "run_end_encoded<"),
        "text view": (pa.array(long, pa.string_view()), "utf8_view"),
        "no view": (pa.array(["", None, "x"], pa.string_view()), "utf8_view"),
        "binary view": (pa.array([t.encode() for t in long], pa.binary_view()), "binary_view"),
        "list view": (pa.array([[1], None, [2, 3]], pa.list_view(pa.int32())), "list_view<"),
        "large list view": (pa.array([[1], None, [2, 3]], pa.large_list_view(pa.int32())), "large_list_view<"),
        "strings": (pa.array([["a"], [], None]), "list<utf8>"),
        "nested": (pa.array([[[1]], [], None]), "list<list<int64>>"),
        "fixed strings": (pa.array([["a"], ["b"], ["c"]], pa.list_(pa.string(), 1)), "fixed_size_list<utf8>[1]"),
        "bools": (pa.array([[True], [], None]), "list<bool>"),
        "codes": (pa.ListArray.from_arrays([0, 1, 2, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
                  "list<dictionary<utf8>>"),
        "structs": (pa.DictionaryArray.from_arrays(pa.array([0, 0, 0], pa.int8()), pa.array([{"a": "b"}])),
                    "dictionary<struct<a: utf8>>"),
    }
    arrays, names = [pa.array([7, 8, 9], pa.int16())], ["first"]
    for i, (name, (array, _)) in enumerate(columns.items()):
        array.validate(full=True)
        arrays += [array, pa.array([f"{i}", None, "z" * i])]
        names += [name, f"after {name}"]
    batch = pa.record_batch(arrays, names=names)
    usable = [n for n in names if n not in columns]
    texts = {name: text for name, (_, text) in columns.items()}
    failing("unsupported", batch.schema, [batch, batch.slice(1)], "UNSUPPORTED_TYPE", '"struct" is struct<',
            usable=usable, unsupported=texts)


def compressed():
    """Files from above once more, with compressed bodies: what is in them is what was."""
    for codec in ("lz4", "zstd"):
        for name in ("numbers", "no-nulls", "temporal", "binary", "fixed-lists", "lists", "dictionaries",
                     "dictionary-deltas", "dictionary-replaced", "sliced"):
            options = pa.ipc.IpcWriteOptions(compression=codec,
                                             emit_dictionary_deltas=name == "dictionary-deltas")
            for path in (HERE / f"{name}.arrow", HERE / f"{name}.arrows"):
                if not path.exists():
                    continue
                schema, batches = read(path)
                copy = path.with_stem(f"{name}-{codec}")
                write(copy, schema, batches, options)
                expect(copy, {"like": path.name, "codec": codec})
        plain = pa.record_batch({"a": list(range(100))})
        none = pa.ipc.IpcWriteOptions(compression=codec)
        case(f"compressed-{codec}-no-rows", plain.schema, [plain.slice(0, 0)], none)


def refused():
    inside = {
        "list": pa.array([[1, None], [2]]), "fixed": pa.array([[1, None], None], pa.list_(pa.int32(), 2)),
        "deep": pa.array([[[1, 2], None], None], pa.list_(pa.list_(pa.int8(), 2), 2)),
        "full": pa.array([[1, None], [2, 3]], pa.list_(pa.int32(), 2)),
        "pairs": pa.array([[[1, None]], []], pa.list_(pa.list_(pa.int32(), 2))),
    }
    for name, array in inside.items():
        batch = pa.record_batch([array, pa.array([1, 2])], names=["nested", "other"])
        failing(f"null-inside-{name}", batch.schema, [batch], "UNSUPPORTED_TYPE", "null elements inside",
                usable=["other"])
    twice = pa.record_batch([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "b", "a"])
    failing("two-of-a-name", twice.schema, [twice], "ARROW_MESSAGE", 'have the name "a"', usable=["b"])
    strict = pa.schema([pa.field("a", pa.int32(), nullable=False), pa.field("b", pa.int32())])
    batch = pa.record_batch([pa.array([1, None], pa.int32()), pa.array([1, 2], pa.int32())], schema=strict)
    failing("null-where-not-nullable", strict, [batch], "ARROW_MESSAGE", "1 nulls", usable=["b"])


if __name__ == "__main__":
    HERE.mkdir(parents=True, exist_ok=True)
    for old in HERE.iterdir():
        old.unlink()
    for make in (numbers, temporal, binary, lists, dictionaries, sliced, compressed, unsupported, refused):
        make()
    (HERE / "VERSION").write_text(f"pyarrow {pa.__version__}\n")
