"""Reads a JSONL file with pyarrow and writes it as an Arrow IPC file; prints seconds and peak memory as JSON.

usage: pack_peer.py versions | SOURCE TARGET
"""

import json
import resource
import sys
import time

import pyarrow as pa
import pyarrow.json

if sys.argv[1] == "versions":
    print(json.dumps({"python": sys.version.split()[0], "pyarrow": pa.__version__}))
    sys.exit()
started = time.perf_counter()
table = pyarrow.json.read_json(sys.argv[1])
with pa.OSFile(sys.argv[2], "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
    writer.write_table(table)
seconds = time.perf_counter() - started
usage = resource.getrusage(resource.RUSAGE_SELF)
print(
    json.dumps(
        {
            "seconds": seconds,
            "cpuSeconds": usage.ru_utime + usage.ru_stime,
            "peakBytes": usage.ru_maxrss * 1024,
            "rows": table.num_rows,
        }
    )
)
