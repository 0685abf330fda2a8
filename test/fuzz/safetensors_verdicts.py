"""Says what Python's safetensors makes of files: one JSON list of null (read) or an error's text.

Reads stdin: for each file its length in 8 little-endian bytes, then the file.
"""

import json
import sys

import safetensors


def verdict(content):
    try:
        safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        return str(error)
    return None


verdicts = []
while prefix := sys.stdin.buffer.read(8):
    verdicts.append(verdict(sys.stdin.buffer.read(int.from_bytes(prefix, "little"))))
print(json.dumps(verdicts))
