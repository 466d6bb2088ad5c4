-- A key that the backend itself makes has a row before it is made, and one while it is still to be
-- deleted there. SQLite changes no constraint, so the table is made anew.
CREATE TABLE secrets_with_keys (
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    -- current: what references read; making: the backend is to make it; pending: taking the place of
    -- the current one, not yet proven; retiring: the id of a key to delete at the backend; gone: deleted.
    state   TEXT NOT NULL CHECK (state IN ('current', 'making', 'pending', 'retiring', 'gone')),
    sealed  BLOB CHECK ((sealed IS NULL) = (state IN ('making', 'gone'))),
    put_at  INTEGER NOT NULL,
    put_by  TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

INSERT INTO secrets_with_keys (name, version, state, sealed, put_at, put_by)
SELECT name, version, state, sealed, put_at, put_by FROM secrets;

DROP TABLE secrets;

ALTER TABLE secrets_with_keys RENAME TO secrets;
