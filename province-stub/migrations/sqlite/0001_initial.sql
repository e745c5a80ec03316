-- The node's schema. Times are whole seconds since 1970 UTC. A person's data stays in these tables: nothing here is ever
-- logged, and only what a consent grants leaves in a statement. What names a person is sealed, and found by a keyed hash.

-- The keys that seal and hash what names people, by fingerprint: never the keys themselves. A row's `key` says which one.
CREATE TABLE rest_key (
    id          INTEGER PRIMARY KEY,
    fingerprint BLOB    NOT NULL UNIQUE CHECK (length(fingerprint) = 16)
) STRICT;

-- `document` and `reference` are keyed hashes: of the identity document, and of the name by which the member's own platform
-- knows the person. A person has one of them at least. `particulars` are what was hashed, and the name, sealed: the document
-- and the name are absent for whom the platform alone has named so far. `code` is the assignment that holds, of all in the
-- table `code`; none: no code. `base` is the one that stands whatever the evidence said until then: by hand, by the platform,
-- or seeded. `due_at` is when time alone may change the code.
CREATE TABLE person (
    id          INTEGER PRIMARY KEY,
    document    BLOB    UNIQUE CHECK (length(document) = 16),
    reference   BLOB    UNIQUE CHECK (length(reference) = 16),
    particulars BLOB    NOT NULL,
    key         INTEGER NOT NULL REFERENCES rest_key (id),
    code        INTEGER,
    base        INTEGER,
    due_at      INTEGER,
    CHECK (document IS NOT NULL OR reference IS NOT NULL)
) STRICT;

CREATE INDEX person_due ON person (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX person_by_key ON person (key);

-- A key that enrolled once never enrols again, for anybody.
CREATE TABLE device (
    id             BLOB    PRIMARY KEY CHECK (length(id) = 16),
    person         INTEGER NOT NULL REFERENCES person (id),
    enrollment_key BLOB    NOT NULL UNIQUE,
    enrolled_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX device_of_person ON device (person);

-- Every assignment ever made; `person` says which one holds. One without a label took away what was assigned before it.
-- `assigned_at` is when the status began to hold: recording the same status again keeps it, since what nobody could see
-- change has not changed. `source` is hand, platform, rules or seed. `ends_at` is when it runs out by its rule, `evidence` what it follows from, `covers` the
-- latest evidence about the person that was on file when a base was set: what comes after it counts beside the base.
-- `over_at` is since when it neither holds nor is the base. `justification` speaks of a person: it is sealed, with `key`.
CREATE TABLE code (
    id            INTEGER PRIMARY KEY,
    person        INTEGER NOT NULL REFERENCES person (id),
    label         TEXT,
    rule          TEXT,
    authority     TEXT,
    assigned_at   INTEGER NOT NULL,
    recorded_at   INTEGER NOT NULL,
    source        TEXT    NOT NULL CHECK (source IN ('hand', 'platform', 'rules', 'seed')),
    set_by        TEXT    NOT NULL,
    request_id    TEXT,
    justification BLOB,
    key           INTEGER REFERENCES rest_key (id),
    ends_at       INTEGER,
    evidence      INTEGER,
    covers        INTEGER NOT NULL DEFAULT 0,
    over_at       INTEGER
) STRICT;

CREATE INDEX code_by_end ON code (over_at) WHERE over_at IS NOT NULL;
CREATE INDEX code_of_person ON code (person, id);
CREATE INDEX code_by_key ON code (key) WHERE key IS NOT NULL;

-- `device` is absent for standing consents, which the member's own tools issue in bulk; `token_key` is absent for paper.
-- A token key is good for one token: two tokens with one key would be linked by it (I6).
CREATE TABLE consent (
    cti        BLOB    PRIMARY KEY CHECK (length(cti) = 16),
    person     INTEGER NOT NULL REFERENCES person (id),
    device     BLOB    REFERENCES device (id),
    kind       INTEGER NOT NULL,
    token_hash BLOB    NOT NULL CHECK (length(token_hash) = 32),
    token_key  BLOB    UNIQUE,
    scope      INTEGER NOT NULL,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX consent_of_person ON consent (person, expires_at);
CREATE INDEX consent_by_expiry ON consent (expires_at);
-- Before a device goes, whatever names it is looked for.
CREATE INDEX consent_of_device ON consent (device) WHERE device IS NOT NULL;

-- Who brings evidence.
CREATE TABLE source (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

-- Evidence, one row for each record of each source in its latest revision. `class`: 1 test, 2 dose, 3 stay, 4 case,
-- 5 contact, 6 listing of a risk area; 0 withdrawn, which keeps the revision alone. `at` and `until` bound it in time (a
-- test's sample has no end). `detail`: whether a test was positive; a dose's number; the area of a stay and of a listing.
-- A record that is corrected gets a new id: ids are in the order in which evidence came.
-- `grade` of a listing is its risk, 1 low, 2 medium, 3 high; of a stay the highest risk that its area was listed with
-- meanwhile, 0 if none. Listings are about nobody.
CREATE TABLE evidence (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    source      INTEGER NOT NULL REFERENCES source (id),
    record      TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    person      INTEGER REFERENCES person (id),
    class       INTEGER NOT NULL CHECK (class BETWEEN 0 AND 6),
    at          INTEGER NOT NULL,
    until       INTEGER,
    detail      INTEGER NOT NULL,
    grade       INTEGER NOT NULL,
    authority   TEXT,
    received_at INTEGER NOT NULL,
    UNIQUE (source, record)
) STRICT;

CREATE INDEX evidence_of_person ON evidence (person, class, at) WHERE person IS NOT NULL;
CREATE INDEX evidence_of_area ON evidence (detail, class, id) WHERE class = 3 OR class = 6;
-- Areas that are listed otherwise now, since when, and the last stay there whose grade has been worked out anew; `again`: they
-- have been listed otherwise once more meanwhile.
CREATE TABLE relisted (
    area  INTEGER PRIMARY KEY,
    after INTEGER NOT NULL,
    again INTEGER NOT NULL CHECK (again IN (0, 1)),
    since INTEGER NOT NULL
) STRICT;

CREATE INDEX evidence_by_end ON evidence (coalesce(until, at)) WHERE class <> 2;

-- The change log (DESIGN §7): one event per consent whose status changed or that was revoked. Numbers are given in the order
-- of commits, without gaps; `log_head` remembers the last one when old events have been swept. `place` says which database
-- it is, so that a copy that was put back begins a new epoch; `previous` is the epoch before. `rules` is the digest of the
-- policy's rules that all codes were worked out by last.
CREATE TABLE change_log (
    seq  INTEGER PRIMARY KEY,
    cti  BLOB    NOT NULL CHECK (length(cti) = 16),
    what TEXT    NOT NULL CHECK (what IN ('status', 'revoked')),
    at   INTEGER NOT NULL
) STRICT;

CREATE INDEX change_log_by_time ON change_log (at);

CREATE TABLE log_head (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    epoch    BLOB    NOT NULL CHECK (length(epoch) = 16),
    previous BLOB    CHECK (length(previous) = 16),
    seq      INTEGER NOT NULL,
    place    BLOB,
    rules    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Requests already answered: the same request gets the same answer, another one under the same id is refused. `digest` is a
-- keyed hash of what was asked: names and numbers are too few to be hidden by any other. Whose it was: the answer, and what
-- was asked, are about them; NULL if it was about many.
CREATE TABLE request (
    caller   TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    method   TEXT    NOT NULL,
    digest   BLOB    NOT NULL CHECK (length(digest) = 32),
    response BLOB    NOT NULL,
    at       INTEGER NOT NULL,
    person   INTEGER REFERENCES person (id),
    PRIMARY KEY (caller, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_by_time ON request (at);
CREATE INDEX request_of_person ON request (person) WHERE person IS NOT NULL;

-- The member's own operators looked at a person: which one, what for (sealed, with `key`), and how.
CREATE TABLE operator_access (
    id       INTEGER PRIMARY KEY,
    person   INTEGER REFERENCES person (id),
    at       INTEGER NOT NULL,
    operator TEXT    NOT NULL,
    method   TEXT    NOT NULL,
    reason   BLOB,
    key      INTEGER REFERENCES rest_key (id)
) STRICT;

CREATE INDEX operator_access_of_person ON operator_access (person, at) WHERE person IS NOT NULL;
CREATE INDEX operator_access_by_time ON operator_access (at);
CREATE INDEX operator_access_by_key ON operator_access (key) WHERE key IS NOT NULL;

-- The access log (DESIGN §8): what the gateway's replicas recorded of this member's travelers, as it was delivered.

-- One log of one replica's disk. `size` and `peaks` are the right edge of the Merkle tree over all records that came,
-- `base_size` and `base_peaks` the one over those that were forgotten since: what is left stays verifiable between the two.
-- Checkpoints that were accepted: the latest, and the one before it that the records have not reached yet, so that every
-- promise of the log is held against what it delivered; and the one that came with the last records, with its proof that it
-- extends the tree over them: that binds what is held to a signature. `conflicts` counts all, those on file and those beyond.
-- `key` is the log's own; its SHA-256 is the log's id.
--
-- A log is in one part, unless this store was put back to a time that the gateway no longer has records of: then it goes on in
-- another part, which starts behind those that never came.
CREATE TABLE access_log (
    id           INTEGER PRIMARY KEY,
    log          BLOB    NOT NULL CHECK (length(log) = 32),
    key          BLOB    NOT NULL CHECK (length(key) = 32),
    start        INTEGER NOT NULL CHECK (start >= 0),
    size         INTEGER NOT NULL CHECK (size >= 0),
    peaks        BLOB    NOT NULL,
    base_size    INTEGER NOT NULL CHECK (base_size BETWEEN 0 AND size),
    base_peaks   BLOB    NOT NULL,
    awaited_size INTEGER,
    awaited_root BLOB,
    awaited_note TEXT,
    latest_size  INTEGER,
    latest_root  BLOB,
    latest_note  TEXT,
    bound_size   INTEGER,
    bound_root   BLOB,
    bound_note   TEXT,
    bound_proof  BLOB    NOT NULL DEFAULT x'',
    conflicts    INTEGER NOT NULL DEFAULT 0,
    UNIQUE (log, start)
) STRICT;

-- One record, byte for byte. `person` and `device` are whose consent it was when it came; NULL if the consent was not known,
-- or the person has been forgotten. `time` is its place in their list: what the record says, or when it came if that is
-- earlier; NULL if nobody can read it. No reference to `device`: it may be forgotten first.
CREATE TABLE access (
    log         INTEGER NOT NULL REFERENCES access_log (id),
    idx         INTEGER NOT NULL CHECK (idx >= 0),
    record      BLOB    NOT NULL,
    time        INTEGER,
    received_at INTEGER NOT NULL,
    person      INTEGER REFERENCES person (id),
    device      BLOB,
    PRIMARY KEY (log, idx)
) STRICT, WITHOUT ROWID;

CREATE INDEX access_of_person ON access (person, time, log, idx) WHERE person IS NOT NULL;

-- Evidence of two histories under one log's id: the checkpoint that was accepted, if there was one, and the one that cannot
-- be of the same history. Both are signed by the log's own key; `caller` is the peer that brought the second. It is kept for
-- good: there is a bounded number of each log.
CREATE TABLE access_conflict (
    log        INTEGER NOT NULL REFERENCES access_log (id),
    number     INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    caller     TEXT    NOT NULL,
    idx        INTEGER NOT NULL,
    held_size  INTEGER NOT NULL,
    held_note  TEXT,
    shown_size INTEGER NOT NULL,
    shown_note TEXT    NOT NULL,
    PRIMARY KEY (log, number)
) STRICT, WITHOUT ROWID;
