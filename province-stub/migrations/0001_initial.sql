-- The node's first schema. Times are whole seconds since 1970 UTC. A person's data stays in these tables: nothing here is
-- ever logged, and only what a consent grants leaves in a statement.

CREATE TABLE person (
    id              INTEGER PRIMARY KEY,
    document_type   INTEGER NOT NULL,
    document_number TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    UNIQUE (document_type, document_number)
) STRICT;

-- A key that enrolled once never enrols again, for anybody.
CREATE TABLE device (
    id             BLOB    PRIMARY KEY CHECK (length(id) = 16),
    person         INTEGER NOT NULL REFERENCES person (id),
    enrollment_key BLOB    NOT NULL UNIQUE,
    enrolled_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX device_of_person ON device (person);

-- Every assignment ever made; a person's code is the last one. `assigned_at` is when the status began to hold: recording
-- the same status again keeps it, since what nobody could see change has not changed.
CREATE TABLE code (
    id            INTEGER PRIMARY KEY,
    person        INTEGER NOT NULL REFERENCES person (id),
    label         TEXT    NOT NULL,
    rule          TEXT,
    authority     TEXT,
    assigned_at   INTEGER NOT NULL,
    recorded_at   INTEGER NOT NULL,
    by_hand       INTEGER NOT NULL CHECK (by_hand IN (0, 1)),
    set_by        TEXT    NOT NULL,
    request_id    TEXT,
    justification TEXT
) STRICT;

CREATE INDEX code_of_person ON code (person);

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

CREATE TABLE test (
    person     INTEGER NOT NULL REFERENCES person (id),
    sampled_at INTEGER NOT NULL,
    positive   INTEGER NOT NULL CHECK (positive IN (0, 1)),
    PRIMARY KEY (person, sampled_at)
) STRICT, WITHOUT ROWID;

CREATE TABLE dose (
    person   INTEGER NOT NULL REFERENCES person (id),
    number   INTEGER NOT NULL CHECK (number BETWEEN 1 AND 9),
    given_at INTEGER NOT NULL,
    PRIMARY KEY (person, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE visit (
    person  INTEGER NOT NULL REFERENCES person (id),
    area    INTEGER NOT NULL CHECK (area BETWEEN 0 AND 999999),
    high    INTEGER NOT NULL CHECK (high IN (0, 1)),
    left_at INTEGER NOT NULL,
    PRIMARY KEY (person, left_at, area)
) STRICT, WITHOUT ROWID;

-- The change log (DESIGN §7): one event per consent whose status changed or that was revoked. Numbers are given by the one
-- writer in the order of its commits, without gaps; `log_head` remembers the last one when old events have been swept.
CREATE TABLE change_log (
    seq  INTEGER PRIMARY KEY,
    cti  BLOB    NOT NULL CHECK (length(cti) = 16),
    what TEXT    NOT NULL CHECK (what IN ('status', 'revoked')),
    at   INTEGER NOT NULL
) STRICT;

CREATE INDEX change_log_by_time ON change_log (at);

CREATE TABLE log_head (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    epoch BLOB    NOT NULL CHECK (length(epoch) = 16),
    seq   INTEGER NOT NULL
) STRICT;

-- Requests already answered: the same request gets the same answer, another one under the same id is refused.
CREATE TABLE request (
    caller   TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    method   TEXT    NOT NULL,
    digest   BLOB    NOT NULL CHECK (length(digest) = 32),
    response BLOB    NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (caller, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_by_time ON request (at);
