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
