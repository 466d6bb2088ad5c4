-- Beside the value in force a secret may have another one, which is taking its place. SQLite changes
-- no constraint, so the table is made anew.
CREATE TABLE secrets_with_pending (
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    -- current: what references read; pending: taking its place, not yet proven; gone: deleted.
    state   TEXT NOT NULL CHECK (state IN ('current', 'pending', 'gone')),
    sealed  BLOB CHECK ((sealed IS NULL) = (state = 'gone')),
    put_at  INTEGER NOT NULL,
    put_by  TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

INSERT INTO secrets_with_pending (name, version, state, sealed, put_at, put_by)
SELECT name, version, state, sealed, put_at, put_by FROM secrets;

DROP TABLE secrets;

ALTER TABLE secrets_with_pending RENAME TO secrets;
