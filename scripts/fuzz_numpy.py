"""What numpy makes of files: a path per line of standard input, a line of JSON for each on standard output.

{"arrays": {name: [kind and bytes of an element, shape, SHA-256 of all elements as float64]}} or {"refused": reason}. .npy and .npz are read by
numpy (allow_pickle=False), .safetensors by the format's own description and FASTA line by line, apart from the program's readers.
"""

import gzip
import hashlib
import json
import re
import resource
import struct
import sys
import warnings
import zlib

import numpy as np

LARGEST = 1_000_000
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1"}
DTYPES |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1", "BF16": "<u2"}


def described(array, bf16=False):
    kind = "bf16" if bf16 else f"{array.dtype.kind}{array.dtype.itemsize}"
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        return [f"other {array.dtype.str}", list(array.shape), None]
    if array.size > LARGEST:
        return [kind, list(array.shape), "large"]
    if bf16:
        array = (array.astype("<u4") << 16).view("<f4")
    # Any byte but 0 is true.
    array = array.view("u1") != 0 if array.dtype.kind == "b" else array
    numbers = np.ascontiguousarray(array).astype("<f8").reshape(-1)
    numbers[np.isnan(numbers)] = struct.unpack("<d", struct.pack("<Q", 0x7FF8 << 48))[0]
    return [kind, list(array.shape), hashlib.sha256(numbers.tobytes()).hexdigest()]


def by_numpy(path):
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {"": described(loaded)}
    found = {}
    with loaded:
        for name in loaded.files[:40]:
            try:
                value = loaded[name]
                if isinstance(value, np.ndarray):
                    found[name] = described(value)
            except Exception as error:
                found[name] = [f"refused {type(error).__name__}: {error}"[:200], None, None]
    return found


def by_safetensors(data):
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise ValueError("the header is longer than the file")
    header = json.loads(data[8 : 8 + length].decode("utf-8"))
    header.pop("__metadata__", None)
    found, at = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        dtype, shape = entry["dtype"], entry["shape"]
        if begin != at:
            raise ValueError("there is a hole or an overlap")
        at = end
        if dtype not in DTYPES:
            found[name] = [f"other {dtype}", shape, None]
            continue
        flat = np.frombuffer(data[8 + length + begin : 8 + length + end], DTYPES[dtype])
        found[name] = described(flat.reshape(shape), dtype == "BF16")
    if at != len(data) - 8 - length:
        raise ValueError("bytes are left over")
    return found


def by_lines(data):
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    letters, fasta = [], False
    for line in re.split(b"[\r\n]", data):
        if line.startswith(b">") and (fasta or not any(letters)):
            fasta = True
        elif not (line.startswith(b";") and (fasta or not any(letters))):
            if re.search(b"[\x00-\x08\x0e-\x1a]", line):
                raise ValueError("a byte that no text has")
            letters.append(re.sub(b"[^A-Za-z]", b"", line).upper())
    text = b"".join(letters)
    if not text:
        raise ValueError("no letters")
    return {"": described(np.frombuffer(text, "u1"))}


def answer(kind, path):
    with open(path, "rb") as file:
        data = file.read()
    if kind == "fasta":
        return by_lines(data)
    if data[:6] == b"\x93NUMPY" or data[:2] == b"PK":
        return by_numpy(path)
    return by_safetensors(data)


warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
print(json.dumps({"numpy": np.__version__, "python": sys.version.split()[0]}), flush=True)
for line in sys.stdin:
    kind, path = line.rstrip("\n").split(" ", 1)
    try:
        said = {"arrays": answer(kind, path)}
    except (Exception, zlib.error) as error:
        said = {"refused": f"{type(error).__name__}: {error}"[:200]}
    print(json.dumps(said), flush=True)
