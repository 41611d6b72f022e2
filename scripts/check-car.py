"""Reads a CAR file of ours with an IPLD implementation that is not ours, and names every block again.

    python scripts/check-car.py FILE CID FOLDER

Needs the packages ipld-car, dag-cbor, multiformats and blake3 (`make interop` installs them in an
environment of their own). Every block must have the CID that the file gives it, the manifest must
lead from the root CID to every block and to no other, and the chunks must make up the files of
FOLDER.
"""

import os
import sys

import blake3
import dag_cbor
import ipld_car
from multiformats import CID, multihash


def name(codec, data):
    digest = multihash.wrap(blake3.blake3(data).digest(), "blake3")
    return CID("base32", 1, codec, digest)


def main(path, expected, folder):
    with open(path, "rb") as file:
        roots, found = ipld_car.decode(file.read())
    blocks = {}
    for cid, data in found:
        assert name(cid.codec.name, bytes(data)) == cid, f"{cid} has another name"
        blocks[cid] = bytes(data)
    (root,) = roots
    assert root.encode("base32") == expected, f"the root is {root.encode('base32')}, not {expected}"
    reached = {root}

    def read(cid):
        reached.add(cid)
        return dag_cbor.decode(blocks[cid])

    manifest = read(root)
    names = set()
    for page in manifest["pages"]:
        for entry in read(page)["files"]:
            chunks = entry["chunks"].get("inline")
            if chunks is None:
                chunks = [chunk for link, _ in entry["chunks"]["paged"] for chunk in read(link)["chunks"]]
            reached.update(cid for cid, _ in chunks)
            data = b"".join(blocks[cid] for cid, _ in chunks)
            with open(os.path.join(folder, entry["path"]), "rb") as file:
                assert file.read() == data, f"{entry['path']} differs"
            assert blake3.blake3(data).digest() == entry["b3"], f"{entry['path']} has another hash"
            names.add(entry["path"])
    here = {
        os.path.relpath(os.path.join(at, file), folder) for at, _, files in os.walk(folder) for file in files
    }
    assert names == here, f"other files: {names ^ here}"
    assert reached == set(blocks), f"{len(set(blocks) - reached)} blocks that nothing names"
    print(f"{expected}: {len(blocks)} blocks, {len(names)} files, all as the file says")


main(*sys.argv[1:])
