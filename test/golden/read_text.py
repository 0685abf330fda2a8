"""Reads a JSONL or CSV file with pyarrow, and what was packed of it, and prints whether the two agree.

usage: read_text.py SOURCE SHARD...
"""

import json
import sys

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

source, *shards = sys.argv[1:]
if source.endswith(".csv"):
    expected = pyarrow.csv.read_csv(source)
else:
    expected = pyarrow.json.read_json(source)
tables = [pa.ipc.open_file(pa.memory_map(path)).read_all() for path in shards]
packed = pa.concat_tables(tables)
for table in tables:
    table.validate(full=True)
print(
    json.dumps(
        {
            "names": packed.column_names == expected.column_names,
            "types": [[str(field.type) for field in table.schema] for table in (packed, expected)],
            "rows": [packed.num_rows, expected.num_rows],
            "differ": [
                name
                for name in expected.column_names
                if not packed[name].combine_chunks().cast(expected[name].type).equals(expected[name].combine_chunks())
            ],
        }
    )
)
