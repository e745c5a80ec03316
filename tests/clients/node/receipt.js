// The access receipt: that an exchange is on record, as proto/access-receipt.cddl and access-record.cddl lay it out.

import * as signed from './signed.js'
import { check, same, sha256 } from './signed.js'

const MAX_RECEIPT = 2048
const MAX_COUNT = 65536
const MAX_TIME = 253_402_300_799 // The end of the year 9999.

// Entries of a record.
const VENUE = 2
const PURPOSE = 5
const CTI = 7
const OUTCOME = 9
const STATEMENT = 11
const EXCHANGE = 13

const OUTCOME_STATUS = 1

/** Whose log the record is on, its index there and the record, once the gateway's own keys have shown that. */
export function verifyReceipt(data, logKeys) {
  check(data?.length > 0 && data.length <= MAX_RECEIPT, 'no receipt')
  const receipt = signed.decode(data)
  check(Array.isArray(receipt) && receipt.length === 7, 'not a receipt')
  const [version, log, index, record, position, path, commit] = receipt
  check(version === 1, `a receipt of version ${version}`)
  check(typeof log === 'string' && /^([0-9]{2}|gateway)$/.test(log), 'not a log')
  check(isUint(index) && isUint(position), 'not a place on it')
  check(isBytes(record) && isBytes(commit), 'no record, or no commit')
  check(Array.isArray(path) && path.every(isHash), 'not a path')

  const claims = signed.verify1(signed.LOG_COMMIT, commit, () => logKeys)
  signed.checkKeys(claims, [1, 2, 3, 4, 6])
  const [number, root, count, heads, committed] = [1, 2, 3, 4, 6].map((key) => claims.get(key))
  check(isUint(number) && isHash(root) && isHash(heads), 'not a commit')
  check(isUint(count) && count <= MAX_COUNT && isUint(committed) && committed <= MAX_TIME, 'not a commit')
  const place = Buffer.alloc(9)
  place[0] = log === 'gateway' ? 0xff : parseInt(log)
  place.writeBigUInt64BE(BigInt(index), 1)
  const leaf = leafOf(Buffer.concat([place, leafOf(record)]))
  check(same(rootOf(leaf, position, count, path), root), 'the record is not at its place in the commit')

  const entry = signed.decode(record)
  check(entry instanceof Map, 'not an access record')
  signed.checkKeys(entry, [1, 2, 3, 5, 7, 8, 12, 13, 15], [4, 6, 9, 10, 11, 14])
  return { log, index, entry }
}

/** A receipt is worth nothing unless it is of our own exchange: any other one verifies as well. */
export function checkReceipt(data, logKeys, consent, asked, answer) {
  const { log, index, entry } = verifyReceipt(data, logKeys)
  check(log === consent.get(1), `on the log of ${log}, where home does not look`)
  check(same(entry.get(EXCHANGE), answer.exchangeId), 'the record is of another exchange')
  check(same(entry.get(CTI), consent.get(7)), 'the record is of another consent')
  check(entry.get(VENUE) === asked.venue && entry.get(PURPOSE) === asked.purpose, 'the record has another question')
  check(answer.outcome === 'OUTCOME_STATUS' && entry.get(OUTCOME) === OUTCOME_STATUS, 'the record has another outcome')
  const statement = sha256(answer.statement).subarray(0, 16)
  check(entry.has(STATEMENT) && same(entry.get(STATEMENT), statement), 'the record has another statement')
  return { log, index }
}

/** cborg has numbers up to 2^53, and BigInt beyond. */
const isUint = (value) => (typeof value === 'bigint' || Number.isInteger(value)) && value >= 0

const isBytes = (value) => value instanceof Uint8Array
const isHash = (value) => isBytes(value) && value.length === 32

const leafOf = (data) => sha256(Buffer.concat([Buffer.of(0), data]))
const nodeOf = (left, right) => sha256(Buffer.concat([Buffer.of(1), left, right]))

/** Where a leaf's path leads to in a tree of `count` leaves (RFC 9162 §2.1.3.2). */
function rootOf(leaf, position, count, path) {
  check(position < count, 'no such position in the commit')
  let [node, at, last] = [leaf, position, count - 1]
  for (const sister of path) {
    check(last > 0, 'the path is too long')
    if (at % 2 === 1 || at === last) {
      node = nodeOf(sister, node)
      while (at % 2 === 0 && at > 0) [at, last] = [at >> 1, last >> 1] // Odd last nodes go up as they are.
    } else {
      node = nodeOf(node, sister)
    }
    ;[at, last] = [at >> 1, last >> 1]
  }
  check(last === 0, 'the path is too short')
  return node
}
