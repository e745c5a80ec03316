"""Merkle trees, as RFC 9162 §2.1 defines them: by recursion, so that what is written there is what stands here."""

from signed import sha256


def leaf_hash(data):
    return sha256(b"\0" + data)


def node_hash(left, right):
    return sha256(b"\1" + left + right)


def split(count):
    """The largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def root(leaves):
    """The root over leaves that are hashed already."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(root(leaves[:k]), root(leaves[k:]))


def path(leaves, index):
    """The audit path of a leaf, from the leaf to the root (§2.1.3.1)."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return path(leaves[:k], index) + [root(leaves[k:])]
    return path(leaves[k:], index - k) + [root(leaves[:k])]


def root_of_path(leaf, index, size, hashes):
    """Where a path leads to; None if it is no path for this place. Of a path the last hash is the root's child."""
    if index >= size:
        return None
    if size == 1:
        return None if hashes else leaf
    if not hashes:
        return None
    k, (*below, sibling) = split(size), hashes
    if index < k:
        left = root_of_path(leaf, index, k, below)
        return left and node_hash(left, sibling)
    right = root_of_path(leaf, index - k, size - k, below)
    return right and node_hash(sibling, right)


def consistency(leaves, old):
    """The proof that a tree extends its own first `old` leaves (§2.1.4.1)."""
    return [] if old in (0, len(leaves)) else _subproof(leaves, old, True)


def _subproof(leaves, old, whole):
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    k = split(len(leaves))
    if old <= k:
        return _subproof(leaves[:k], old, whole) + [root(leaves[k:])]
    return _subproof(leaves[k:], old - k, False) + [root(leaves[:k])]


def is_consistent(old, old_root, size, new_root, hashes):
    """Whether the hashes show that one tree extends the other."""
    if old == 0 or old == size:
        return not hashes and old_root == (new_root if old == size else sha256(b""))
    return old < size and _roots(old, old_root, size, hashes, True) == (old_root, new_root)


def _roots(old, old_root, size, hashes, whole):
    """The roots of both trees, within the part of `size` leaves that the hashes speak of; None if they are no proof."""
    if old == size:
        if whole:  # The old tree is a part of the new one: its root is known.
            return None if hashes else (old_root, old_root)
        return (hashes[0], hashes[0]) if len(hashes) == 1 else None
    if not hashes:
        return None
    k, (*below, sibling) = split(size), hashes
    if old <= k:
        both = _roots(old, old_root, k, below, whole)
        return both and (both[0], node_hash(both[1], sibling))
    both = _roots(old - k, old_root, size - k, below, False)
    return both and (node_hash(sibling, both[0]), node_hash(sibling, both[1]))
