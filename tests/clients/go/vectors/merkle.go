package main

// Merkle trees of RFC 9162 §2.1: made by its recursion, verified by the shape of a path, which index and size give.

import (
	"crypto/sha256"
	"math/bits"
)

type hash = [sha256.Size]byte

func leafHash(data []byte) hash {
	return sha256.Sum256(append([]byte{0}, data...))
}

func nodeHash(left, right hash) hash {
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

// --- Made -------------------------------------------------------------------------------------------------------------

// split is the largest power of two below count, which is at least 2.
func split(count int) int {
	return 1 << (bits.Len(uint(count-1)) - 1)
}

func rootOf(leaves []hash) hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	default:
		k := split(len(leaves))
		return nodeHash(rootOf(leaves[:k]), rootOf(leaves[k:]))
	}
}

func pathOf(leaves []hash, index int) []hash {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if index < k {
		return append(pathOf(leaves[:k], index), rootOf(leaves[k:]))
	}
	return append(pathOf(leaves[k:], index-k), rootOf(leaves[:k]))
}

func consistencyOf(leaves []hash, old int, whole bool) []hash {
	switch {
	case old == 0 || old == len(leaves) && whole:
		return nil
	case old == len(leaves):
		return []hash{rootOf(leaves)}
	}
	k := split(len(leaves))
	if old <= k {
		return append(consistencyOf(leaves[:k], old, whole), rootOf(leaves[k:]))
	}
	return append(consistencyOf(leaves[k:], old-k, false), rootOf(leaves[:k]))
}

// --- Verified ---------------------------------------------------------------------------------------------------------

// shape says how many hashes of a leaf's path are below the point where it meets the tree's right edge, and how many of
// the rest, all on the left, are above it.
func shape(index, size uint64) (inner, border int) {
	inner = bits.Len64(index ^ (size - 1))
	return inner, bits.OnesCount64(index >> inner)
}

// climb goes up from a node: each bit of index says whether it is a right one.
func climb(from hash, path []hash, index uint64) hash {
	for level, sister := range path {
		if index>>level&1 == 0 {
			from = nodeHash(from, sister)
		} else {
			from = nodeHash(sister, from)
		}
	}
	return from
}

// climbLeft goes up past the left sisters alone: to the root of what was there before.
func climbLeft(from hash, path []hash, index uint64) hash {
	for level, sister := range path {
		if index>>level&1 == 1 {
			from = nodeHash(sister, from)
		}
	}
	return from
}

// climbEdge goes up the right edge, where all sisters are on the left.
func climbEdge(from hash, path []hash) hash {
	for _, sister := range path {
		from = nodeHash(sister, from)
	}
	return from
}

// rootOfPath is where a path leads to; not ok if it is no path for this place.
func rootOfPath(leaf hash, index, size uint64, path []hash) (root hash, ok bool) {
	if index >= size {
		return root, false
	}
	inner, border := shape(index, size)
	if len(path) != inner+border {
		return root, false
	}
	return climbEdge(climb(leaf, path[:inner], index), path[inner:]), true
}

// isConsistent: whether the proof shows that one tree extends the other.
func isConsistent(old uint64, oldRoot hash, size uint64, root hash, proof []hash) bool {
	switch {
	case old == size:
		return len(proof) == 0 && oldRoot == root
	case old == 0:
		return len(proof) == 0 && oldRoot == rootOf(nil)
	case old > size:
		return false
	}
	inner, border := shape(old-1, size)
	level := bits.TrailingZeros64(old) // Of the last perfect subtree of the old tree: all begins there.
	inner -= level
	from := oldRoot
	if old != 1<<level {
		if len(proof) == 0 {
			return false
		}
		from, proof = proof[0], proof[1:]
	}
	if len(proof) != inner+border {
		return false
	}
	index := (old - 1) >> level
	before := climbEdge(climbLeft(from, proof[:inner], index), proof[inner:])
	after := climbEdge(climb(from, proof[:inner], index), proof[inner:])
	return before == oldRoot && after == root
}
