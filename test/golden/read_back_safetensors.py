"""Reads every .safetensors file of a folder with Python's safetensors and prints what it saw, as JSON.

    python test/golden/read_back_safetensors.py FOLDER
"""

import hashlib
import json
import sys
from pathlib import Path

import safetensors


def seen(content):
    header_length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_length])
    return {
        "metadata": header.get("__metadata__", {}),
        "tensors": {
            name: {
                "dtype": entry["dtype"],
                "shape": entry["shape"],
                "sha256": hashlib.sha256(bytes(entry["data"])).hexdigest(),
            }
            for name, entry in safetensors.deserialize(content)
        },
    }


files = sorted(Path(sys.argv[1]).glob("*.safetensors"))
print(
    json.dumps(
        {
            "version": safetensors.__version__,
            "files": {path.name: seen(path.read_bytes()) for path in files},
        }
    )
)
