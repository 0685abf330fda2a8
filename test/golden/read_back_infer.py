"""The outputs of an inference job as pyarrow reads them: `read_back_infer.py FOLDER` prints types and rows as JSON."""

import glob
import json
import sys

import pyarrow as pa

types, rows = {}, []
for path in sorted(glob.glob(f"{sys.argv[1]}/*.arrow")):
    table = pa.ipc.open_file(path).read_all()
    table.validate(full=True)
    types = {field.name: str(field.type) for field in table.schema}
    rows += table.to_pylist()
print(json.dumps({"types": types, "rows": rows}))
