-- What the broker remembers. Times are milliseconds since the Unix epoch, UTC.

-- The audit log: one line an entry, chained. Never updated, never deleted. The four columns
-- after json repeat what it says, for queries; `verify` compares them.
CREATE TABLE entries (
    seq     INTEGER PRIMARY KEY,
    prev    BLOB NOT NULL,
    hash    BLOB NOT NULL,
    json    TEXT NOT NULL,
    session TEXT,
    intent  TEXT,
    denial  TEXT,
    role    TEXT
) STRICT;

CREATE INDEX entries_session ON entries (session) WHERE session IS NOT NULL;
CREATE INDEX entries_intent ON entries (intent) WHERE intent IS NOT NULL;
CREATE INDEX entries_denial ON entries (denial) WHERE denial IS NOT NULL;
CREATE INDEX entries_role ON entries (role) WHERE role IS NOT NULL;

-- The end of the chain under its seal, and how many leases are in each state (a JSON object), so
-- that metrics need no count over all leases. One row, updated with each commit.
CREATE TABLE head (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    seq    INTEGER NOT NULL,
    hash   BLOB NOT NULL,
    seal   BLOB NOT NULL,
    leases TEXT NOT NULL
) STRICT;

-- journal-id, key-probe, snapshot (digest of the policies in force), ballast (see the writer).
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id             TEXT PRIMARY KEY,
    token_hash     BLOB NOT NULL UNIQUE,
    role           TEXT NOT NULL,
    prompt_digest  TEXT NOT NULL,
    authorizations TEXT NOT NULL,
    principal      TEXT NOT NULL,
    requester      TEXT NOT NULL,
    requester_name TEXT,
    opened_at      INTEGER NOT NULL,
    ends_at        INTEGER NOT NULL,
    ended_at       INTEGER,
    cause          TEXT
) STRICT;

-- For the start: only the sessions that have not ended are read.
CREATE INDEX sessions_live ON sessions (id) WHERE ended_at IS NULL;

CREATE TABLE leases (
    id                TEXT PRIMARY KEY,
    session           TEXT NOT NULL REFERENCES sessions (id),
    backend           TEXT NOT NULL,
    scope             TEXT NOT NULL,
    role              TEXT NOT NULL,
    prompt_digest     TEXT NOT NULL,
    state             TEXT NOT NULL,
    cause             TEXT,
    attempts          INTEGER NOT NULL DEFAULT 0,
    opened_at         INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    -- When the worker must next act; NULL when there is nothing to do.
    act_at            INTEGER,
    -- When it fell due; kept over later attempts.
    due_at            INTEGER,
    -- Sealed: nonce, ciphertext, tag.
    handle            BLOB,
    idempotency_key   TEXT,
    join_keys         TEXT NOT NULL DEFAULT '{}',
    revocation        TEXT NOT NULL,
    residual_exposure INTEGER NOT NULL
) STRICT;

-- For the worker: what to do next, a backend at a time.
CREATE INDEX leases_next ON leases (backend, act_at) WHERE act_at IS NOT NULL;

-- For the end of a session and for the operator: what has not reached a final state.
CREATE INDEX leases_unsettled ON leases (session, id) WHERE state NOT IN ('revoked', 'expired');

-- At most one credential is minted for one key in one session.
CREATE UNIQUE INDEX leases_key ON leases (session, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
