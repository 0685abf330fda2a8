"""Writes and reads Arrow files with compressed bodies by pyarrow.

usage: stream_peer.py version | write SAFETENSORS ARROW CODEC ROW_ELEMENTS | read ARROW

`read` goes through all record batches for each line on its standard input, and prints the seconds.
"""

import json
import sys
import time


def write(source, target, codec, row_elements):
    import numpy as np
    import pyarrow as pa

    with open(source, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))["x"]
    start = 8 + length + entry["data_offsets"][0]
    values = np.memmap(source, dtype="<i4", mode="r", offset=start).reshape(-1)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(values), row_elements)
    table = pa.table({"x": rows})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.OSFile(target, "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=4096)


def read(path):
    import pyarrow as pa

    with pa.memory_map(path) as source, pa.ipc.open_file(source) as reader:
        for _ in sys.stdin:
            started = time.perf_counter()
            rows = 0
            for i in range(reader.num_record_batches):
                rows += reader.get_batch(i).num_rows
            assert rows > 0
            print(time.perf_counter() - started, flush=True)


if sys.argv[1] == "version":
    import pyarrow

    print(pyarrow.__version__)
elif sys.argv[1] == "write":
    write(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
else:
    read(sys.argv[2])
