"""Every row of a folder of outputs as pyarrow or safetensors read it, as one JSON list: by the manifest alone."""

import json
import os
import sys

import pyarrow as pa
from safetensors.numpy import load_file


def arrow(path):
    rows = []
    with pa.memory_map(path) as source:
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            batch.validate(full=True)
            rows += batch.to_pylist()
    # The same bytes are a stream from the ninth on, which other readers go by.
    with open(path, "rb") as file:
        file.seek(8)
        streamed = pa.ipc.open_stream(file).read_all()
        assert streamed.to_pylist() == rows, path
    return rows, [str(field) for field in reader.schema], reader.num_record_batches


def tensors(path):
    columns = load_file(path)
    ragged = {name.removesuffix(".offsets") for name in columns if name.endswith(".offsets")}
    count = len(columns["row"])
    rows = []
    for i in range(count):
        row = {}
        for name, values in columns.items():
            if name.endswith(".offsets") or name.startswith("__pad_"):
                continue
            if name in ragged:
                start, end = columns[f"{name}.offsets"][i : i + 2]
                row[name] = values[start:end].tolist()
            else:
                row[name] = values[i].tolist()
        rows.append(row)
    return rows, sorted(columns), 1


folder = sys.argv[1]
with open(os.path.join(folder, "dataset.json")) as file:
    manifest = json.load(file)
everything, schema, batches = [], None, []
for shard in manifest["shards"]:
    path = os.path.join(folder, shard["path"])
    assert os.path.getsize(path) == shard["bytes"], path
    rows, schema, count = (arrow if path.endswith(".arrow") else tensors)(path)
    assert len(rows) == shard["samples"], path
    everything += rows
    batches.append(count)
print(json.dumps({"rows": everything, "schema": schema, "batches": batches}))
