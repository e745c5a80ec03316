"""The test vectors of proto/vectors, verified and produced with pycose, cbor2 and cryptography."""
