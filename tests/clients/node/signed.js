// Signed objects: COSE in deterministic CBOR, as proto/*.cddl lays them out.
//
// By hand on cborg and node:crypto: the COSE libraries do not know the fully specified algorithms −9 and −19 of RFC
// 9864 yet, and what is left of COSE without them is the array that gets signed.

import { createDecipheriv, createHash, createPublicKey, hkdfSync, sign, verify } from 'node:crypto'
import * as cborg from 'cborg'

// `typ`, which keeps a signature over one kind of object from being taken for another.
export const TOKEN = 65001
export const PROOF = 65002
export const STATEMENT = 65003
export const TRUST_LIST = 65004
export const POLICY = 65005
export const LOG_COMMIT = 65006
export const CONSENT_REQUEST = 65007

// `alg`: issuers and roots sign with Ed25519, devices with ECDSA on P-256.
const ED25519 = -19
const ESP256 = -9

// Header labels (RFC 9052 §3.1, RFC 9596).
const ALG = 1
const KID = 4
const TYP = 16

export const CLOCK_LEEWAY = 30
const WEEK = 7 * 24 * 3600

export function check(holds, otherwise) {
  if (!holds) throw new Error(otherwise)
}

export const sha256 = (data) => createHash('sha256').update(data).digest()
export const now = () => Math.floor(Date.now() / 1000)
export const hex = (bytes) => Buffer.from(bytes).toString('hex')
export const same = (a, b) => Buffer.compare(a, b) === 0

// --- Deterministic CBOR (RFC 8949 §4.2.1) ----------------------------------------------------------------------------

/** Our maps have integer keys, so they are Maps: an object's keys are texts. */
export const map = (entries) => new Map(entries)

export function encode(value) {
  return cborg.encode(value, cborg.rfc8949EncodeOptions)
}

const STRICT = { useMaps: true, strict: true, allowIndefinite: false, rejectDuplicateMapKeys: true }

/** One meaning has one encoding. cborg does not check the order of keys; encoding again does. */
export function decode(data) {
  const value = cborg.decode(data, STRICT)
  check(same(encode(value), data), 'not deterministic CBOR')
  return value
}

const isEmpty = (value) => value instanceof Map && value.size === 0

/** Maps are closed: an entry that its .cddl file does not name is refused, never skipped. */
export function checkKeys(value, required, optional = []) {
  const keys = [...value.keys()]
  check(required.every((key) => value.has(key)), 'an entry is missing')
  check(keys.every((key) => required.includes(key) || optional.includes(key)), 'an entry too many')
}

// --- What a device signs: COSE_Sign1 with ESP256 ---------------------------------------------------------------------

const NOTHING = new Uint8Array()

export function sign1(typ, key, kid, claims, externalAad = NOTHING) {
  const header = encode(map([[ALG, ESP256], [KID, kid], [TYP, typ]]))
  const payload = encode(claims)
  const message = encode(['Signature1', header, externalAad, payload])
  const signature = sign('sha256', message, { key, dsaEncoding: 'ieee-p1363' }) // r ‖ s, not DER (RFC 9053 §2.1).
  return encode([header, map(), payload, signature])
}

/** The public half as a COSE_Key, the point compressed: of y there is only the sign. */
export function coseKey(publicKey) {
  const { x, y } = publicKey.export({ format: 'jwk' })
  const yIsOdd = Buffer.from(y, 'base64url')[31] % 2 === 1
  return map([[1, 2], [-1, 1], [-2, Buffer.from(x, 'base64url')], [-3, yIsOdd]])
}

export function deviceKid(publicKey) {
  const key = coseKey(publicKey)
  return sha256(Buffer.concat([Buffer.of(key.get(-3) ? 3 : 2), key.get(-2)])).subarray(0, 8)
}

// --- What issuers sign: COSE_Sign1 with Ed25519 ----------------------------------------------------------------------

/** Splits an object into its parts and its claims. Believes nothing yet. */
export function read1(data) {
  const [header, unprotected, payload, signature] = decode(data)
  check(isEmpty(unprotected), 'the unprotected header is not empty')
  return { header, payload, signature, claims: decode(payload) }
}

/** The claims of an object that one of its issuer's keys signed; `keysOf(issuer)` has them by kid. */
export function verify1(typ, data, keysOf) {
  const { header, payload, signature, claims } = read1(data)
  const key = keysOf(claims.get(1)).get(kidOf(typ, header))
  check(key, `${claims.get(1)} has no such key for this use`)
  check(verify(null, encode(['Signature1', header, NOTHING, payload]), key, signature), 'the signature does not verify')
  return claims
}

/** The header has exactly alg, kid and typ. It never chooses the algorithm: it must name the one that we expect. */
function kidOf(typ, bytes) {
  const header = decode(bytes)
  checkKeys(header, [ALG, KID, TYP])
  check(header.get(ALG) === ED25519 && header.get(TYP) === typ, `not the header of a ${typ}`)
  return hex(header.get(KID))
}

/** Ed25519 keys of the trust list by their kid, which is computed and not carried. */
export function publicKeys(keys) {
  return map(keys.map(([alg, bytes]) => {
    check(alg === ED25519, 'a key of an unknown algorithm')
    const jwk = { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(bytes).toString('base64url') }
    return [hex(sha256(bytes).subarray(0, 8)), createPublicKey({ key: jwk, format: 'jwk' })]
  }))
}

/** The roots as they stand in configuration. */
export const rootKeys = (roots) => publicKeys(roots.map((root) => [ED25519, Buffer.from(root, 'hex')]))

// --- What the roots sign: COSE_Sign by N of M ------------------------------------------------------------------------

/** The content of the trust list or the policy. */
export function openDocument(typ, data, roots, threshold) {
  const [header, unprotected, payload, signatures] = decode(data)
  const body = decode(header)
  check(body.size === 1 && body.get(TYP) === typ && isEmpty(unprotected), `not a document of type ${typ}`)
  const signers = new Set()
  for (const [signatureHeader, unprotected, signature] of signatures) {
    const kid = kidOf(typ, signatureHeader)
    check(isEmpty(unprotected), 'the unprotected header is not empty')
    if (!roots.has(kid)) continue // Passed over: when roots change, old and new ones sign.
    const message = encode(['Signature', header, signatureHeader, NOTHING, payload])
    check(verify(null, message, roots.get(kid), signature), "a root's signature does not verify")
    signers.add(kid)
  }
  check(signers.size >= threshold, `${signers.size} roots signed, ${threshold} must`)
  const edition = decode(payload)
  checkKeys(edition, [1, 2, 4, 6])
  const expires = edition.get(4)
  const issued = edition.get(6)
  check(issued < expires && expires <= issued + WEEK, 'a document lives a week at most')
  check(issued - CLOCK_LEEWAY <= now() && now() < expires, 'the document does not hold now')
  return edition.get(2)
}

// --- The sealed identity hint ----------------------------------------------------------------------------------------

/** Masked name and document tail: nonce ‖ ciphertext ‖ tag, 92 bytes for everybody. */
export function openHint(sealed, k) {
  check(sealed.length === 92, 'not a sealed hint')
  const key = Buffer.from(hkdfSync('sha256', k, NOTHING, 'tongxing/1/hint', 32))
  const cipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12), { authTagLength: 16 })
  cipher.setAuthTag(sealed.subarray(76))
  const plain = Buffer.concat([cipher.update(sealed.subarray(12, 76)), cipher.final()])
  const nameEnd = 2 + plain[0]
  return { maskedName: plain.toString('utf8', 2, nameEnd), tail: plain.toString('utf8', nameEnd, nameEnd + plain[1]) }
}
