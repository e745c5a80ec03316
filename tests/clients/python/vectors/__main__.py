"""Verifies every vector of proto/vectors, makes those with claims anew, and writes what it made: python -m vectors."""

import argparse
import json
import sys
from pathlib import Path

from signed import ED25519
from vectors.operations import Verifier
from vectors.produce import produce

FILES = """trust-list policy consent-request consent-token proof presentation statement hint merkle access-record
access-receipt checkpoint delivery-receipt""".split()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=Path, required=True, help="the directory of the vectors")
    parser.add_argument("--out", type=Path, required=True, help="the file for what was made")
    options = parser.parse_args()
    files = [json.loads((options.vectors / f"{name}.json").read_text()) for name in FILES]
    vectors = {vector["id"]: vector for file in files for vector in file["vectors"]}
    verifier, objects, wrong = Verifier(vectors), [], 0
    for file in files:
        made = 0
        for vector in file["vectors"]:
            wrong += compare(vector["id"], verifier.verdict(vector), claimed(vector))
            if "claims" in vector:
                objects.append({"id": vector["id"]} | produce(vector, file["test_keys"], verifier))
                wrong += check_made(verifier, vector, objects[-1], file["test_keys"])
                made += 1
        print(f"{file['kind']:<16} {len(file['vectors']):4} verified {made:4} made")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"objects": objects}, indent=1) + "\n")
    if wrong:
        sys.exit(f"FAIL vectors-python {wrong} of {len(vectors)} vectors")
    print(f"ok vectors-python {len(vectors)} vectors")


def claimed(vector):
    return vector["verdict"], vector.get("object"), vector.get("result")


def check_made(verifier, vector, made, test_keys):
    """What was made has the same verdict; where all signatures are Ed25519, or there are none, the same bytes too."""
    wrong = compare(f"{vector['id']} (made)", verifier.verdict(vector | made), claimed(vector))
    if all(test_keys[name]["alg"] == ED25519 for name in vector.get("signed_by", [])):
        wrong += compare(f"{vector['id']} (bytes)", made, {key: vector[key] for key in made})
    return wrong


def compare(what, got, wanted):
    if got == wanted:
        return 0
    print(f"FAIL {what}: got {got}, wanted {wanted}")
    return 1


if __name__ == "__main__":
    main()
