// One health code from its first day to the gate, over mTLS: enrol, consent, prove, be recognised, believe nobody.
//
// Four parties that are four programs in life, top to bottom: the phone, its home member's backend and operator, the
// venue. How a signed object is made and checked is in signed.js, the receipt that an exchange is on record in receipt.js.

import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import grpc from '@grpc/grpc-js'
import protoLoader from '@grpc/proto-loader'
import base45 from 'base45'
import { parse as parseToml } from 'smol-toml'
import { checkReceipt, verifyReceipt } from './receipt.js'
import * as signed from './signed.js'
import { check, map, now, same, sha256 } from './signed.js'

const DEADLINE = 5000 // Milliseconds. Without one a call may wait for ever.
// Numbers in signed objects: purposes, scope bits, kinds. Ask for the scope that is needed: the person reads it first.
const ENTRY = 1
const TRAVEL = 2
const LEVEL = 1
const IDENTITY_HINT = 32
const KIND_OWN = 1

const here = fileURLToPath(new URL('.', import.meta.url))
const definition = protoLoader.loadSync(
  [
    'tongxing/assignment/v1/assignment.proto',
    'tongxing/federation/v1/federation.proto',
    'tongxing/recognition/v1/recognition.proto',
    'tongxing/traveler/v1/traveler.proto',
    'google_rpc.proto'
  ],
  { includeDirs: [join(here, '../../../proto'), here], enums: String, longs: Number, defaults: true }
)
const { tongxing } = grpc.loadPackageDefinition(definition)

async function main() {
  const options = parseOptions()
  const federation = new Federation(options.dir)
  await federation.fetch(options.venue)
  const text = await atHome(federation, options)
  console.log(`presentation  ${text}`)
  await atTheGate(federation, options, text)
}

function parseOptions() {
  const { values } = parseArgs({
    options: {
      dir: { type: 'string', default: '.tongxing' }, // a running federation's state directory
      member: { type: 'string', default: '44' }, // the home member
      venue: { type: 'string', default: '11/station/beijing-west' }, // who asks
      document: { type: 'string' }, // a seeded person's; a new person gets a green code from the operator
      name: { type: 'string', default: '演示旅客' }, // the person's name
      label: { type: 'string', default: '绿码' } // the member's own word for green
    }
  })
  return values
}

// --- The federation: addresses, credentials, trust -------------------------------------------------------------------

/** What a party needs to know beforehand: its own credentials, and in life the root keys by a way it trusts. */
class Federation {
  constructor(dir) {
    this.dir = dir
    this.addresses = parseToml(this.read('federation.toml').toString()).addresses
    const pinned = parseToml(this.read('trust-list.toml').toString())
    const roots = signed.rootKeys(pinned.roots)
    this.open = (typ, data) => signed.openDocument(typ, data, roots, pinned.threshold)
  }

  /** Trust list and policy, from the gateway, which cannot forge them: enough of the pinned roots must have signed. */
  async fetch(venue) {
    const gateway = this.gateway(tongxing.federation.v1.FederationService, venue)
    const { trustList } = await call(gateway, 'GetTrustList', {})
    const { policy } = await call(gateway, 'GetPolicy', {})
    gateway.close()
    const trust = this.open(signed.TRUST_LIST, trustList)
    this.logKeys = signed.publicKeys(trust.get(4).get(2))
    this.members = map(trust.get(5).map((member) => [member.get(1), member]))
    this.policy = parseToml(this.open(signed.POLICY, policy))
  }

  read(name) {
    return readFileSync(join(this.dir, name))
  }

  /** Keys of a member for one use: entry 4 or 5 of the trust list. */
  keys(member, use) {
    return signed.publicKeys(this.members.get(member)?.get(use) ?? [])
  }

  /** 转码: what a member's own word means everywhere. undefined is no level, and never green. */
  level(member, label) {
    const { labels } = this.policy
    return (labels[member] ?? labels.default)[label]
  }

  node(Client, member, role) {
    return this.client(Client, this.addresses.nodes[member].public, member, `${role}/${member}`)
  }

  gateway(Client, venue) {
    const own = `venue/${venue.replaceAll('/', '-')}`
    return this.client(Client, this.addresses.gateways[0].public, 'gateway', own)
  }

  /** Believes the one CA of the server that is meant. Every other member's CA vouches for its own alone. */
  client(Client, address, server, own) {
    const files = [`ca/${server}.tongxing.test.pem`, `${own}/key.pem`, `${own}/cert.pem`]
    return new Client(address, grpc.credentials.createSsl(...files.map((file) => this.read(file))))
  }
}

/** One unary call as a promise. */
function call(client, method, request) {
  return new Promise((resolve, reject) => {
    const answered = (error, response) => (error ? reject(error) : resolve(response))
    client[method](request, { deadline: Date.now() + DEADLINE }, answered)
  })
}

// --- The phone, and those at home who serve it -----------------------------------------------------------------------

/** A phone enrols, gets a token and shows it. Returns the text of the QR. */
async function atHome(federation, options) {
  const { member, venue, name } = options
  const backend = federation.node(tongxing.traveler.v1.TravelerService, member, 'backend')
  const document = options.document
    ? { type: 'DOCUMENT_TYPE_RESIDENT_ID', number: options.document }
    : { type: 'DOCUMENT_TYPE_OTHER', number: `DEMO-${randomUUID().toUpperCase().slice(24)}` }
  const phone = await Phone.enroll(backend, document, name)
  if (!options.document) await setCode(federation, options, document)
  await phone.consent(backend, venue.split('/')[1], [ENTRY, TRAVEL])
  backend.close()
  return phone.present(venue)
}

class Phone {
  static async enroll(backend, document, name) {
    const phone = new Phone()
    phone.enrollment = newKey()
    const enrollmentKey = signed.encode(signed.coseKey(phone.enrollment.publicKey))
    const request = { requestId: randomUUID(), document, name, enrollmentKey }
    const { deviceId, homeTime } = await call(backend, 'EnrollDevice', request)
    phone.deviceId = deviceId
    phone.clockOffset = homeTime.seconds - now() // Proofs live a minute: a phone goes by home's clock.
    console.log('enrolled      a phone')
    return phone
  }

  now() {
    return now() + this.clockOffset
  }

  /** Asks for a token. It names a fresh key: the enrolment key would link what the random cti unlinks (I6). */
  async consent(backend, audience, purposes) {
    this.tokenKey = newKey()
    const wish = map([[1, this.deviceId], [2, purposes], [3, LEVEL | IDENTITY_HINT], [4, KIND_OWN], [5, 3600]])
    const claims = map([
      [3, audience],
      [6, this.now()],
      [7, randomBytes(16)],
      [8, map([[1, signed.coseKey(this.tokenKey.publicKey)]])],
      [-65539, wish]
    ])
    const { privateKey, publicKey } = this.enrollment
    const consentRequest = signed.sign1(signed.CONSENT_REQUEST, privateKey, signed.deviceKid(publicKey), claims)
    const { token, hintKey, expireTime } = await call(backend, 'IssueConsent', { consentRequest })
    Object.assign(this, { token, k: hintKey })
    const until = new Date(expireTime.seconds * 1000).toISOString()
    console.log(`consented     a token of ${token.length} bytes until ${until}`)
  }

  /** A proof for this venue alone, whose printed code the phone scanned. Good for a minute. */
  present(venue) {
    const cti = signed.read1(this.token).claims.get(7)
    const claims = map([[3, venue], [4, this.now() + 60], [6, this.now()], [10, randomBytes(8)]])
    const tokenHash = sha256(this.token) // Signed along, so that the proof is no other token's.
    const proof = signed.sign1(signed.PROOF, this.tokenKey.privateKey, cti.subarray(0, 8), claims, tokenHash)
    return 'TX1:' + base45.encode(signed.encode([1, this.token, proof, this.k]))
  }
}

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })

/** A person whom the member did not know has no code yet. The operator assigns one and says by which rule. */
async function setCode(federation, { member, label }, document) {
  const operator = federation.node(tongxing.assignment.v1.AssignmentService, member, 'operator')
  const why = { rule: 'R-CASE', authority: `${member}/cdc`, justification: 'an example' }
  await call(operator, 'SetCode', { requestId: randomUUID(), document, label, ...why })
  operator.close()
  console.log(`assigned      ${label}`)
}

// --- The venue -------------------------------------------------------------------------------------------------------

/** A venue asks the national gateway. All it got from the phone is the text of the QR. */
async function atTheGate(federation, { venue, name }, text) {
  const { token, proof, k } = readPresentation(text)
  const gateway = federation.gateway(tongxing.recognition.v1.RecognitionService, venue)
  // k is not in the request, and must never be: it opens what the gateway may not read (I6).
  const request = { token, proof, venue, purpose: 'PURPOSE_ENTRY' }
  const answer = await call(gateway, 'Recognize', request)
  const { outcome, decision, source, nextStep } = answer
  console.log(`answer        ${outcome} ${decision} ${source}: ${nextStep?.zh} ${nextStep?.en}`)
  check(outcome === 'OUTCOME_STATUS', 'no status')
  check(verifyAnswer(federation, token, k, answer) === mask(name), "another person's code")
  check(decision === 'DECISION_PASS', 'the gate stays shut')
  verifyRecord(federation, token, { venue, purpose: ENTRY }, answer)

  // Errors are about the call, and are meant for programs: branch on the reason, never on the message.
  const { reason } = await refusal(gateway, { ...request, purpose: 'PURPOSE_MEDICAL' }) // Not agreed to.
  check(reason === 'PURPOSE_NOT_CONSENTED', `refused for ${reason}`)
  const missing = await refusal(gateway, { purpose: 'PURPOSE_ENTRY' })
  check(missing.reason === 'FIELD_MISSING' && missing.fields.join() === 'token', `refused for ${missing.reason}`)
  gateway.close()
  console.log(`ok node PASS ${reason}`)
}

function readPresentation(text) {
  check(text.startsWith('TX1:'), 'not a presentation')
  const bytes = base45.decode(text.slice(4))
  check(base45.encode(bytes) === text.slice(4), 'not base45') // The library reads on over what is not.
  const [version, token, proof, k] = signed.decode(bytes)
  check(version === 1, `a presentation of version ${version}`)
  return { token, proof, k }
}

/** Checks home's own words, so that nobody needs to believe the gateway (I3). Returns the masked name. */
function verifyAnswer(federation, token, k, answer) {
  const consent = signed.verify1(signed.TOKEN, token, (member) => federation.keys(member, 4))
  const statement = signed.verify1(signed.STATEMENT, answer.statement, (member) => federation.keys(member, 5))
  signed.checkKeys(statement, [1, 4, 6, -65538])
  const [issuer, expires, issued, status] = [1, 4, 6, -65538].map((key) => statement.get(key))
  signed.checkKeys(status, [1, 2, 3, 11], [4, 5, 6, 7, 8, 9, 10])
  const label = status.get(3)
  const offlineUntil = status.get(11)

  const bound = issuer === consent.get(1) && same(status.get(1), sha256(token).subarray(0, 16))
  check(bound, 'the statement answers for another token')
  const { lives } = federation.policy
  check(issued <= expires && expires <= issued + seconds(lives.statement), 'the statement claims too long a life')
  const offlineLimit = Math.min(issued + seconds(lives.offline), expires)
  check(issued <= offlineUntil && offlineUntil <= offlineLimit, 'offline for too long')
  const holds = issued - signed.CLOCK_LEEWAY <= now() && now() < expires + signed.CLOCK_LEEWAY
  check(holds, 'the statement does not hold now')
  const scopeOf = [[6, 2], [7, 4], [8, 8], [9, 16], [10, 32]] // Which field needs which scope bit.
  const granted = scopeOf.every(([field, bit]) => !status.has(field) || answer.grantedScope & bit)
  check(granted, 'the statement discloses what nobody granted')

  // The level is ours to work out. Yellow or red needs a rule and an authority of the policy too; a green, nothing.
  const level = federation.level(issuer, label)
  check(level === 'green' && answer.level === 'LEVEL_GREEN', `${label} is ${level}, which is not green`)
  console.log(`verified      ${label} of ${issuer}, ${expires - issued} s, offline ${offlineUntil - issued} s`)
  check(status.has(10), 'no identity hint, although it was asked for')
  const { maskedName, tail } = signed.openHint(status.get(10), k)
  console.log(`identity      ${maskedName} …${tail}: compare with the document in the person's hand`)
  return maskedName
}

/** Checks that the exchange is on record, on home's log, and that the record says what the answer says (I2). */
function verifyRecord(federation, token, asked, answer) {
  const consent = signed.read1(token).claims // Verified with the answer.
  const { accessReceipt } = answer
  const { log, index } = checkReceipt(accessReceipt, federation.logKeys, consent, asked, answer)
  console.log(`on record     no. ${index} on a log of ${log}, for this exchange, with this statement`)
  const flipped = Buffer.from(accessReceipt)
  flipped[flipped.length - 1] ^= 1
  check(!isBelieved(() => verifyReceipt(flipped, federation.logKeys)), 'a flipped receipt was believed')
}

function isBelieved(verify) {
  try {
    verify()
    return true
  } catch {
    return false // Whatever it is refused for.
  }
}

const seconds = (life) => parseInt(life) * { s: 1, m: 60, h: 3600, d: 86400 }[life.at(-1)]

function mask(name) {
  const [first, ...others] = name
  return first + '*'.repeat(Math.min(Math.max(others.length, 1), 8))
}

/** Makes a call that must fail. Returns the reason and the fields at fault. */
async function refusal(gateway, request) {
  const error = await call(gateway, 'Recognize', request).then(() => check(false, 'it was answered'), (error) => error)
  const fields = []
  let reason
  // grpc-js hands over the details as it got them: a google.rpc.Status in a header.
  const [bytes] = error.metadata.get('grpc-status-details-bin')
  for (const { type_url: type, value } of decodeRpc('Status', bytes).details) {
    if (type.endsWith('/google.rpc.ErrorInfo')) {
      const info = decodeRpc('ErrorInfo', value)
      check(info.domain === 'tongxing', `an error of ${info.domain}`)
      reason = info.reason
      console.log(`refused       ${grpc.status[error.code]} ${reason} ${info.domain} ${JSON.stringify(info.metadata)}`)
    } else if (type.endsWith('/google.rpc.BadRequest')) {
      for (const { field, description } of decodeRpc('BadRequest', value).fieldViolations) {
        fields.push(field)
        console.log(`              ${field}: ${description}`)
      }
    } else if (type.endsWith('/google.rpc.RetryInfo')) {
      console.log(`              try again in ${decodeRpc('RetryInfo', value).retryDelay.seconds} s`)
    }
  }
  return { reason, fields }
}

const decodeRpc = (name, bytes) => definition[`google.rpc.${name}`].deserialize(bytes)

await main()
