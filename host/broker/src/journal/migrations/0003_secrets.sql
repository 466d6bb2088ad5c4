-- The secrets that the broker keeps for `store:` references, sealed to name and version. Of a
-- deleted one its newest version stays, without a value, so that no version is ever given twice.
CREATE TABLE secrets (
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    -- current: what references read; pending: taking its place, not yet proven; gone: deleted.
    state   TEXT NOT NULL CHECK (state IN ('current', 'pending', 'gone')),
    sealed  BLOB CHECK ((sealed IS NULL) = (state = 'gone')),
    put_at  INTEGER NOT NULL,
    put_by  TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
