#!/usr/bin/env python3
"""Writes tests/fixtures with numpy, and what numpy says is in them to expected.json. Run: python3 scripts/make_fixtures.py"""

import gzip
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
OUT.mkdir(parents=True, exist_ok=True)
expected = {}


def numbers(array):
    return np.asarray(array).astype(np.float64).ravel(order="C").tolist()


def note(file, array, dtype, name="", order="C"):
    entry = {"name": name, "dtype": dtype, "shape": list(array.shape), "order": order, "values": numbers(array)}
    expected.setdefault(file, []).append(entry)


def save(file, array, dtype, version=None):
    with open(OUT / file, "wb") as handle:
        np.lib.format.write_array(handle, array, version=version)
    fortran = array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous
    note(file, array, dtype, order="F" if fortran else "C")


# Every element type, little- and big-endian, with its extremes.
FLOATS = [0.0, -0.0, 1.0, -1.5, 3.14159, 65504.0, 6.0e-8, -0.1, 2048.5, 1e-3, 123.456, -7.0]
for code, name in {"f2": "f16", "f4": "f32", "f8": "f64"}.items():
    array = np.array(FLOATS, dtype="<" + code).reshape(4, 3)
    save(f"{name}.npy", array, name)
    save(f"{name}_big.npy", array.astype(">" + code), name)
for size in (1, 2, 4, 8):
    for kind in "iu":
        name = f"{kind}{8 * size}"
        info = np.iinfo(f"{kind}{size}")
        array = np.array([0, 1, 2, 3, 5, 100, 127, info.min, info.max, info.max - 1, info.min + 1, 42], dtype=f"<{kind}{size}")
        save(f"{name}.npy", array.reshape(4, 3), name)
        if size > 1:
            save(f"{name}_big.npy", array.reshape(4, 3).astype(f">{kind}{size}"), name)
save("bool.npy", np.array([[True, False], [False, True], [True, True]]), "bool")

# Shapes, orders and header versions.
grid = np.arange(24, dtype="<f4").reshape(2, 4, 3)
save("grid.npy", grid, "f32")
save("grid_fortran.npy", np.asfortranarray(grid), "f32")
save("grid4_fortran.npy", np.asfortranarray(np.arange(48, dtype=">i2").reshape(2, 2, 4, 3)), "i16")
save("matrix_fortran.npy", np.asfortranarray(np.arange(20, dtype="<f8").reshape(5, 4)), "f64")
save("version2.npy", np.arange(6, dtype="<f4").reshape(3, 2), "f32", (2, 0))
save("version3.npy", np.arange(6, dtype="<f4").reshape(3, 2), "f32", (3, 0))
save("line.npy", np.arange(5, dtype="<f4"), "f32")
save("one_row.npy", np.arange(4, dtype="<f4").reshape(1, 4), "f32")
save("no_rows.npy", np.zeros((0, 4), dtype="<f4"), "f32")
save("scalar.npy", np.array(7.5, dtype="<f4"), "f32")

# bfloat16 as ml_dtypes saves it (raw 2-byte elements) and as uint16.
bits = (np.array(FLOATS, dtype="<f4").view("<u4") >> 16).astype("<u2").reshape(4, 3)
brain = (bits.astype("<u4") << 16).view("<f4")
np.save(OUT / "brain_void.npy", bits.view("V2"))
np.save(OUT / "brain_u16.npy", bits)
expected["bf16"] = [{"values": numbers(brain)}]

# Types that are refused.
np.save(OUT / "refused_object.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
np.save(OUT / "refused_complex.npy", np.ones((2, 2), dtype="<c8"))
np.save(OUT / "refused_text.npy", np.array(["ab", "c"]))
np.save(OUT / "refused_record.npy", np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]))
np.save(OUT / "refused_date.npy", np.zeros(2, dtype="datetime64[s]"))

# Archives: stored and deflated by numpy, zip64 fields forced, other members between.
rng = np.random.default_rng(0)
q, k = (rng.standard_normal((6, 4)).astype("<f4") for _ in range(2))
v = np.asfortranarray(rng.standard_normal((6, 2)))
for file, write in {"stored.npz": np.savez, "deflated.npz": np.savez_compressed}.items():
    write(OUT / file, q=q, k=k, v=v)
    note(file, q, "f32", "q")
    note(file, k, "f32", "k")
    note(file, v, "f64", "v", order="F")
with zipfile.ZipFile(OUT / "zip64.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(zipfile.ZipInfo("notes.txt"), "not a tensor")
    archive.writestr(zipfile.ZipInfo("folder/"), "")
    for name, array in {"q": q, "folder/k": k}.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
            member.write(buffer.getvalue())
        note("zip64.npz", array, "f32", name)

# safetensors, by hand from its format description.
tensors = {
    "q": ("F32", q),
    "half": ("F16", q.astype("<f2")),
    "double": ("F64", v.copy(order="C")),
    "ids": ("I64", np.array([[0, -1], [2**53 + 1, -(2**40)]], dtype="<i8")),
    "flags": ("BOOL", np.array([[True], [False]])),
    "scale": ("F32", np.array(0.5, dtype="<f4")),
    "empty": ("F32", np.zeros((0, 3), dtype="<f4")),
}
blobs = [(name, code, array, array.tobytes()) for name, (code, array) in tensors.items()]
blobs.append(("brain", "BF16", brain, bits.tobytes()))
header, at = {"__metadata__": {"format": "pt", "note": "é"}}, 0
for name, code, array, blob in blobs:
    header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
    at += len(blob)
    note("all.safetensors", array, {"BOOL": "bool"}.get(code, code.lower()), name)
header["eight"] = {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [at, at + 3]}
text = json.dumps(header, ensure_ascii=False).encode()
(OUT / "all.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(b for *_, b in blobs) + b"abc")

# Sequences: ">" inside a name, comments, CRLF, lower case, gaps; gzip of several members with an empty one last (bgzip).
fasta = b">one first > record\nACGT\nacg t\n; a comment\n\n>two\r\nNN-N*\r\nGG\r\n>three\n>four\tlast\nTTTT"
(OUT / "reads.fa").write_bytes(fasta)
(OUT / "reads.fa.gz").write_bytes(b"".join(gzip.compress(part, mtime=0) for part in (fasta[:20], fasta[20:45], fasta[45:], b"")))
(OUT / "plain.txt").write_bytes(b"acgt ACGT\nnn > n\n")

(OUT / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
