// Holds receipt.js to proto/vectors: node --test.

import assert from 'node:assert'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { checkReceipt, verifyReceipt } from './receipt.js'
import { hex, map, rootKeys } from './signed.js'

const read = (name) => JSON.parse(readFileSync(new URL(`../../../proto/vectors/${name}.json`, import.meta.url), 'utf8'))
const { test_keys: testKeys, vectors } = read('access-receipt')
const logKeys = rootKeys([testKeys['gateway-log'].public])
const bytesOf = ({ bytes, repeat = 1 }) => Buffer.from(bytes.repeat(repeat), 'hex')

test('all get their verdict', () => {
  for (const vector of vectors) {
    if (vector.verdict === 'valid') {
      const { entry } = verifyReceipt(bytesOf(vector), logKeys)
      assert.equal(hex(entry.get(13)), vector.result.exchange, vector.id)
    } else {
      assert.throws(() => verifyReceipt(bytesOf(vector), logKeys), undefined, vector.id)
    }
  }
})

test('no flipped bit survives', () => {
  const good = bytesOf(vectors[0])
  for (let bit = 0; bit < good.length * 8; bit++) {
    const flipped = Buffer.from(good)
    flipped[bit >> 3] ^= 1 << bit % 8
    assert.throws(() => verifyReceipt(flipped, logKeys), undefined, `bit ${bit}`)
  }
})

test('a receipt is good for its own exchange alone', () => {
  const { claims } = read('access-record').vectors.find(({ id }) => id === 'access-record/answered')
  const fromHex = (text) => Buffer.from(text, 'hex')
  const own = {
    iss: '44',
    cti: fromHex(claims.cti),
    venue: claims.venue,
    purpose: claims.purpose,
    exchangeId: fromHex(claims.exchange),
    outcome: 'OUTCOME_STATUS',
    statement: bytesOf(read('statement').vectors[0])
  }
  const checked = (changes) => {
    const of = { ...own, ...changes }
    return checkReceipt(bytesOf(vectors[0]), logKeys, map([[1, of.iss], [7, of.cti]]), of, of)
  }
  assert.deepEqual(checked({}), { log: '44', index: 1041 })
  const nothing = Buffer.alloc(0)
  const other = { iss: '11', cti: nothing, venue: '44/park/x', purpose: 1, exchangeId: nothing, statement: nothing }
  for (const [name, value] of Object.entries({ ...other, outcome: 'OUTCOME_UNDETERMINED' })) {
    assert.throws(() => checked({ [name]: value }), undefined, name)
  }
})
