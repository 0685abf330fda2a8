"""Digests of the committed datasets as pyarrow and safetensors read them: sha256 of each column's values."""

import glob
import hashlib
import json
import sys

import numpy as np
import pyarrow as pa
import safetensors.numpy


def values_of(array):
    """The values of an array without nulls, as bytes."""
    if pa.types.is_string(array.type):
        return "".join(array.to_pylist()).encode()
    if pa.types.is_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).tobytes()
    return array.to_numpy(zero_copy_only=False).tobytes()


def arrow(folder):
    hashes, vocabulary = {}, {}
    for path in sorted(glob.glob(f"{folder}/*.arrow")):
        reader = pa.ipc.open_file(path)
        for batch in (reader.get_batch(i) for i in range(reader.num_record_batches)):
            batch.validate(full=True)
            for name, array in zip(batch.schema.names, batch.columns):
                if pa.types.is_dictionary(array.type):
                    words = array.dictionary.to_pylist()
                    for word in words:
                        vocabulary.setdefault(word, len(vocabulary))
                    codes = [vocabulary[words[code]] for code in array.indices.to_pylist()]
                    data = np.array(codes, dtype="<i4").tobytes()
                else:
                    data = values_of(array)
                hashes.setdefault(name, hashlib.sha256()).update(data)
    return {name: digest.hexdigest() for name, digest in hashes.items()}


def tensors(folder):
    hashes = {}
    for path in sorted(glob.glob(f"{folder}/*.safetensors")):
        for name, array in safetensors.numpy.load_file(path).items():
            hashes.setdefault(name, hashlib.sha256()).update(array.tobytes())
    return {name: digest.hexdigest() for name, digest in hashes.items()}


root = sys.argv[1]
print(json.dumps({"prose": arrow(f"{root}/prose"), "digits": tensors(f"{root}/digits")}))
